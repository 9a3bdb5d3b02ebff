public import RingKit

/// Where the headers of a frame are: Ethernet, up to two VLAN tags, IPv4 or IPv6, TCP or UDP.
///
/// Every byte of the frame may be a guest's invention. Nothing beyond the frame is read, no loop is longer
/// than 8 rounds, and what does not fit is "not found". Offsets count from the frame's first byte.
///
/// Where only the frame's first bytes are at hand, nothing beyond those is read: what would have to be is told
/// by ``isCutOff``.
@frozen
public struct PacketHeaders: Equatable, Sendable, BitwiseCopyable {
  /// What stands behind Ethernet's header and its tags.
  @frozen
  public enum Network: UInt8, Sendable, BitwiseCopyable {
    /// Another protocol, more than two tags, or a header that does not fit.
    case none
    /// IPv4 (RFC 791), with options if there are any.
    case ipv4
    /// IPv6 (RFC 8200), with extension headers if there are any.
    case ipv6
  }

  /// What stands behind the headers of IP.
  @frozen
  public enum Transport: UInt8, Sendable, BitwiseCopyable {
    /// Another protocol, a fragment, a header that does not fit, or IP with a length that is wrong.
    case none
    /// TCP (RFC 9293), with options if there are any.
    case tcp
    /// UDP (RFC 768).
    case udp
  }

  /// The type behind the tags: 0x0800 for IPv4, 0x86DD for IPv6; below 1536 a length (IEEE 802.3). With more
  /// than two tags it is that of the third tag; 0 in a frame of less than 14 bytes.
  public private(set) var etherType: UInt16 = 0
  /// VLAN tags, 802.1Q or 802.1ad: 0...2.
  public private(set) var tagCount = 0
  /// The network protocol.
  public private(set) var network = Network.none
  /// IP: the first byte of its header; else 0.
  public private(set) var networkStart = 0
  /// IP: the number of the protocol behind the last header of IP that was found (IANA protocol numbers).
  public private(set) var protocolNumber: UInt8 = 0
  /// IP: true when this is a part of a packet, the first one too: what stands behind IP's headers is no
  /// whole datagram.
  public private(set) var isFragment = false
  /// IP: the first byte that is not the packet's, the frame's padding; 0 when the packet's length is shorter
  /// than its header or ends beyond the frame.
  public private(set) var packetEnd = 0
  /// The transport protocol.
  public private(set) var transport = Transport.none
  /// TCP and UDP: the first byte of the header, which is that of the source port; else 0.
  public private(set) var transportStart = 0
  /// Bytes of the whole frame.
  public let frameByteCount: Int
  /// Whether a header may go on beyond the bytes that were at hand: nothing that was found, or was not, is to be
  /// relied on then.
  public private(set) var isCutOff = false
  /// Bytes from the frame's first one to the end of the last header that was found.
  public private(set) var headerByteCount = 0
  /// The address that the pseudo header has as destination, which is not IP's own one where a packet goes
  /// by way of others (RFC 8200 8.1); 0 when it was not found.
  private(set) var finalDestinationStart = 0
  /// Whether each segment may have a copy of IP's headers: not with a fragment header, and not with AH.
  private var areHeadersRepeatable = true
  /// Whether UDP's own length is that of the packet.
  private var isDatagramWhole = true

  /// Most headers of IPv6 that are followed. RFC 8200 4.1 knows 6 that may stand before TCP or UDP.
  private static let extensionHeaderLimit = 8

  /// Parses a frame: `frame` is exactly its bytes.
  public init(_ frame: PrivateBytes) { self.init(frame, frameByteCount: frame.count) }

