/// What the reader of a TAP takes unfinished from the kernel (linux/if_tun.h, TUN_F_*). What it may write
/// unfinished is not bound by it.
@frozen
public struct TapOffloads: OptionSet, Sendable, BitwiseCopyable {
  /// The bits of TUNSETOFFLOAD.
  public let rawValue: UInt32
  /// Wraps the bits.
  @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }
  /// Checksums to be filled in (TUN_F_CSUM); all others need it.
  @inlinable public static var checksum: TapOffloads { TapOffloads(rawValue: 1) }
  /// TCP over IPv4 to be segmented (TUN_F_TSO4).
  @inlinable public static var tcpIPv4: TapOffloads { TapOffloads(rawValue: 2) }
  /// TCP over IPv6 to be segmented (TUN_F_TSO6).
  @inlinable public static var tcpIPv6: TapOffloads { TapOffloads(rawValue: 4) }
  /// Of TCP to be segmented, packets with the ECN's CWR bit too (TUN_F_TSO_ECN).
  @inlinable public static var tcpECN: TapOffloads { TapOffloads(rawValue: 8) }
  /// UDP over IPv4 and IPv6 to be segmented (TUN_F_USO4, TUN_F_USO6: Linux 6.2, only both).
  @inlinable public static var udp: TapOffloads { TapOffloads(rawValue: 0x60) }
}
