public import RingKit

/// The checksum of IPv4, TCP and UDP (RFC 1071). Sums are ones' complement sums of 16-bit numbers, kept in 64
/// bits until they are folded.
public enum InternetChecksum {
  /// The 16-bit sum, not inverted: 0 only for nothing but zero bytes.
  @inlinable
  public static func folded(_ sum: UInt64) -> UInt16 {
    var sum = (sum >> 32) &+ (sum & 0xFFFF_FFFF)
    // 33 bits become 18, then 17, then 16.
    for _ in 0..<3 { sum = (sum >> 16) &+ (sum & 0xFFFF) }
    return UInt16(truncatingIfNeeded: sum)
  }

  /// The sum of the pseudo header of TCP or UDP over IPv4 (RFC 9293 3.1) or IPv6 (RFC 8200 8.1) for
  /// `byteCount` bytes of header and payload. ``PacketHeaders/hasChecksum`` holds; else the sum is 0.
  public static func pseudoHeaderSum(
    _ frame: PrivateBytes, _ headers: PacketHeaders, byteCount: Int
  ) -> UInt64 {
    guard headers.hasChecksum else { return 0 }
    let source = headers.addressesStart
    let destination = headers.finalDestinationStart
    var sum = UInt64(byteCount) &+ UInt64(headers.protocolNumber)
    for word in 0..<(headers.network == .ipv4 ? 1 : 4) {
      sum &+= UInt64(frame.uint32(at: source + 4 * word))
      sum &+= UInt64(frame.uint32(at: destination + 4 * word))
    }
    return sum
  }

  /// The checksum of an IPv4 header of `byteCount` bytes at `start`, whatever its field holds now.
  public static func ofIPv4Header(_ frame: PrivateBytes, at start: Int, byteCount: Int) -> UInt16 {
    // 16-bit number by number, adding 0xFFFF - field takes the field out.
    ~folded(
      frame.internetSum(from: start, count: byteCount) &+ UInt64(~frame.uint16(at: start + 10)))
  }
}

/// Checksums that an end does not take blank, filled in by us.
public enum SoftwareChecksum {
  /// Completes a partial checksum; true when the packet may go on. Any other packet is left as it is.
  ///
  /// It is ``PacketOffload/Checksum/validated`` then: the bytes that were summed come from this machine and
  /// have crossed no wire, which is what the partial checksum said and what Linux tells netfronts of it too
  /// (xen-netback, NETRXF_data_validated for CHECKSUM_PARTIAL). A sum of 0 becomes 0xFFFF, as UDP wants
  /// (RFC 768) and TCP allows.
  ///
  /// The sum ends with the IP packet where it is that packet's own TCP or UDP; else (a tunnel's inner one)
  /// with the frame, as it does in Linux. False, with ``PacketOffload/Checksum/unknown`` so that the receiver
  /// looks for itself, where the field is not in the frame; false, with nothing changed, for a packet that is
  /// to be segmented, since each segment has a checksum of its own.
  @discardableResult
  public static func complete(_ frame: PrivateBytes, _ offload: inout PacketOffload) -> Bool {
    guard offload.checksum == .partial else { return true }
    guard offload.segmentation == .none else { return false }
    let start = Int(offload.checksumStart)
    let field = start + Int(offload.checksumOffset)
    offload.checksumStart = 0
    offload.checksumOffset = 0
    guard field + 2 <= frame.count else {
      offload.checksum = .unknown
      return false
    }
    let headers = PacketHeaders(frame)
    let isOwn = headers.hasChecksum && headers.transportStart == start
    let end = isOwn ? headers.packetEnd : frame.count
    // The sum of the pseudo header stands in the field.
    let checksum = ~InternetChecksum.folded(frame.internetSum(from: start, count: end - start))
    frame.setUInt16(checksum == 0 ? 0xFFFF : checksum, at: field)
    offload.checksum = .validated
    return true
  }
}
