/// The status of a response on the transmit and receive rings (netif.h, NETIF_RSP_*; "NULL" for the slot of
/// an extra info). On the receive ring a value of 0 or more is a count of bytes instead.
@frozen
public struct NetStatus: RawRepresentable, Equatable, Sendable, BitwiseCopyable {
  /// The 16-bit value on the wire.
  public let rawValue: Int16
  /// Wraps a value from the wire.
  @inlinable public init(rawValue: Int16) { self.rawValue = rawValue }

  /// NETIF_RSP_OKAY, 0.
  @inlinable public static var okay: NetStatus { NetStatus(rawValue: 0) }
  /// NETIF_RSP_ERROR, -1.
  @inlinable public static var error: NetStatus { NetStatus(rawValue: -1) }
  /// NETIF_RSP_DROPPED, -2.
  @inlinable public static var dropped: NetStatus { NetStatus(rawValue: -2) }
  /// NETIF_RSP_NULL, 1: the answer to the transmit slot of an extra info.
  @inlinable public static var null: NetStatus { NetStatus(rawValue: 1) }
}

/// Bounds that netif.h and Linux's drivers set.
@frozen
public enum NetLimits {
  /// Bytes of a packet at most (netif.h, XEN_NETIF_MAX_TX_SIZE).
  @inlinable public static var packetByteCount: Int { 0xFFFF }
  /// Data slots that every backend takes for one packet (netif.h, XEN_NETIF_NR_SLOTS_MIN), and that Linux's
  /// netfront takes at most.
  @inlinable public static var slotCount: Int { 18 }
  /// Bytes of an Ethernet header without tags: no first slot holds less.
  @inlinable public static var ethernetHeaderByteCount: Int { 14 }
  /// Slots of the transmit and of the receive ring, each one page (netif.h).
  @inlinable public static var ringSlotCount: Int { 256 }
  /// Slots of the control ring, one page (netif.h).
  @inlinable public static var controlRingSlotCount: Int { 128 }
}
