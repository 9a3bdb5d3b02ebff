public import RingKit

/// Why a packet cannot be handed on.
@frozen
public enum PacketRefusal: UInt8, Error, Sendable, BitwiseCopyable, CaseIterable {
  /// Its headers end beyond the packet.
  case truncatedHeaders
  /// A checksum is to be filled in, and no TCP or UDP header was found.
  case checksumWithoutProtocol
  /// It is to be segmented, and is not of the protocol that was told.
  case segmentationMismatch
  /// It is to be segmented into pieces of no bytes, or by a type that does not exist.
  case badSegmentSize
}

/// From netif's flags and extra infos to what a link is told (net.md 3.5, guest to backend).
public enum TransmitOffload {
  /// Judges a frame that was copied from the guest, and completes its headers in place: the sum of the pseudo
  /// header where the checksum is blank or the frame is to be segmented.
  ///
  /// - csum_blank: partial, with the field rewritten, since old frontends leave it as it was. Padding behind
  ///   the IP packet is zeroed, because whoever completes the checksum sums to the frame's end.
  /// - segmentation without csum_blank: partial all the same (xen-netback, rx_gso_checksum_fixup). What
  ///   carries no more payload than one segment is an ordinary packet: Linux takes it for one too, but by a
  ///   header without options, and then drops the rest (virtio_net_hdr_to_skb and tcp_gso_segment, seen on
  ///   6.18).
  /// - data_validated alone: validated. ``PacketOffload/headerByteCount`` is always set.
  ///
  /// `frame` may be the first bytes of a longer one, whose `headers` tell: they are not cut off then, and its IP
  /// packet has no padding behind it.
  ///
  /// IPv4's own checksum is left alone: netif has no flag for it, the frontend has filled it in, and Linux
  /// looks at it before it segments and writes it anew in each segment.
  public static func prepare(
    _ frame: PrivateBytes, headers: PacketHeaders? = nil, flags: NetTxFlags, segmentation: NetExtraInfo?,
    hash: NetHash?
  ) throws(PacketRefusal) -> PacketOffload {
    try PacketOffload(
      completing: frame, headers: headers, isChecksumBlank: flags.contains(.checksumBlank),
      isDataValidated: flags.contains(.dataValidated), segmentation: segmentation, hash: hash)
  }
}

extension PacketOffload {
  /// What the flags and extra infos of either ring say, with the headers completed in place.
  init(
    completing frame: PrivateBytes, headers known: PacketHeaders? = nil, isChecksumBlank: Bool,
    isDataValidated: Bool, segmentation: NetExtraInfo?, hash: NetHash?
  ) throws(PacketRefusal) {
    self.init()
    guard frame.count >= NetLimits.ethernetHeaderByteCount else { throw .truncatedHeaders }
    let headers = known ?? PacketHeaders(frame)
    self.hash = hash
    headerByteCount = UInt16(truncatingIfNeeded: headers.headerByteCount)
    if let segmentation {
      try cut(
        frame, headers, as: segmentation.segmentationType, size: segmentation.segmentSize)
    } else if isChecksumBlank {
      guard headers.hasChecksum else { throw .checksumWithoutProtocol }
      makePartial(frame, headers)
    } else if isDataValidated {
      checksum = .validated
    }
  }

  /// Has the frame cut into segments, if it is longer than one. Its checksum becomes partial.
  mutating func cut(
    _ frame: PrivateBytes, _ headers: PacketHeaders, as type: NetSegmentationType, size: UInt16
  ) throws(PacketRefusal) {
    // 0xFFFF is GSO_BY_FRAGS to Linux, which refuses it in a virtio-net header.
    guard size > 0, size < 0xFFFF, type == .tcpIPv4 || type == .tcpIPv6 else { throw .badSegmentSize }
    guard headers.canBeSegmented(as: type) else { throw .segmentationMismatch }
    if headers.payloadByteCount > Int(size) {
      // Padding would become payload of the last segment.
      guard headers.packetEnd == headers.frameByteCount else { throw .segmentationMismatch }
      segmentation = type
      segmentSize = size
    }
    makePartial(frame, headers)
  }

  /// Makes the checksum partial, with the sum of the pseudo header in its field.
  ///
  /// Its length is that of the whole packet, also where it is to be segmented: Linux's CHECKSUM_PARTIAL is
  /// "sum from here on", and tcp_gso_segment takes the whole length out of the field before it adds the
  /// segment's. (Windows and network cards leave the length out: their drivers convert.)
  mutating func makePartial(_ frame: PrivateBytes, _ headers: PacketHeaders) {
    let sum = InternetChecksum.pseudoHeaderSum(frame, headers, byteCount: headers.transportByteCount)
    frame.setUInt16(InternetChecksum.folded(sum), at: headers.transportStart + headers.checksumOffset)
    if headers.packetEnd < frame.count {
      frame.zero(from: headers.packetEnd, count: frame.count - headers.packetEnd)
    }
    checksum = .partial
    checksumStart = UInt16(truncatingIfNeeded: headers.transportStart)
    checksumOffset = UInt16(truncatingIfNeeded: headers.checksumOffset)
  }
}
