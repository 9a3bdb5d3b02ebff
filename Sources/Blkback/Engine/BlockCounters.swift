/// What a queue has done since it connected. Plain numbers, owned by the queue's thread.
@frozen
public struct BlockCounters: BitwiseCopyable, Sendable, Equatable {
  /// Reads taken, whatever becomes of them.
  public var readsTaken: UInt64 = 0
  /// Writes and barriers taken, whatever becomes of them.
  public var writesTaken: UInt64 = 0
  /// Reads answered OKAY, direct or indirect.
  public var reads: UInt64 = 0
  /// Writes answered OKAY, direct or indirect.
  public var writes: UInt64 = 0
  /// Flushes answered OKAY, with or without data.
  public var flushes: UInt64 = 0
  /// Barriers answered OKAY, with or without data.
  public var barriers: UInt64 = 0
  /// Discards answered OKAY.
  public var discards: UInt64 = 0
  /// Those of the reads and writes that came as indirect requests.
  public var indirectRequests: UInt64 = 0
  /// 512-byte units read by the guest.
  public var sectorsRead: UInt64 = 0
  /// 512-byte units written by the guest, whatever the operation.
  public var sectorsWritten: UInt64 = 0
  /// 512-byte units that the guest gave back.
  public var sectorsDiscarded: UInt64 = 0
  /// Failed flushes that are not answered while the connection lasts.
  public var heldFlushes: UInt64 = 0
  /// Requests answered ERROR, whoever was at fault.
  public var errors: UInt64 = 0
  /// Requests answered EOPNOTSUPP.
  public var unsupported: UInt64 = 0
  /// Requests that the validator refused.
  public var rejected: UInt64 = 0
  /// Flushes that reached the medium (fdatasync).
  public var mediumFlushes: UInt64 = 0
  /// Segments and pages of descriptors moved by grant copy.
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
