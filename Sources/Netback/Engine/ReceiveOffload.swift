public import RingKit

/// What is to be done to a packet before its frontend can have it.
@frozen
public enum ReceiveAction: Equatable, Sendable, BitwiseCopyable {
  /// Nothing: it goes with these flags, and with this extra info if there is one.
  case send(flags: NetRxFlags, segmentation: NetExtraInfo?)
  /// Its checksum is to be completed by us, then it is judged again.
  case completeChecksum
  /// It is to be cut into segments by us, and each of them judged.
  case segment
}

/// From what a link tells of a packet to netif's flags and extra infos (net.md 3.5, backend to guest).
public enum ReceiveOffload {
  /// What a frontend that takes `accepted` needs for this packet. more_data and extra_info are for the ring's
  /// engine to add.
  ///
  /// - A partial checksum goes as csum_blank only where the frontend, which gets no offset with it, finds the
  ///   same field by parsing: TCP or UDP of the packet itself, over a protocol it takes. The rest, as of
  ///   tunnels, is summed by us (``SoftwareChecksum``).
  /// - Segmentation goes to a frontend that takes it for that protocol, and several slots, and blank checksums;
  ///   the packet has csum_blank and data_validated then (Windows' xenvif needs both). All else is cut here
  ///   (``Segmenter``), so that a packet which waited in a link while the frontend changed does no harm.
  public static func action(
    for offload: PacketOffload, frame: PrivateBytes, accepted: NetOffloads
  ) -> ReceiveAction {
    action(for: offload, OffloadVerdict(offload, frame: frame, accepted: accepted))
  }

  /// The same for a frame of which the headers are known.
  public static func action(
    for offload: PacketOffload, headers: PacketHeaders, accepted: NetOffloads
  ) -> ReceiveAction {
    action(for: offload, OffloadVerdict(offload, headers: headers, accepted: accepted))
  }

  private static func action(for offload: PacketOffload, _ verdict: OffloadVerdict) -> ReceiveAction {
    switch verdict {
    case .complete: .completeChecksum
    case .cut: .segment
    case .asItIs(let segmentation):
      switch offload.checksum {
      case .unknown: .send(flags: [], segmentation: nil)
      case .validated: .send(flags: .dataValidated, segmentation: nil)
      case .partial: .send(flags: [.checksumBlank, .dataValidated], segmentation: segmentation)
      }
    }
  }
}

/// How a packet can cross a ring whose other end takes less than every offload; the same both ways.
enum OffloadVerdict {
  /// With its state told by flags, and by an extra info if there is one.
  case asItIs(NetExtraInfo?)
  /// After its checksum has been completed.
  case complete
  /// In segments.
  case cut

  init(_ offload: PacketOffload, frame: PrivateBytes, accepted: NetOffloads) {
    guard offload.checksum == .partial || offload.segmentation != .none else {
      self = .asItIs(nil)
      return
    }
    self.init(offload, headers: PacketHeaders(frame), accepted: accepted)
  }

  init(_ offload: PacketOffload, headers: PacketHeaders, accepted: NetOffloads) {
    guard offload.checksum == .partial || offload.segmentation != .none else {
      self = .asItIs(nil)
      return
    }
    let isPartial =
      offload.checksum == .partial && headers.hasChecksum
      && Int(offload.checksumStart) == headers.transportStart
      && Int(offload.checksumOffset) == headers.checksumOffset
    let isIPv4 = headers.network == .ipv4
    let takesChecksum = isPartial && accepted.contains(isIPv4 ? .checksumIPv4 : .checksumIPv6)
    guard offload.segmentation != .none else {
      self = takesChecksum ? .asItIs(nil) : .complete
      return
    }
    let needed: NetOffloads = [.scatterGather, isIPv4 ? .segmentationIPv4 : .segmentationIPv6]
    guard
      takesChecksum, accepted.isSuperset(of: needed), headers.canBeSegmented(as: offload.segmentation),
      offload.segmentSize > 0, headers.payloadByteCount > Int(offload.segmentSize),
      headers.packetEnd == headers.frameByteCount
    else {
      self = .cut
      return
    }
    self = .asItIs(NetExtraInfo(segmentation: offload.segmentation, size: offload.segmentSize))
  }
}
