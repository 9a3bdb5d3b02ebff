public import RingKit

/// What becomes of work that a disk has handed to data threads.
public enum VbdEvent: Sendable {
  /// The queues are up (nil), or could not be made and nothing is left of them.
  case opened(generation: UInt32, failure: VbdError?)
  /// Nothing is in flight or mapped any more.
  case drained(generation: UInt32)
  /// The frontend broke the rules of its ring.
  case faulted(generation: UInt32, VbdError)
  /// The queues have answered a question of the disk's.
  case answered(question: UInt32, failure: VbdError?)
  /// The medium has lost what was written; the error number says why.
  case lostData(medium: UInt32, errno: Int32)
  /// Something happened to the store.
  case told(DeviceSeverity, String)
}

/// What a disk needs of the daemon that serves it. Belongs to the control thread.
public protocol VbdEnvironment: AnyObject {
  /// The control thread's xenstore.
  var store: any StoreSession { get }
  /// The domain that serves.
  var ownDomain: DomainID { get }
  /// The token for the watch on a disk's frontend.
  func frontendToken(of disk: DeviceAddress) -> String
  /// The data threads; at least one.
  var threads: [DataThread<BlockQueue>] { get }
  /// The thread for the next queue, so that queues spread.
  func claimThread(count: Int) -> Int
  /// Bytes of buffers that one queue may hold.
  var bufferShareByteCount: Int { get }
  /// What is offered to frontends.
  var offer: VbdOffer { get }
  /// What a disk may do whose nodes name no limits.
  var defaultLimits: RateLimits { get }
  /// The process that serves, published as `kthread-pid`: libxenstat finds its shared statistics by it
  /// (xenstat_linux.c). Nil when there are none.
  var statisticsProcess: Int32? { get }
  /// What tells this daemon from others that may serve the same disks, published in a node of our own; nil
  /// when nobody is to know.
  var serverName: String? { get }
  /// Whether the daemon of that name, which is another one, lives.
  func isServing(_ server: String) -> Bool
  /// Whether another disk of this daemon is about to let go of the image: ``Vbd/isAboutToLetGo(of:)``.
  func isLettingGo(ofImage parameters: String, besides disk: DeviceAddress) -> Bool
  /// Delivers an event to ``Vbd/handle(_:)`` on the control thread; may be called from any thread.
  var post: @Sendable (DeviceAddress, VbdEvent) -> Void { get }
  /// Opens a disk's image; a test may put a store of its own in its place.
  func openStore(_ configuration: VbdConfiguration) throws(VbdError) -> any BlockStore
  /// The image that can be had at a tap's socket, as the node `physical-device-path` names it; nil when it is
  /// no tap of ours. For toolstacks whose `params` name no image (xenopsd).
  func image(atSocket path: String) -> String?
  /// Tells the administrator.
  func log(_ severity: DeviceSeverity, _ message: String, about disk: DeviceAddress)
  /// The disk is no more ours. Others may have waited for its image (``Vbd/imageMayBeFree()``), and its
  /// directory may be another disk's by now.
  func forget(_ disk: DeviceAddress)
}

extension VbdEnvironment {
  /// Opens what `params` names, by ``StoreTable``.
  public func openStore(_ configuration: VbdConfiguration) throws(VbdError) -> any BlockStore {
    try configuration.openStore()
  }

  public var statisticsProcess: Int32? { nil }
  public var defaultLimits: RateLimits { .unlimited }

  /// None: there are no taps.
  public func image(atSocket path: String) -> String? { nil }
  public var serverName: String? { nil }
  public func isServing(_ server: String) -> Bool { true }
  public func isLettingGo(ofImage parameters: String, besides disk: DeviceAddress) -> Bool { false }
}
