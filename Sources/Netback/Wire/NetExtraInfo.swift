public import RingKit

/// What an extra info tells (netif.h, XEN_NETIF_EXTRA_TYPE_*).
@frozen
public struct NetExtraType: RawRepresentable, Hashable, Sendable, BitwiseCopyable {
  /// The byte on the wire.
  public let rawValue: UInt8
  /// Wraps the byte.
  @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }
  /// 0, which no frontend may send.
  @inlinable public static var none: NetExtraType { NetExtraType(rawValue: 0) }
  /// 1: segmentation.
  @inlinable public static var segmentation: NetExtraType { NetExtraType(rawValue: 1) }
  /// 2: a multicast address is added to what the frontend listens to.
  @inlinable public static var multicastAdd: NetExtraType { NetExtraType(rawValue: 2) }
  /// 3: it is taken away.
  @inlinable public static var multicastDelete: NetExtraType { NetExtraType(rawValue: 3) }
  /// 4: the packet's hash.
  @inlinable public static var hash: NetExtraType { NetExtraType(rawValue: 4) }
  /// 5: bytes before the data, for XDP. Not in Xen's header; Linux's copy of it has it (commit 1c9535c701a7,
  /// v5.9).
  @inlinable public static var headroom: NetExtraType { NetExtraType(rawValue: 5) }
  /// The first number without a meaning (XEN_NETIF_EXTRA_TYPE_MAX of Linux).
  @inlinable public static var limit: UInt8 { 6 }
}

/// The protocol of a packet that is to be cut into segments (netif.h, XEN_NETIF_GSO_TYPE_*).
@frozen
public struct NetSegmentationType: RawRepresentable, Hashable, Sendable, BitwiseCopyable {
  /// The byte on the wire.
  public let rawValue: UInt8
  /// Wraps the byte.
  @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }
  /// 0: it is not.
  @inlinable public static var none: NetSegmentationType { NetSegmentationType(rawValue: 0) }
  /// 1: TCP over IPv4.
  @inlinable public static var tcpIPv4: NetSegmentationType { NetSegmentationType(rawValue: 1) }
  /// 2: TCP over IPv6.
  @inlinable public static var tcpIPv6: NetSegmentationType { NetSegmentationType(rawValue: 2) }
}

/// What a hash was taken over (netif.h, _XEN_NETIF_CTRL_HASH_TYPE_*: bit numbers in flags, plain numbers in
/// an extra info).
@frozen
public enum NetHashType: UInt8, Sendable, BitwiseCopyable, CaseIterable {
  /// Addresses of IPv4, 8 bytes.
  case ipv4 = 0
  /// Addresses and ports of TCP over IPv4, 12 bytes.
  case ipv4TCP = 1
  /// Addresses of IPv6, 32 bytes.
  case ipv6 = 2
  /// Addresses and ports of TCP over IPv6, 36 bytes.
  case ipv6TCP = 3
}

/// A packet's hash as an extra info carries it.
@frozen
public struct NetHash: Equatable, Sendable, BitwiseCopyable {
  /// What it was taken over.
  public var type: NetHashType
  /// The algorithm, 1 for Toeplitz (netif.h, XEN_NETIF_CTRL_HASH_ALGORITHM_*).
  public var algorithm: UInt8
  /// The value; on the wire its lowest byte comes first.
  public var value: UInt32

  /// Joins the fields.
  @inlinable
  public init(type: NetHashType, algorithm: UInt8, value: UInt32) {
    self.type = type
    self.algorithm = algorithm
    self.value = value
  }
}

/// An Ethernet address.
@frozen
public struct EthernetAddress: Hashable, Sendable, BitwiseCopyable, CustomStringConvertible {
  /// The six bytes in wire order, the first one in bits 40...47.
  public let rawValue: UInt64

  /// Takes the lowest 48 bits.
  @inlinable public init(rawValue: UInt64) { self.rawValue = rawValue & 0xFFFF_FFFF_FFFF }

  /// ff:ff:ff:ff:ff:ff.
  @inlinable public static var broadcast: EthernetAddress { EthernetAddress(rawValue: .max) }
  /// True for group addresses, broadcast among them.
  @inlinable public var isMulticast: Bool { rawValue >> 40 & 1 == 1 }
  /// True for ff:ff:ff:ff:ff:ff.
  @inlinable public var isBroadcast: Bool { self == .broadcast }

