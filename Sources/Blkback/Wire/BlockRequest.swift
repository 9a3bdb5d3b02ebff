public import RingKit

/// The fixed part of a request, decoded from a private copy of its slot (blkif.h, struct blkif_request,
/// blkif_request_discard and blkif_request_indirect). Nothing in it has been checked.
@frozen
public struct BlockRequest: Equatable, Sendable, BitwiseCopyable {
  /// The layout of the slot.
  public var abi: BlockABI
  /// What is asked.
  public var operation: BlockOperation
  /// `indirect_op` of an indirect request; otherwise the same as ``operation``. The response carries it,
  /// since frontends disable a disk that answers an indirect read with anything but "read".
  public var innerOperation: BlockOperation
  /// Flags of a discard (``discardSecureFlag``); otherwise 0.
  public var discardFlags: UInt8
  /// `nr_segments`: 0...255 in a direct request, 0...65535 in an indirect one, 0 in a discard.
  public var segmentCount: UInt16
  /// `handle`, which backends ignore.
  public var handle: UInt16
  /// The frontend's name for the request, echoed bit for bit.
  public var id: UInt64
  /// First sector on the disk, in units of 512 bytes.
  public var sectorNumber: UInt64
  /// Sectors to discard, in units of 512 bytes; otherwise 0.
  public var discardSectorCount: UInt64

  /// BLKIF_DISCARD_SECURE.
  @inlinable public static var discardSecureFlag: UInt8 { 1 }

  /// Decodes the slot copy. Every field of an operation that has none of that name is 0; an unknown operation
  /// is decoded as a direct one, so that it can be answered.
  @inlinable
  public init(_ slot: SlotCopy, abi: BlockABI) {
    self.abi = abi
    let operation = BlockOperation(rawValue: slot.uint8(at: 0))
    self.operation = operation
    id = slot.uint64(at: abi.idOffset)
    sectorNumber = slot.uint64(at: abi.sectorNumberOffset)
    innerOperation = operation
    discardFlags = 0
    discardSectorCount = 0
    segmentCount = 0
    switch operation {
    case .indirect:
      innerOperation = BlockOperation(rawValue: slot.uint8(at: 1))
      segmentCount = slot.uint16(at: 2)
      handle = slot.uint16(at: abi.indirectHandleOffset)
    case .discard:
      discardFlags = slot.uint8(at: 1)
      handle = slot.uint16(at: 2)
      discardSectorCount = slot.uint64(at: abi.discardSectorCountOffset)
    default:
      segmentCount = UInt16(slot.uint8(at: 1))
      handle = slot.uint16(at: 2)
    }
  }

  /// Decodes segment `index`, 0...10, of a direct request from the same slot copy.
  @inlinable
  public func segment(at index: Int, in slot: SlotCopy) -> BlockSegment {
    precondition(index >= 0 && index < maximumDirectSegments)
    return BlockSegment(word: slot.uint64(at: abi.segmentsOffset + index * BlockSegment.byteCount))
  }

  /// Decodes the reference of descriptor page `index`, 0...7, of an indirect request from the same slot copy.
  @inlinable
  public func indirectReference(at index: Int, in slot: SlotCopy) -> GrantReference {
    precondition(index >= 0 && index < maximumIndirectPages)
    return GrantReference(rawValue: slot.uint32(at: abi.indirectReferencesOffset + index * 4))
  }

  /// The operation that the response carries.
  @inlinable public var responseOperation: BlockOperation { innerOperation }
}
