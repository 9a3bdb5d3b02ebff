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
  /// What a frontend that takes `accepted` needs for this packet.
  public static func action(
    for offload: PacketOffload, frame: PrivateBytes, accepted: NetOffloads
  ) -> ReceiveAction {
    .send(flags: [], segmentation: nil)
  }
}
