public import RingKit

/// A backend's answer to one request (blkif.h, struct blkif_response).
@frozen
public struct BlockResponse: Equatable, Sendable, BitwiseCopyable {
  /// The request's `id`, bit for bit.
  public var id: UInt64
  /// The request's ``BlockRequest/responseOperation``.
  public var operation: BlockOperation
  /// How it ended.
  public var status: BlockStatus

  /// Joins the three fields.
  @inlinable
  public init(id: UInt64, operation: BlockOperation, status: BlockStatus) {
    self.id = id
    self.operation = operation
    self.status = status
  }

  /// Decodes what a frontend copied out of its ring; the fields are in the same place in every layout.
  @inlinable
  public init(_ slot: SlotCopy) {
    id = slot.uint64(at: 0)
    operation = BlockOperation(rawValue: slot.uint8(at: 8))
    status = BlockStatus(rawValue: Int16(bitPattern: slot.uint16(at: 10)))
  }

  /// The response as bytes, of which ``BlockABI/responseByteCount`` go into the slot. Padding is zero, so
  /// that no memory of ours reaches the guest (XSA-216).
  @inlinable
  public func encode() -> SlotCopy {
    var slot = SlotCopy()
    slot.setUInt64(id, at: 0)
    slot.setUInt8(operation.rawValue, at: 8)
    slot.setUInt16(UInt16(bitPattern: status.rawValue), at: 10)
    return slot
  }
}
