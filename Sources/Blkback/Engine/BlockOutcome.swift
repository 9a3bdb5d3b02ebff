/// What a request was, for statistics.
@frozen
public enum BlockRequestKind: UInt8, CaseIterable, Sendable, BitwiseCopyable {
  /// READ, direct or indirect.
  case read
  /// WRITE, direct or indirect.
  case write
  /// FLUSH_DISKCACHE, with or without data.
  case flush
  /// WRITE_BARRIER, with or without data.
  case barrier
  /// DISCARD.
  case discard
  /// Anything else.
  case other
}

/// How one request ended: the engine tells its host of each, once.
@frozen
public struct BlockOutcome: BitwiseCopyable, Sendable, Equatable {
  /// What it was.
  public var kind: BlockRequestKind
  /// How it was answered.
  public var status: BlockStatus
  /// True when it came as an indirect request.
  public var isIndirect: Bool
  /// Why the validator refused it; nil when it did not.
  public var rejection: RejectReason?
  /// 512-byte units that were asked for.
  public var sectorCount: UInt64
  /// From being taken to being answered, by the host's clock, in nanoseconds; 0 for what was refused.
  public var nanoseconds: UInt64

  /// Joins what is known.
  @inlinable
  public init(
    kind: BlockRequestKind, status: BlockStatus, isIndirect: Bool = false, rejection: RejectReason? = nil,
    sectorCount: UInt64 = 0, nanoseconds: UInt64 = 0
  ) {
    self.kind = kind
    self.status = status
    self.isIndirect = isIndirect
    self.rejection = rejection
    self.sectorCount = sectorCount
    self.nanoseconds = nanoseconds
  }
}
