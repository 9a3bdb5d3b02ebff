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
  public static func prepare(
    _ frame: PrivateBytes, flags: NetTxFlags, segmentation: NetExtraInfo?, hash: NetHash?
  ) throws(PacketRefusal) -> PacketOffload {
    var offload = PacketOffload()
    offload.hash = hash
    return offload
  }
}