  /// Parses a frame of `frameByteCount` bytes of which `frame` has the first ones, or all.
  public init(_ frame: PrivateBytes, frameByteCount: Int) {
    precondition(frame.count <= frameByteCount)
    self.frameByteCount = frameByteCount
    guard has(NetLimits.ethernetHeaderByteCount, at: 0, frame) else { return }
    var type = frame.uint16(at: 12)
    var start = NetLimits.ethernetHeaderByteCount
    while tagCount < 2, type == 0x8100 || type == 0x88A8, has(4, at: start, frame) {
      type = frame.uint16(at: start + 2)
      start += 4
      tagCount += 1
    }
    etherType = type
    headerByteCount = start
    switch type {
    case 0x0800: parseIPv4(frame, at: start)
    case 0x86DD: parseIPv6(frame, at: start)
    default: break
    }
  }

  /// Whether the frame has `byteCount` bytes at `start`, and they are at hand.
  private mutating func has(_ byteCount: Int, at start: Int, _ frame: PrivateBytes) -> Bool {
    if frame.count - start >= byteCount { return true }
    if frameByteCount - start >= byteCount { isCutOff = true }
    return false
  }

  private mutating func parseIPv4(_ frame: PrivateBytes, at start: Int) {
    let room = frameByteCount - start
    guard has(20, at: start, frame), frame[start] >> 4 == 4 else { return }
    let headerCount = Int(frame[start] & 15) * 4
    guard headerCount >= 20, has(headerCount, at: start, frame) else { return }
    network = .ipv4
    networkStart = start
    headerByteCount = start + headerCount
    protocolNumber = frame[start + 9]
    // MF and the offset; DF is none of it.
    isFragment = frame.uint16(at: start + 6) & 0x3FFF != 0
    let total = Int(frame.uint16(at: start + 2))
    guard total >= headerCount, total <= room else { return }
    packetEnd = start + total
    if headerCount == 20 || !Self.hasSourceRoute(frame, from: start + 20, to: start + headerCount) {
      finalDestinationStart = start + 16
    }
    if !isFragment { parseTransport(frame, at: headerByteCount) }
  }

  /// Whether IPv4's options send the packet by way of other hosts (RFC 791 3.1, types 131 and 137), which
  /// nobody does any more; options that cannot be read count as such.
  private static func hasSourceRoute(_ frame: PrivateBytes, from start: Int, to end: Int) -> Bool {
    var at = start
    while at < end {
      switch frame[at] {
      case 0: return false
      case 1: at += 1
      case 131, 137: return true
      default:
        guard end - at >= 2 else { return true }
        let byteCount = Int(frame[at + 1])
        guard byteCount >= 2, byteCount <= end - at else { return true }
        at += byteCount
      }
    }
    return false
  }

  private mutating func parseIPv6(_ frame: PrivateBytes, at start: Int) {
    let room = frameByteCount - start
    guard has(40, at: start, frame), frame[start] >> 4 == 6 else { return }
    network = .ipv6
    networkStart = start
    headerByteCount = start + 40
    protocolNumber = frame[start + 6]
    // A jumbogram has 0 here (RFC 2675): it has no packet behind its header for us.
    let payload = Int(frame.uint16(at: start + 4))
    guard payload <= room - 40 else { return }
    packetEnd = start + 40 + payload
    finalDestinationStart = start + 24
    for _ in 0..<Self.extensionHeaderLimit {
      let at = headerByteCount
      let byteCount: Int
      switch protocolNumber {
      case 0, 43, 60:  // hop-by-hop, routing, destination
        guard packetEnd - at >= 8, has(8, at: at, frame) else { return }
        byteCount = (Int(frame[at + 1]) + 1) * 8
        guard byteCount <= packetEnd - at, has(byteCount, at: at, frame) else { return }
        if protocolNumber == 43, frame[at + 3] != 0 {
          finalDestinationStart = Self.finalDestination(frame, routing: at, byteCount)
        }
      case 44:
        byteCount = 8
        guard byteCount <= packetEnd - at, has(byteCount, at: at, frame) else { return }
        isFragment = frame.uint16(at: at + 2) & 0xFFF9 != 0
        areHeadersRepeatable = false
      case 51:  // AH counts in words of 4 bytes (RFC 4302 2.2)
        guard packetEnd - at >= 8, has(8, at: at, frame) else { return }
        byteCount = (Int(frame[at + 1]) + 2) * 4
        guard byteCount <= packetEnd - at, has(byteCount, at: at, frame) else { return }
        areHeadersRepeatable = false
      default:
        parseTransport(frame, at: at)
        return
      }
      protocolNumber = frame[at]
      headerByteCount = at + byteCount
      if isFragment { return }
    }
  }

