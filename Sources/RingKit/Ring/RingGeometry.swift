/// Where things lie in a shared ring (ring.h, DEFINE_RING_TYPES): a 64-byte header, then a power of two of
/// slots.
@frozen
public struct RingGeometry: Equatable, Sendable {
  /// Slots in the ring: as many as fit behind the header, rounded down to a power of two.
  public let slotCount: Int
  /// Bytes from one slot to the next: the larger of request and response.
  public let slotByteCount: Int

  /// Offset of `req_prod`, which the frontend writes.
  public static var requestProducerOffset: Int { 0 }
  /// Offset of `req_event`, which the backend writes.
  public static var requestEventOffset: Int { 4 }
  /// Offset of `rsp_prod`, which the backend writes.
  public static var responseProducerOffset: Int { 8 }
  /// Offset of `rsp_event`, which the frontend writes.
  public static var responseEventOffset: Int { 12 }
  /// Offset of the first slot, in every ABI.
  public static var firstSlotOffset: Int { 64 }

  /// The ring that `pageCount` pages (1 or more) hold with slots of `slotByteCount` bytes (a multiple of 4,
  /// up to ``SlotCopy/capacity``). Both are the backend's own choice, after it checked the frontend's nodes.
  public init(pageCount: Int, slotByteCount: Int) {
    precondition(pageCount > 0, "a ring has at least one page")
    precondition(
      slotByteCount > 0 && slotByteCount <= SlotCopy.capacity && slotByteCount % 4 == 0,
      "a slot has 4 to 128 bytes in words of 4")
    let fitting = (pageCount * pageByteCount - RingGeometry.firstSlotOffset) / slotByteCount
    // At least 31 slots fit in one page, so there is a highest bit.
    slotCount = 1 << (Int.bitWidth - 1 - fitting.leadingZeroBitCount)
    self.slotByteCount = slotByteCount
  }

  /// Offset of the slot that `index`, a counter which never stops at the ring's end, falls on.
  public func slotOffset(at index: UInt32) -> Int {
    RingGeometry.firstSlotOffset + (Int(index) & (slotCount - 1)) * slotByteCount
  }
}
