import Synchronization

/// Whether a disk can still be trusted to keep data: shared by all its queues.
public final class DiskHealth: Sendable {
  private let errno = Atomic<Int32>(0)

  /// A disk that has lost nothing.
  public init() {}

  /// The error that lost data; 0 while none did.
  public var lossErrno: Int32 { errno.load(ordering: .acquiring) }

  /// Latches the first loss. The kernel tells of a failed write-back once; a flush after it would succeed and
  /// promise what is not so (decision 7).
  public func latch(errno: Int32) {
    _ = self.errno.compareExchange(expected: 0, desired: max(1, errno), ordering: .acquiringAndReleasing)
  }
}
