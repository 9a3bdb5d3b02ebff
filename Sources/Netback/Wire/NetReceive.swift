public import RingKit

/// A page that the frontend offers for received data (netif.h, struct netif_rx_request).
@frozen
public struct NetRxRequest: Equatable, Sendable, BitwiseCopyable {
  /// The frontend's name for the slot, echoed.
  public var id: UInt16
  /// The granted page.
  public var reference: GrantReference

  /// Joins the fields.
  @inlinable
  public init(id: UInt16, reference: GrantReference) {
    self.id = id
    self.reference = reference
  }

  /// Bytes of a slot in the ring.
  @inlinable public static var byteCount: Int { 8 }

  /// Decodes a private copy of a slot.
  @inlinable
  public init(_ slot: SlotCopy) {
    id = slot.uint16(at: 0)
    reference = GrantReference(rawValue: slot.uint32(at: 4))
  }

  /// The slot, for frontends.
  @inlinable
  public func encode() -> SlotCopy {
    var slot = SlotCopy()
    slot.setUInt16(id, at: 0)
    slot.setUInt32(reference.rawValue, at: 4)
    return slot
  }
}

/// The answer to one slot of the receive ring (netif.h, struct netif_rx_response); it stands in the very slot
/// of the request that it answers.
@frozen
public struct NetRxResponse: Equatable, Sendable, BitwiseCopyable {
  /// The request's `id`.
  public var id: UInt16
  /// First byte of the data within the page.
  public var offset: UInt16
  /// What the slot carries and what follows.
  public var flags: NetRxFlags
  /// Bytes in this slot, 0...4096, or a negative ``NetStatus``.
  public var status: Int16

  /// Joins the fields.
  @inlinable
  public init(id: UInt16, offset: UInt16, flags: NetRxFlags, status: Int16) {
    self.id = id
    self.offset = offset
    self.flags = flags
    self.status = status
  }

  /// Bytes that are written into a slot.
  @inlinable public static var byteCount: Int { 8 }

  /// Decodes a private copy of a slot, for frontends.
  @inlinable
  public init(_ slot: SlotCopy) {
    id = slot.uint16(at: 0)
    offset = slot.uint16(at: 2)
    flags = NetRxFlags(rawValue: slot.uint16(at: 4))
    status = Int16(bitPattern: slot.uint16(at: 6))
  }

  /// The slot.
  @inlinable
  public func encode() -> SlotCopy {
    var slot = SlotCopy()
    slot.setUInt16(id, at: 0)
    slot.setUInt16(offset, at: 2)
    slot.setUInt16(flags.rawValue, at: 4)
    slot.setUInt16(UInt16(bitPattern: status), at: 6)
    return slot
  }
}
