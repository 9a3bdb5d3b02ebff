public import RingKit

/// What a control request asks for (netif.h, XEN_NETIF_CTRL_TYPE_*).
@frozen
public struct NetControlType: RawRepresentable, Hashable, Sendable, BitwiseCopyable {
  /// The 16-bit field.
  public let rawValue: UInt16
  /// Wraps the field.
  @inlinable public init(rawValue: UInt16) { self.rawValue = rawValue }
  /// 1: which hash types the backend knows.
  @inlinable public static var getHashFlags: NetControlType { NetControlType(rawValue: 1) }
  /// 2: which ones it is to use.
  @inlinable public static var setHashFlags: NetControlType { NetControlType(rawValue: 2) }
  /// 3: the hash key: data[0] a page, data[1] bytes.
  @inlinable public static var setHashKey: NetControlType { NetControlType(rawValue: 3) }
  /// 4: how many entries the mapping from hash to queue may have.
  @inlinable public static var getHashMappingSize: NetControlType { NetControlType(rawValue: 4) }
  /// 5: how many it has from now on.
  @inlinable public static var setHashMappingSize: NetControlType { NetControlType(rawValue: 5) }
  /// 6: entries: data[0] a page, data[1] how many, data[2] the first one.
  @inlinable public static var setHashMapping: NetControlType { NetControlType(rawValue: 6) }
  /// 7: the hash algorithm.
  @inlinable public static var setHashAlgorithm: NetControlType { NetControlType(rawValue: 7) }
  /// 8: how many staging grants queue data[0] may have.
  @inlinable public static var getGrantMappingSize: NetControlType { NetControlType(rawValue: 8) }
  /// 9: staging grants: data[0] the queue, data[1] a page with a list, data[2] entries.
  @inlinable public static var addGrantMapping: NetControlType { NetControlType(rawValue: 9) }
  /// 10: they are let go of; as type 9.
  @inlinable public static var deleteGrantMapping: NetControlType { NetControlType(rawValue: 10) }
}

/// How a control request ended (netif.h, XEN_NETIF_CTRL_STATUS_*).
@frozen
public enum NetControlStatus: UInt32, Sendable, BitwiseCopyable {
  /// Done.
  case success = 0
  /// Not known here.
  case notSupported = 1
  /// A value that makes no sense.
  case invalidParameter = 2
  /// More than there is room for.
  case bufferOverflow = 3
}

/// A request on the control ring (netif.h, struct xen_netif_ctrl_request). Nothing in it has been checked.
@frozen
public struct NetControlRequest: Equatable, Sendable, BitwiseCopyable {
  /// The frontend's name for it, echoed.
  public var id: UInt16
  /// What is asked.
  public var type: NetControlType
  /// data[0...2].
  public var data: (UInt32, UInt32, UInt32) {
    @inlinable get { (first, second, third) }
  }
  @usableFromInline var first: UInt32
  @usableFromInline var second: UInt32
  @usableFromInline var third: UInt32

  /// Joins the fields.
  @inlinable
  public init(
    id: UInt16, type: NetControlType, _ first: UInt32 = 0, _ second: UInt32 = 0, _ third: UInt32 = 0
  ) {
    self.id = id
    self.type = type
    self.first = first
    self.second = second
    self.third = third
  }

  /// Bytes of a slot in the ring: the request is the larger message.
  @inlinable public static var byteCount: Int { 16 }

  /// Decodes a private copy of a slot.
  @inlinable
  public init(_ slot: SlotCopy) {
    id = slot.uint16(at: 0)
    type = NetControlType(rawValue: slot.uint16(at: 2))
    first = slot.uint32(at: 4)
    second = slot.uint32(at: 8)
    third = slot.uint32(at: 12)
  }

  /// The slot, for frontends.
  @inlinable
  public func encode() -> SlotCopy {
    var slot = SlotCopy()
    slot.setUInt16(id, at: 0)
    slot.setUInt16(type.rawValue, at: 2)
    slot.setUInt32(first, at: 4)
    slot.setUInt32(second, at: 8)
    slot.setUInt32(third, at: 12)
    return slot
  }
}

/// The answer to a control request (netif.h, struct xen_netif_ctrl_response).
@frozen
public struct NetControlResponse: Equatable, Sendable, BitwiseCopyable {
  /// The request's `id`.
  public var id: UInt16
  /// The request's type.
  public var type: NetControlType
  /// How it ended, as a number: frontends meet backends that know other ones.
  public var status: UInt32
  /// What was asked for.
  public var data: UInt32

  /// Joins the fields.
  @inlinable
  public init(id: UInt16, type: NetControlType, status: NetControlStatus, data: UInt32 = 0) {
    self.id = id
    self.type = type
    self.status = status.rawValue
    self.data = data
  }

  /// Bytes that are written into a slot.
  @inlinable public static var byteCount: Int { 12 }

  /// Decodes a private copy of a slot, for frontends.
  @inlinable
  public init(_ slot: SlotCopy) {
    id = slot.uint16(at: 0)
    type = NetControlType(rawValue: slot.uint16(at: 2))
    status = slot.uint32(at: 4)
    data = slot.uint32(at: 8)
  }

  /// The slot.
  @inlinable
  public func encode() -> SlotCopy {
    var slot = SlotCopy()
    slot.setUInt16(id, at: 0)
    slot.setUInt16(type.rawValue, at: 2)
    slot.setUInt32(status, at: 4)
    slot.setUInt32(data, at: 8)
    return slot
  }
}
