public import RingKit

/// One data slot of the transmit ring (netif.h, struct netif_tx_request). Nothing in it has been checked.
@frozen
public struct NetTxRequest: Equatable, Sendable, BitwiseCopyable {
  /// The granted page.
  public var reference: GrantReference
  /// First byte within the page.
  public var offset: UInt16
  /// What it carries and what follows.
  public var flags: NetTxFlags
  /// The frontend's name for the slot, echoed.
  public var id: UInt16
  /// Bytes: of the whole packet in its first request, of the slot in the others.
  public var size: UInt16

  /// Joins the fields.
  @inlinable
  public init(reference: GrantReference, offset: UInt16, flags: NetTxFlags, id: UInt16, size: UInt16) {
    self.reference = reference
    self.offset = offset
    self.flags = flags
    self.id = id
    self.size = size
  }

  /// Bytes of a slot in the ring: the request is the larger message.
  @inlinable public static var byteCount: Int { 12 }

  /// Decodes a private copy of a slot.
  @inlinable
  public init(_ slot: SlotCopy) {
    reference = GrantReference(rawValue: slot.uint32(at: 0))
    offset = slot.uint16(at: 4)
    flags = NetTxFlags(rawValue: slot.uint16(at: 6))
    id = slot.uint16(at: 8)
    size = slot.uint16(at: 10)
  }

  /// The slot, for frontends.
  @inlinable
  public func encode() -> SlotCopy {
    var slot = SlotCopy()
    slot.setUInt32(reference.rawValue, at: 0)
    slot.setUInt16(offset, at: 4)
    slot.setUInt16(flags.rawValue, at: 6)
    slot.setUInt16(id, at: 8)
    slot.setUInt16(size, at: 10)
    return slot
  }
}

/// The answer to one slot of the transmit ring (netif.h, struct netif_tx_response).
@frozen
public struct NetTxResponse: Equatable, Sendable, BitwiseCopyable {
  /// The request's `id`; of an extra info's slot, whatever stands there.
  public var id: UInt16
  /// How it ended.
  public var status: NetStatus

  /// Joins the fields.
  @inlinable
  public init(id: UInt16, status: NetStatus) {
    self.id = id
    self.status = status
  }

  /// Bytes that are written into a slot.
  @inlinable public static var byteCount: Int { 4 }

  /// Decodes a private copy of a slot, for frontends.
  @inlinable
  public init(_ slot: SlotCopy) {
    id = slot.uint16(at: 0)
    status = NetStatus(rawValue: Int16(bitPattern: slot.uint16(at: 2)))
  }

  /// The slot.
  @inlinable
  public func encode() -> SlotCopy {
    var slot = SlotCopy()
    slot.setUInt16(id, at: 0)
    slot.setUInt16(UInt16(bitPattern: status.rawValue), at: 2)
    return slot
  }
}