  /// Parses "00:16:3e:01:02:03": six pairs of hexadecimal digits; nil for anything else.
  public init?(_ text: String) {
    let parts = text.split(separator: ":", omittingEmptySubsequences: false)
    guard parts.count == 6 else { return nil }
    var value: UInt64 = 0
    for part in parts {
      guard part.utf8.count == 2, part.allSatisfy(\.isHexDigit), let byte = UInt64(part, radix: 16) else {
        return nil
      }
      value = value << 8 | byte
    }
    rawValue = value
  }

  /// As it is parsed, in lower case.
  public var description: String {
    (0..<6).map { index in
      let byte = rawValue >> UInt64(40 - 8 * index) & 0xFF
      return (byte < 16 ? "0" : "") + String(byte, radix: 16)
    }.joined(separator: ":")
  }
}

/// A slot that describes the packet of the slot before it (netif.h, struct netif_extra_info): 8 bytes at the
/// beginning of a transmit or receive slot.
@frozen
public struct NetExtraInfo: Equatable, Sendable, BitwiseCopyable {
  /// What it tells.
  public var type: NetExtraType
  /// True when another one follows (XEN_NETIF_EXTRA_FLAG_MORE, bit 0).
  public var hasMore: Bool
  /// The six bytes of the union, the first one in bits 0...7.
  public var payload: UInt64

  /// Joins the fields.
  @inlinable
  public init(type: NetExtraType, hasMore: Bool = false, payload: UInt64) {
    self.type = type
    self.hasMore = hasMore
    self.payload = payload & 0xFFFF_FFFF_FFFF
  }

  /// Segmentation into at most `size` bytes of TCP payload each.
  @inlinable
  public init(segmentation type: NetSegmentationType, size: UInt16) {
    self.init(type: .segmentation, payload: UInt64(size) | UInt64(type.rawValue) << 16)
  }

  /// A multicast address that is added or taken away.
  @inlinable
  public init(multicast address: EthernetAddress, isAdded: Bool) {
    // Wire order is the first byte first, which is the highest one of the address.
    self.init(
      type: isAdded ? .multicastAdd : .multicastDelete, payload: address.rawValue.byteSwapped >> 16)
  }

  /// A packet's hash.
  @inlinable
  public init(hash: NetHash) {
    self.init(
      type: .hash,
      payload: UInt64(hash.type.rawValue) | UInt64(hash.algorithm) << 8 | UInt64(hash.value) << 16)
  }

  /// `byteCount` bytes lie before the data in each page.
  @inlinable
  public init(headroom byteCount: UInt16) {
    self.init(type: .headroom, payload: UInt64(byteCount))
  }

  /// Bytes that are written into a slot.
  @inlinable public static var byteCount: Int { 8 }

  /// Decodes a private copy of a slot.
  @inlinable
  public init(_ slot: SlotCopy) {
    let word = slot.uint64(at: 0)
    self.init(
      type: NetExtraType(rawValue: UInt8(truncatingIfNeeded: word)), hasMore: word >> 8 & 1 == 1,
      payload: word >> 16)
  }

  /// The slot.
  @inlinable
  public func encode() -> SlotCopy {
    var slot = SlotCopy()
    slot.setUInt64(UInt64(type.rawValue) | (hasMore ? 0x100 : 0) | payload << 16, at: 0)
    return slot
  }

  /// Segmentation: bytes of TCP payload in each segment. Means something only in that type, as do the others.
  @inlinable public var segmentSize: UInt16 { UInt16(truncatingIfNeeded: payload) }
  /// Segmentation: the protocol.
  @inlinable public var segmentationType: NetSegmentationType {
    NetSegmentationType(rawValue: UInt8(truncatingIfNeeded: payload >> 16))
  }
  /// Multicast: the address.
  @inlinable public var address: EthernetAddress {
    EthernetAddress(rawValue: (payload << 16).byteSwapped)
  }
  /// Hash: the hash; nil for a type that does not exist.
  @inlinable public var hash: NetHash? {
    guard let type = NetHashType(rawValue: UInt8(truncatingIfNeeded: payload)) else { return nil }
    return NetHash(
      type: type, algorithm: UInt8(truncatingIfNeeded: payload >> 8),
      value: UInt32(truncatingIfNeeded: payload >> 16))
  }
  /// Headroom: bytes before the data.
  @inlinable public var headroom: UInt16 { UInt16(truncatingIfNeeded: payload) }
}