  /// Where a routing header that has not been used up keeps the last destination; 0 when that is not known.
  private static func finalDestination(_ frame: PrivateBytes, routing at: Int, _ byteCount: Int) -> Int {
    let lastAddress = at + byteCount - 16
    switch frame[at + 2] {
    case 0 where byteCount >= 24: return lastAddress  // RFC 2460 4.4: in the order of travel
    case 2 where byteCount == 24: return lastAddress  // RFC 6275 6.4: the home address
    case 4 where byteCount >= 24: return at + 8  // RFC 8754 2: in reverse
    default: return 0
    }
  }

  private mutating func parseTransport(_ frame: PrivateBytes, at start: Int) {
    let room = packetEnd - start
    switch protocolNumber {
    case 6:
      guard room >= 20, has(20, at: start, frame) else { return }
      let headerCount = Int(frame[start + 12] >> 4) * 4
      guard headerCount >= 20, headerCount <= room, has(headerCount, at: start, frame) else { return }
      transport = .tcp
      headerByteCount = start + headerCount
    case 17:
      guard room >= 8, has(8, at: start, frame) else { return }
      transport = .udp
      headerByteCount = start + 8
      isDatagramWhole = Int(frame.uint16(at: start + 4)) == room
    default: return
    }
    transportStart = start
  }
}

extension PacketHeaders {
  /// IP: the first byte of the source address, with the destination address behind it; else 0.
  @inlinable public var addressesStart: Int {
    switch network {
    case .none: 0
    case .ipv4: networkStart + 12
    case .ipv6: networkStart + 8
    }
  }

  /// IP: bytes of both addresses, 8 or 32; else 0.
  @inlinable public var addressesByteCount: Int {
    switch network {
    case .none: 0
    case .ipv4: 8
    case .ipv6: 32
    }
  }

  /// TCP and UDP: the first byte of the source port, with the destination port behind it, 4 bytes in all; nil
  /// where there are none.
  @inlinable public var portsStart: Int? { transport == .none ? nil : transportStart }

  /// TCP and UDP: bytes behind the header; else 0.
  @inlinable public var payloadByteCount: Int { transport == .none ? 0 : packetEnd - headerByteCount }

  /// TCP and UDP: bytes of header and payload, which is what the checksum goes over; else 0.
  @inlinable public var transportByteCount: Int { transport == .none ? 0 : packetEnd - transportStart }

  /// TCP and UDP: the checksum's field within the header; else 0.
  @inlinable public var checksumOffset: Int {
    switch transport {
    case .none: 0
    case .tcp: 16
    case .udp: 6
    }
  }

  /// Whether a checksum can be filled in from what the headers tell: TCP or UDP whose pseudo header is known
  /// and that reaches to the end of its IP packet. (UDP that is shorter than its packet has a checksum which
  /// ends before it, and nobody who gets "csum_blank" or VIRTIO_NET_HDR_F_NEEDS_CSUM would know.)
  public var hasChecksum: Bool {
    transport != .none && finalDestinationStart != 0 && isDatagramWhole
  }

  /// Whether the packet can be cut into segments of `type`: TCP over that protocol, with headers of IP that
  /// each segment may repeat. Linux too has no segmentation across a fragment header or AH.
  public func canBeSegmented(as type: NetSegmentationType) -> Bool {
    guard transport == .tcp, hasChecksum, areHeadersRepeatable else { return false }
    switch type {
    case .tcpIPv4: return network == .ipv4
    case .tcpIPv6: return network == .ipv6
    default: return false
    }
  }
}
