import Synchronization

/// Whether a disk can still be trusted to keep data: shared by all its queues.
public final class DiskHealth: Sendable {
  private let errno = Atomic<Int32>(0)
  private let reportLoss: (@Sendable (Int32) -> Void)?

  /// A disk that has lost nothing. `reportLoss` hears of the first loss and its error number, once, on the
  /// thread that met it.
  public init(reportLoss: (@Sendable (Int32) -> Void)? = nil) { self.reportLoss = reportLoss }

  /// The error that lost data; 0 while none did.
  public var lossErrno: Int32 { errno.load(ordering: .acquiring) }

  /// Latches the first loss. The kernel tells of a failed write-back once; a flush after it would succeed and
  /// promise what is not so (decision 7).
  public func latch(errno: Int32) {
    let error = max(1, errno)
    let (isFirst, _) = self.errno.compareExchange(
      expected: 0, desired: error, ordering: .acquiringAndReleasing)
    if isFirst { reportLoss?(error) }
  }
}
