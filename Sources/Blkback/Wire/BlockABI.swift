/// Bytes in the sector that every block number and count on the wire is made of, whatever `sector-size` says
/// (blkif.h of Xen 4.20, "reconcile protocol specification with in-use implementations").
public let wireSectorByteCount = 512

/// Segments a request carries in its own slot at most (blkif.h, BLKIF_MAX_SEGMENTS_PER_REQUEST).
public let maximumDirectSegments = 11

/// Pages of segment descriptors a request names at most (blkif.h, BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST).
public let maximumIndirectPages = 8

/// Segment descriptors in one page: 8 bytes each (blkif.h, struct blkif_request_segment).
public let segmentsPerIndirectPage = 512

/// How a frontend lays out its slots: the frontend node `protocol` (blkif.h, protocols.h).
///
/// The layouts differ only in how a 64-bit field is aligned; all of them are little-endian here.
@frozen
public enum BlockABI: UInt8, CaseIterable, Sendable, BitwiseCopyable {
  /// 64-bit x86: 64-bit fields aligned to 8 bytes.
  case x86_64
  /// 32-bit x86: 64-bit fields aligned to 4 bytes. What an x86 frontend that writes no `protocol` means, in
  /// spite of the specification's "native".
  case x86_32
  /// Arm, 32-bit and 64-bit: 64-bit fields aligned to 8 bytes.
  case arm

  /// The layout that the value of `protocol` names; nil for an unknown one, with which nothing can be said.
  public init?(protocolName: String) {
    switch protocolName {
    case "x86_64-abi": self = .x86_64
    case "x86_32-abi": self = .x86_32
    case "arm-abi": self = .arm
    default: return nil
    }
  }

  /// The value of `protocol` for this layout (protocols.h, XEN_IO_PROTO_ABI_*).
  public var protocolName: String {
    switch self {
    case .x86_64: "x86_64-abi"
    case .x86_32: "x86_32-abi"
    case .arm: "arm-abi"
    }
  }

  /// True when 64-bit fields are only 4-byte aligned.
  @inlinable var isCompact: Bool { self == .x86_32 }

  /// Bytes of a request, and so of a ring slot.
  @inlinable public var requestByteCount: Int { isCompact ? 108 : 112 }
  /// Bytes of a response, at the start of a slot.
  @inlinable public var responseByteCount: Int { isCompact ? 12 : 16 }

  /// Where every kind of request has its `id`.
  @inlinable public var idOffset: Int { isCompact ? 4 : 8 }
  /// Where `sector_number` is, in every request that has one.
  @inlinable public var sectorNumberOffset: Int { isCompact ? 12 : 16 }
  /// Where the segments of a direct request begin.
  @inlinable public var segmentsOffset: Int { isCompact ? 20 : 24 }
  /// Where a discard has `nr_sectors`.
  @inlinable public var discardSectorCountOffset: Int { isCompact ? 20 : 24 }
  /// Where an indirect request has its `handle`.
  @inlinable public var indirectHandleOffset: Int { isCompact ? 20 : 24 }
  /// Where an indirect request has the references of its descriptor pages.
  @inlinable public var indirectReferencesOffset: Int { isCompact ? 24 : 28 }
}
