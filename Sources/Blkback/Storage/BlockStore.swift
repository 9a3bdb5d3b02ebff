public import RingKit

/// The end of a storage call: bytes moved (0 for a flush or discard) or a negative error number.
@frozen
public struct StoreCompletion: BitwiseCopyable, Sendable, Equatable {
  /// Which call.
  public var token: UInt32
  /// How it ended.
  public var result: Int32

  /// Joins a call and its end.
  @inlinable
  public init(token: UInt32, result: Int32) {
    self.token = token
    self.result = result
  }
}

/// An opened image, shared by all queues of a disk. Each kind is one file or folder in Storage/, and one line
/// in ``StoreTable``.
public protocol BlockStore: AnyObject, Sendable {
  /// Bytes on the disk when it was opened or last looked at; a multiple of 512, 0 only for an empty drive.
  var byteCount: UInt64 { get }
  /// What the medium demands of transfers.
  var geometry: MediumGeometry { get }
  /// The medium's own block in bytes, a hint for the guest; a power of two.
  var physicalBlockByteCount: Int { get }
  /// How ranges are given back; nil where they cannot be.
  var discard: DiscardSupport? { get }
  /// Queues that may use the store at once without breaking the promise of a flush (all that completed on any
  /// queue is durable).
  var maximumQueueCount: Int { get }
  /// Something that works less well than it could, for the log.
  var warning: String? { get }

  /// Looks at the size anew, for an image that was resized outside. Control thread; may block shortly.
  func refreshByteCount() throws(VbdError) -> UInt64

  /// Has what happens to the store later on told to `listener`, which is called on any thread.
  func tell(_ listener: @escaping @Sendable (DeviceSeverity, String) -> Void)

  /// Lets go of the image, of which every channel is closed and nothing is asked any more; `done` is called
  /// once, on any thread, when nothing of ours touches it any longer. A store that is merely dropped ends too.
  func close(done: @escaping @Sendable () -> Void)

  /// Opens one queue's way to the store, on the data thread that will own the queue.
  func openChannel(_ place: StoreChannelPlace) throws(VbdError) -> any StoreChannel
}

extension BlockStore {
  /// Nothing: most stores have nothing to tell.
  public func tell(_ listener: @escaping @Sendable (DeviceSeverity, String) -> Void) {}
}

extension BlockStore {
  /// For stores that end with their last reference, which is the caller's.
  public func close(done: @escaping @Sendable () -> Void) { done() }
}

/// Where a channel lives: its data thread, and the name of its queue there.
public struct StoreChannelPlace {
  /// The data thread's inside.
  public let loop: DataLoop<BlockQueue>
  /// The queue, whose tokens name the I/O on the thread's ring.
  public let key: QueueKey
  /// Storage calls that can be under way at once.
  public let callCapacity: Int
}

/// One queue's way to its store. All calls come on the data thread that owns the queue; none blocks.
///
/// A call ends in one of two ways, once: a completion on the thread's ring with the token
/// `key.token(token)`, or an entry that ``nextCompletion()`` hands out. Never from within the call.
public protocol StoreChannel: AnyObject {
  /// Begins reading at byte `offset` into vectors `first..<first+count`, which stay until the call ended.
  func read(token: UInt32, into vectors: borrowing IOVectorTable, first: Int, count: Int, offset: UInt64)
  /// Begins writing.
  func write(token: UInt32, from vectors: borrowing IOVectorTable, first: Int, count: Int, offset: UInt64)
  /// Begins bringing all that completed before, on any queue of the store, to stable storage.
  func flush(token: UInt32)
  /// Begins giving back (or zeroing) a range of at most ``DiscardSupport/chunkByteCount`` bytes, aligned to
  /// its unit.
  func discard(token: UInt32, offset: UInt64, byteCount: UInt64, isSecure: Bool)
  /// The end of an I/O of the channel's own, whose token is at least ``StoreToken/first``.
  func completed(token: UInt32, result: Int32)
  /// The next end of a storage call that was no completion of the ring's.
  func nextCompletion() -> StoreCompletion?
  /// Whether ``nextCompletion()`` has something.
  var hasCompletions: Bool { get }
  /// The queue takes no more requests and waits for those under way: what cannot be reached is not to be
  /// waited for without end.
  func beginClosing()
  /// No call is under way and none follows; lets go of what the channel holds.
  func close()
}

extension StoreChannel {
  /// Nothing: most stores end every call by themselves.
  public func beginClosing() {}
}

/// Tokens of a channel's own I/O, which no request of the engine's has: their lower half is beyond any ring.
public enum StoreToken {
  /// The number of I/Os a channel can tell apart.
  public static var count: UInt32 { 256 }

  /// The token of a channel's I/O `number`, 0..<``count``.
  @inlinable
  public static func own(_ number: UInt32) -> UInt32 {
    precondition(number < count)
    return 0xFF00 | number
  }

  /// The number of a channel's own I/O; nil when the token is a request's.
  @inlinable
  public static func number(_ token: UInt32) -> UInt32? {
    token & 0xFFFF >= 0xFF00 ? token & 0xFF : nil
  }
}
