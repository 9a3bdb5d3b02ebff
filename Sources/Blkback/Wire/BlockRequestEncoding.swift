public import RingKit

/// The frontend's half: requests written into slots.
extension BlockRequest {
  /// A direct request: read, write, barrier or flush, or anything a hostile frontend wants to try.
  @inlinable
  public init(
    operation: BlockOperation, segmentCount: UInt8, id: UInt64, sectorNumber: UInt64, handle: UInt16 = 0,
    abi: BlockABI
  ) {
    self.abi = abi
    self.operation = operation
    innerOperation = operation
    discardFlags = 0
    self.segmentCount = UInt16(segmentCount)
    self.handle = handle
    self.id = id
    self.sectorNumber = sectorNumber
    discardSectorCount = 0
  }

  /// A discard of `sectorCount` sectors of 512 bytes.
  @inlinable
  public init(
    discarding sectorCount: UInt64, flags: UInt8 = 0, id: UInt64, sectorNumber: UInt64, handle: UInt16 = 0,
    abi: BlockABI
  ) {
    self.init(
      operation: .discard, segmentCount: 0, id: id, sectorNumber: sectorNumber, handle: handle, abi: abi)
    discardFlags = flags
    discardSectorCount = sectorCount
  }

  /// An indirect request: `operation` is the read or write inside.
  @inlinable
  public init(
    indirect operation: BlockOperation, segmentCount: UInt16, id: UInt64, sectorNumber: UInt64,
    handle: UInt16 = 0, abi: BlockABI
  ) {
    self.init(
      operation: .indirect, segmentCount: 0, id: id, sectorNumber: sectorNumber, handle: handle, abi: abi)
    innerOperation = operation
    self.segmentCount = segmentCount
  }

  /// The slot of this request without segments or page references; whatever is not a field is zero.
  @inlinable
  public func encode() -> SlotCopy {
    var slot = SlotCopy()
    slot.setUInt8(operation.rawValue, at: 0)
    slot.setUInt64(id, at: abi.idOffset)
    slot.setUInt64(sectorNumber, at: abi.sectorNumberOffset)
    switch operation {
    case .indirect:
      slot.setUInt8(innerOperation.rawValue, at: 1)
      slot.setUInt16(segmentCount, at: 2)
      slot.setUInt16(handle, at: abi.indirectHandleOffset)
    case .discard:
      slot.setUInt8(discardFlags, at: 1)
      slot.setUInt16(handle, at: 2)
      slot.setUInt64(discardSectorCount, at: abi.discardSectorCountOffset)
    default:
      slot.setUInt8(UInt8(truncatingIfNeeded: segmentCount), at: 1)
      slot.setUInt16(handle, at: 2)
    }
    return slot
  }

  /// Writes segment `index`, 0...10, of a direct request into its slot.
  @inlinable
  public func setSegment(_ segment: BlockSegment, at index: Int, in slot: inout SlotCopy) {
    precondition(index >= 0 && index < maximumDirectSegments)
    slot.setUInt64(segment.word, at: abi.segmentsOffset + index * BlockSegment.byteCount)
  }

  /// Writes the reference of descriptor page `index`, 0...7, of an indirect request into its slot.
  @inlinable
  public func setIndirectReference(_ reference: GrantReference, at index: Int, in slot: inout SlotCopy) {
    precondition(index >= 0 && index < maximumIndirectPages)
    slot.setUInt32(reference.rawValue, at: abi.indirectReferencesOffset + index * 4)
  }
}
