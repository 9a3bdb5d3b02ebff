/// Optional operations that a backend announces (blkif.h, feature-* nodes).
@frozen
public struct BlockOptions: OptionSet, Hashable, Sendable, BitwiseCopyable {
  /// One bit an option.
  public let rawValue: UInt8
  /// Wraps bits.
  @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }

  /// feature-flush-cache.
  @inlinable public static var flush: BlockOptions { BlockOptions(rawValue: 1) }
  /// feature-barrier.
  @inlinable public static var barrier: BlockOptions { BlockOptions(rawValue: 2) }
  /// feature-discard.
  @inlinable public static var discard: BlockOptions { BlockOptions(rawValue: 4) }
  /// discard-secure; means nothing without ``discard``.
  @inlinable public static var secureDiscard: BlockOptions { BlockOptions(rawValue: 8) }
  /// feature-max-indirect-segments.
  @inlinable public static var indirect: BlockOptions { BlockOptions(rawValue: 16) }
}

/// Why a disk cannot be served with the limits asked for.
public enum BlockLimitsError: Error, Equatable, CustomStringConvertible {
  /// The logical sector is no power of two within 512...4096 bytes.
  case sectorSize(Int)
  /// The size does not fit the 63-bit byte offsets of storage, or is no whole number of logical sectors.
  case sectorCount(UInt64, sectorByteCount: Int)
  /// The number of indirect segments is not within 1...4096.
  case indirectSegments(Int)
  /// The discard extents are no whole number of logical sectors.
  case discardExtent(granularity: Int, alignment: Int, sectorByteCount: Int)

  /// What is wrong, and what would be right.
  public var description: String {
    switch self {
    case .sectorSize(let bytes):
      "a sector of \(bytes) bytes cannot be offered: use a power of two from 512 to 4096"
    case .sectorCount(let count, let bytes):
      "a disk of \(count) sectors of 512 bytes cannot be offered in sectors of \(bytes) bytes: "
        + "it must be a whole number of them and under 2^63 bytes"
    case .indirectSegments(let count):
      "\(count) indirect segments cannot be offered: use 1 to 4096"
    case .discardExtent(let granularity, let alignment, let bytes):
      "discard extents of \(granularity) bytes at \(alignment) cannot be offered: "
        + "both must be multiples of the sector of \(bytes) bytes"
    }
  }
}

/// What a frontend may ask of one disk: published to it, and enforced on every request.
@frozen
public struct BlockLimits: Equatable, Sendable, BitwiseCopyable {
  /// The disk's size in 512-byte units, whatever the logical sector (`sectors`).
  public let sectorCount: UInt64
  /// Bytes of a logical sector (`sector-size`), 512...4096: length and alignment of segments, nothing else.
  public let sectorByteCount: Int
  /// True when nothing may change the disk (VDISK_READONLY).
  public let readOnly: Bool
  /// Optional operations announced; all others are answered "not supported".
  public let offered: BlockOptions
  /// Segments of an indirect request at most (`feature-max-indirect-segments`); 0 when it is not offered.
  public let maximumIndirectSegments: Int
  /// Bytes of a discard extent (`discard-granularity`): a discard must begin with one.
  public let discardGranularityBytes: Int
  /// Byte offset of the first discard extent (`discard-alignment`).
  public let discardAlignmentBytes: Int

  /// Checks that the limits make sense together. `discardGranularityBytes` defaults to the logical sector.
  public init(
    sectorCount: UInt64, sectorByteCount: Int = 512, readOnly: Bool = false, offered: BlockOptions = [],
    maximumIndirectSegments: Int = 0, discardGranularityBytes: Int? = nil, discardAlignmentBytes: Int = 0
  ) throws(BlockLimitsError) {
    guard (512...4096).contains(sectorByteCount), sectorByteCount & (sectorByteCount - 1) == 0 else {
      throw .sectorSize(sectorByteCount)
    }
    guard sectorCount <= UInt64(Int64.max) / 512, sectorCount % UInt64(sectorByteCount / 512) == 0 else {
      throw .sectorCount(sectorCount, sectorByteCount: sectorByteCount)
    }
    let mayIndirect = offered.contains(.indirect)
    let mostSegments = maximumIndirectPages * segmentsPerIndirectPage
    guard !mayIndirect || (1...mostSegments).contains(maximumIndirectSegments) else {
      throw .indirectSegments(maximumIndirectSegments)
    }
    let granularity = discardGranularityBytes ?? sectorByteCount
    guard granularity > 0, granularity % sectorByteCount == 0, discardAlignmentBytes >= 0,
      discardAlignmentBytes % sectorByteCount == 0
    else {
      throw .discardExtent(
        granularity: granularity, alignment: discardAlignmentBytes, sectorByteCount: sectorByteCount)
    }
    self.sectorCount = sectorCount
    self.sectorByteCount = sectorByteCount
    self.readOnly = readOnly
    self.offered = offered
    self.maximumIndirectSegments = mayIndirect ? maximumIndirectSegments : 0
    self.discardGranularityBytes = granularity
    self.discardAlignmentBytes = discardAlignmentBytes
  }

  /// The same limits for a disk that was grown or shrunk to `sectorCount` units of 512 bytes.
  public func resized(to sectorCount: UInt64) throws(BlockLimitsError) -> BlockLimits {
    try BlockLimits(
      sectorCount: sectorCount, sectorByteCount: sectorByteCount, readOnly: readOnly, offered: offered,
      maximumIndirectSegments: maximumIndirectSegments, discardGranularityBytes: discardGranularityBytes,
      discardAlignmentBytes: discardAlignmentBytes)
  }

  /// Mask of the 512-byte units within a logical sector: 0, 1, 3 or 7.
  @inlinable var unitMask: UInt64 { UInt64(sectorByteCount / wireSectorByteCount - 1) }
}
