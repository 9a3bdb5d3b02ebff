/// What a transfer does with its data.
@frozen
public enum TransferKind: UInt8, Sendable, BitwiseCopyable {
  /// Disk to guest.
  case read
  /// Guest to disk.
  case write
  /// Make durable what was completed before, then write.
  case flushThenWrite
  /// Wait for earlier writes and make them durable, write, and make that durable before later writes begin.
  case barrierWrite

  /// True when data come from the guest.
  @inlinable public var isWrite: Bool { self != .read }
}

/// A transfer that passed every rule: its bytes lie on the disk, and its segments within their pages.
@frozen
public struct BlockTransfer: Equatable, Sendable, BitwiseCopyable {
  /// Direction and ordering.
  public let kind: TransferKind
  /// First byte on the disk; `byteOffset + byteCount` fits in an Int64.
  public let byteOffset: UInt64
  /// Bytes: 512...45,056 direct, up to 16 MiB indirect.
  public let byteCount: Int
  /// Segments: 1...11 direct, up to 4096 indirect.
  public let segmentCount: Int

  /// Joins what was judged.
  @inlinable
  init(kind: TransferKind, byteOffset: UInt64, byteCount: Int, segmentCount: Int) {
    self.kind = kind
    self.byteOffset = byteOffset
    self.byteCount = byteCount
    self.segmentCount = segmentCount
  }
}

/// An indirect transfer whose header passed; its descriptors are still in the guest's pages.
@frozen
public struct IndirectTransfer: Equatable, Sendable, BitwiseCopyable {
  /// `read` or `write`.
  public let kind: TransferKind
  /// First sector on the disk, 512-byte units; not checked before the segments are.
  public let sectorNumber: UInt64
  /// Segments: 1...4096.
  public let segmentCount: Int

  /// Joins what was judged.
  @inlinable
  init(kind: TransferKind, sectorNumber: UInt64, segmentCount: Int) {
    self.kind = kind
    self.sectorNumber = sectorNumber
    self.segmentCount = segmentCount
  }

  /// Descriptor pages to be copied: 1...8.
  @inlinable
  public var pageCount: Int { (segmentCount + segmentsPerIndirectPage - 1) / segmentsPerIndirectPage }
}

/// A range to be discarded, on the disk and aligned.
@frozen
public struct BlockDiscard: Equatable, Sendable, BitwiseCopyable {
  /// First byte on the disk.
  public let byteOffset: UInt64
  /// Bytes, more than 0; `byteOffset + byteCount` fits in an Int64.
  public let byteCount: UInt64
  /// True when all copies must become unrecoverable; only if that was offered.
  public let isSecure: Bool

  /// Joins what was judged.
  @inlinable
  init(byteOffset: UInt64, byteCount: UInt64, isSecure: Bool) {
    self.byteOffset = byteOffset
    self.byteCount = byteCount
    self.isSecure = isSecure
  }
}

/// What is to be done with a request.
@frozen
public enum BlockVerdict: Equatable, Sendable, BitwiseCopyable {
  /// Move data.
  case transfer(BlockTransfer)
  /// Copy the descriptor pages, then ask ``RequestValidator/judgeSegments(of:_:)``.
  case indirect(IndirectTransfer)
  /// Make durable what was completed before.
  case flush
  /// The same, and no later write begins before it is done.
  case barrier
  /// Give the range back to storage.
  case discard(BlockDiscard)
  /// A discard of nothing, which succeeds.
  case discardNothing
  /// Answer with the status and do nothing else.
  case reject(BlockStatus, RejectReason)
}

/// Why a request was refused, for statistics and rate-limited logs.
@frozen
public enum RejectReason: UInt8, CaseIterable, Sendable, BitwiseCopyable, CustomStringConvertible {
  /// No operation of blkif.h has this number.
  case unknownOperation
  /// The operation exists but was not announced.
  case notOffered
  /// An indirect request wraps neither a read nor a write.
  case indirectOperation
  /// The disk is read-only.
  case readOnly
  /// A transfer without segments.
  case noSegments
  /// More segments than a slot holds, or than were announced.
  case tooManySegments
  /// A segment ends before it begins.
  case segmentReversed
  /// A segment leaves its 4 KiB page.
  case segmentOutsidePage
  /// A segment or sector number is no multiple of the logical sector.
  case misaligned
  /// The range leaves the disk.
  case outsideDisk
  /// A discard does not begin with a discard extent.
  case discardMisaligned

  /// The reason in words.
  public var description: String {
    switch self {
    case .unknownOperation: "unknown operation"
    case .notOffered: "operation that was not offered"
    case .indirectOperation: "indirect request that is neither read nor write"
    case .readOnly: "change of a read-only disk"
    case .noSegments: "transfer without segments"
    case .tooManySegments: "more segments than allowed"
    case .segmentReversed: "segment that ends before it begins"
    case .segmentOutsidePage: "segment outside its page"
    case .misaligned: "misaligned to the logical sector"
    case .outsideDisk: "range outside the disk"
    case .discardMisaligned: "discard misaligned to its granularity"
    }
  }
}
