public import RingKit

/// What becomes of work that an interface has handed to data threads.
public enum VifEvent: Sendable {
  /// The queues are up (nil), or could not be made and nothing is left of them.
  case opened(generation: UInt32, failure: VifError?)
  /// Nothing is in flight or mapped any more.
  case drained(generation: UInt32)
  /// The frontend broke the rules of a ring.
  case faulted(generation: UInt32, VifError)
  /// The queues work with what the frontend has changed.
  case reconfigured(generation: UInt32)
  /// The frontend takes no packets any more (true), or does so again.
  case stalled(generation: UInt32, Bool)
}

/// What an interface needs of the daemon that serves it. Belongs to the control thread.
public protocol VifEnvironment: AnyObject {
  /// The control thread's xenstore.
  var store: any StoreSession { get }
  /// The domain that serves.
  var ownDomain: DomainID { get }
  /// The token for the watch on an interface's frontend.
  func frontendToken(of vif: DeviceAddress) -> String
  /// The data threads of interfaces, at least one; throws when they cannot be started.
  func netThreads() throws(VifError) -> [DataThread<NetQueue>]
  /// The thread for the next queue, so that queues spread.
  func claimNetThread(count: Int) -> Int
  /// Bytes of buffers that one queue may hold.
  var netBufferShareByteCount: Int { get }
  /// What is offered to frontends.
  var vifOffer: VifOffer { get }
  /// What tells this daemon from others that may serve the same interfaces; nil when nobody is to know.
  var serverName: String? { get }
  /// Whether the daemon of that name, which is another one, lives.
  func isServing(_ server: String) -> Bool
  /// Why another backend of this machine, such as the kernel's xen-netback, has all interfaces; nil when none
  /// has.
  var rivalOfVifs: String? { get }
  /// Delivers an event to ``Vif/handle(_:)`` on the control thread; may be called from any thread.
  var postVif: @Sendable (DeviceAddress, VifEvent) -> Void { get }
  /// Makes the link that an interface's packets go to, or takes over the one that an earlier daemon has left.
  func openLink(_ configuration: VifConfiguration, of vif: DeviceAddress) throws(VifError) -> any VifLink
  /// Tells the administrator.
  func log(_ severity: DeviceSeverity, _ message: String, about vif: DeviceAddress)
  /// The interface is no more ours.
  func forgetVif(_ vif: DeviceAddress)
}
