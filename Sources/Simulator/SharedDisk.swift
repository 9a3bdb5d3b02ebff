public import Blkback
import Synchronization

/// What the queues of one simulated disk share: its bytes, whether they can be trusted, and the blocks that
/// writes are at work on.
public final class SharedDisk {
  /// The bytes.
  public let disk: SimulatedDisk
  /// Keeps writes to parts of one block apart, over all queues.
  public let ranges = BlockRangeLock(capacity: 64)
  /// The errno of the first loss of data; nil while there was none.
  public var fenceErrno: Int32?

  /// The backend's side of a disk that is there already, as after a reboot.
  public init(_ disk: SimulatedDisk) { self.disk = disk }
}

/// A note that a queue is to run again, left by whoever let go of what it waited for.
final class WakeNote: Sendable {
  private let isLeft = Atomic<Bool>(false)

  func leave() { isLeft.store(true, ordering: .relaxed) }

  var isThere: Bool { isLeft.load(ordering: .relaxed) }

  func take() { isLeft.store(false, ordering: .relaxed) }
}
