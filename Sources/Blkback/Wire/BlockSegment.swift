public import RingKit

/// One piece of guest memory of a transfer: sectors of a granted page, both ends included (blkif.h, struct
/// blkif_request_segment). As decoded nothing is known of its values; ``isWithinPage`` tells.
@frozen
public struct BlockSegment: Equatable, Sendable, BitwiseCopyable {
  /// The granted page.
  public var reference: GrantReference
  /// First 512-byte sector within the page; sound values are 0...7.
  public var firstSector: UInt8
  /// Last 512-byte sector within the page; sound values are `firstSector`...7.
  public var lastSector: UInt8

  /// Bytes of a descriptor on the wire, the same in every layout; the last two are padding.
  @inlinable public static var byteCount: Int { 8 }

  /// Describes a piece.
  @inlinable
  public init(reference: GrantReference, firstSector: UInt8, lastSector: UInt8) {
    self.reference = reference
    self.firstSector = firstSector
    self.lastSector = lastSector
  }

  /// Decodes the 8 bytes of a descriptor, read as one little-endian number.
  @inlinable
  public init(word: UInt64) {
    reference = GrantReference(rawValue: UInt32(truncatingIfNeeded: word))
    firstSector = UInt8(truncatingIfNeeded: word &>> 32)
    lastSector = UInt8(truncatingIfNeeded: word &>> 40)
  }

  /// The 8 bytes of the descriptor as one little-endian number, padding zero.
  @inlinable
  public var word: UInt64 {
    UInt64(reference.rawValue) | UInt64(firstSector) &<< 32 | UInt64(lastSector) &<< 40
  }

  /// True when the sectors are in order and within a 4 KiB page. Without this test a backend reaches beyond
  /// the page (XSA-513).
  @inlinable public var isWithinPage: Bool { firstSector <= lastSector && lastSector < 8 }

  /// Where the piece begins within its page, in bytes.
  @inlinable public var pageOffset: Int { Int(firstSector) * wireSectorByteCount }

  /// 512-byte sectors of the piece; 0 when its ends are out of order.
  @inlinable
  public var sectorCount: Int { firstSector <= lastSector ? Int(lastSector) - Int(firstSector) + 1 : 0 }

  /// Bytes of the piece; 0 when its ends are out of order.
  @inlinable public var byteCount: Int { sectorCount * wireSectorByteCount }
}
