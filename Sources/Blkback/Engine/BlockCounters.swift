/// What a queue has done since it connected. Plain numbers, owned by the queue's thread.
@frozen
public struct BlockCounters: BitwiseCopyable, Sendable, Equatable {
  /// Requests answered OKAY, by kind.
  public var reads: UInt64 = 0
  /// Writes answered OKAY.
  public var writes: UInt64 = 0
  /// Flushes answered OKAY.
  public var flushes: UInt64 = 0
  /// 512-byte units read by the guest.
  public var sectorsRead: UInt64 = 0
  /// 512-byte units written by the guest.
  public var sectorsWritten: UInt64 = 0
  /// Requests answered ERROR, whoever was at fault.
  public var errors: UInt64 = 0
  /// Requests answered EOPNOTSUPP.
  public var unsupported: UInt64 = 0
  /// Requests that the validator refused.
  public var rejected: UInt64 = 0
  /// Flushes that reached the medium (fdatasync).
  public var mediumFlushes: UInt64 = 0
  /// Segments moved by grant copy.
  public var grantCopies: UInt64 = 0
  /// Events sent to the frontend.
  public var notifications: UInt64 = 0
  /// Events received from the frontend.
  public var kicks: UInt64 = 0
  /// Events that found nothing to do.
  public var spuriousKicks: UInt64 = 0

  /// All zero.
  @inlinable public init() {}
}
