public import RingKit

/// The header before a frame of a TAP with IFF_VNET_HDR (linux/virtio_net.h, struct virtio_net_hdr_mrg_rxbuf),
/// in little endian (TUNSETVNETLE). Read and written in the one direction by a backend, in the other one by a
/// frontend that puts netif's packets onto a TAP: it is the same both ways.
@frozen
public struct VirtioNetHeader: Equatable, Sendable, BitwiseCopyable {
  /// VIRTIO_NET_HDR_F_*: NEEDS_CSUM 1, DATA_VALID 2.
  public var flags: UInt8 = 0
  /// VIRTIO_NET_HDR_GSO_*: NONE 0, TCPV4 1, UDP 3, TCPV6 4, UDP_L4 5; ECN 0x80 beside.
  public var segmentationType: UInt8 = 0
  /// Bytes of all headers; a hint how much of the frame a receiver wants in one piece.
  public var headerByteCount: UInt16 = 0
  /// Bytes of payload in a segment.
  public var segmentSize: UInt16 = 0
  /// The first byte that is summed, counted from the frame's first one.
  public var checksumStart: UInt16 = 0
  /// The checksum's field, counted from ``checksumStart``.
  public var checksumOffset: UInt16 = 0

  /// Bytes with the number of buffers behind it, which is what TUNSETVNETHDRSZ is to be told. A TAP neither
  /// reads nor writes the last two of them.
  @inlinable public static var byteCount: Int { 12 }

  /// Nothing to be done.
  @inlinable public init() {}

  /// What a link is told of a packet. DATA_VALID is set for a validated one, which Linux's TAP ignores. The
  /// ECN bit never is, because netif does not tell: a CWR flag is right in segments that are cut in software.
  public init(_ offload: PacketOffload) {
    headerByteCount = offload.headerByteCount
    switch offload.checksum {
    case .unknown: break
    case .validated: flags = 2
    case .partial:
      flags = 1
      checksumStart = offload.checksumStart
      checksumOffset = offload.checksumOffset
    }
    switch offload.segmentation {
    case .tcpIPv4: segmentationType = 1
    case .tcpIPv6: segmentationType = 4
    default: return
    }
    segmentSize = offload.segmentSize
  }

  /// Reads the first 10 of the bytes at `offset`; traps unless they lie in `bytes`.
  public init(reading bytes: PrivateBytes, at offset: Int) {
    flags = bytes[offset]
    segmentationType = bytes[offset + 1]
    headerByteCount = bytes.uint16(at: offset + 2).byteSwapped
    segmentSize = bytes.uint16(at: offset + 4).byteSwapped
    checksumStart = bytes.uint16(at: offset + 6).byteSwapped
    checksumOffset = bytes.uint16(at: offset + 8).byteSwapped
  }

  /// Writes `byteCount` bytes at `offset`, 10 or, with a number of buffers, which is 1, 12; traps unless they
  /// lie in `bytes`.
  public func write(to bytes: PrivateBytes, at offset: Int, byteCount: Int = VirtioNetHeader.byteCount) {
    precondition(byteCount == 10 || byteCount == 12)
    bytes[offset] = flags
    bytes[offset + 1] = segmentationType
    bytes.setUInt16(headerByteCount.byteSwapped, at: offset + 2)
    bytes.setUInt16(segmentSize.byteSwapped, at: offset + 4)
    bytes.setUInt16(checksumStart.byteSwapped, at: offset + 6)
    bytes.setUInt16(checksumOffset.byteSwapped, at: offset + 8)
    if byteCount == 12 { bytes.setUInt16(UInt16(1).byteSwapped, at: offset + 10) }
  }

  /// What the header says of the frame behind it.
  ///
  /// Refused are the types that netif cannot carry, UDP (UFO), UDP_L4 (USO) and those of tunnels, as
  /// segmentationMismatch: TUN_F_UFO, TUN_F_USO4/6 and TUN_F_UDP_TUNNEL_GSO are not to be set, so that the
  /// kernel cuts them; and a partial checksum of SCTP as checksumWithoutProtocol: it is a CRC32c, which no
  /// TAP leaves to its reader (tun has no NETIF_F_SCTP_CRC, so that Linux fills it in). The ECN bit is dropped.
  /// A frame to be segmented whose checksum is not partial is made so in place, as
  /// ``TransmitOffload`` does it.
  public func offload(frame: PrivateBytes) throws(PacketRefusal) -> PacketOffload {
    guard frame.count >= NetLimits.ethernetHeaderByteCount else { throw .truncatedHeaders }
    let headers = PacketHeaders(frame)
    var offload = PacketOffload()
    offload.headerByteCount = UInt16(truncatingIfNeeded: headers.headerByteCount)
    let type: NetSegmentationType
    switch segmentationType & ~0x80 {
    case 0: type = .none
    case 1: type = .tcpIPv4
    case 4: type = .tcpIPv6
    default: throw .segmentationMismatch
    }
    guard type == .none else {
      try offload.cut(frame, headers, as: type, size: segmentSize)
      return offload
    }
    if flags & 1 != 0 {
      let start = Int(checksumStart)
      guard start + Int(checksumOffset) + 2 <= frame.count else { throw .truncatedHeaders }
      guard headers.protocolNumber != 132 || start != headers.headerByteCount else {
        throw .checksumWithoutProtocol
      }
      offload.checksum = .partial
      offload.checksumStart = checksumStart
      offload.checksumOffset = checksumOffset
    } else if flags & 2 != 0 {
      offload.checksum = .validated
    }
    return offload
  }
}
