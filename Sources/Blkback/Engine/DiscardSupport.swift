/// How a store gives ranges back to its medium.
@frozen
public struct DiscardSupport: BitwiseCopyable, Sendable, Equatable {
  /// Ranges are rounded inwards to multiples of this: a power of two, at least 512 bytes.
  public var unitByteCount: Int
  /// Bytes of one call at most; a longer range is done in pieces, with other I/O in between.
  public var chunkByteCount: UInt64
  /// True where the medium can make all copies unrecoverable (BLKSECDISCARD).
  public var isSecurePossible: Bool

  /// Describes a medium.
  @inlinable
  public init(unitByteCount: Int, chunkByteCount: UInt64 = 64 << 20, isSecurePossible: Bool = false) {
    precondition(unitByteCount >= 512 && unitByteCount.nonzeroBitCount == 1)
    precondition(chunkByteCount >= UInt64(unitByteCount) && chunkByteCount % UInt64(unitByteCount) == 0)
    self.unitByteCount = unitByteCount
    self.chunkByteCount = chunkByteCount
    self.isSecurePossible = isSecurePossible
  }
}
