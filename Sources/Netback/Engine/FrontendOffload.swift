public import RingKit

/// What a frontend has to do to a packet before its backend can have it.
@frozen
public enum FrontendAction: Equatable, Sendable, BitwiseCopyable {
  /// Nothing: it goes with these flags, and with this extra info if there is one.
  case send(flags: NetTxFlags, segmentation: NetExtraInfo?)
  /// Its checksum is to be completed, then it is judged again.
  case completeChecksum
  /// It is to be cut into segments, and each of them judged.
  case segment
}

/// ``TransmitOffload`` and ``ReceiveOffload`` seen from the frontend, whose flags have bits 0 and 1 swapped.
public enum FrontendOffload {
  /// What a backend that offers `offered` needs for this packet; the rules are those of ``ReceiveOffload``.
  public static func action(
    for offload: PacketOffload, frame: PrivateBytes, offered: NetOffloads
  ) -> FrontendAction {
    switch OffloadVerdict(offload, frame: frame, accepted: offered) {
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

  /// Judges a frame that came from the backend, and completes its headers in place; the rules are those of
  /// ``TransmitOffload/prepare(_:flags:segmentation:hash:)``.
  public static func received(
    _ frame: PrivateBytes, flags: NetRxFlags, segmentation: NetExtraInfo?, hash: NetHash?
  ) throws(PacketRefusal) -> PacketOffload {
    try PacketOffload(
      completing: frame, isChecksumBlank: flags.contains(.checksumBlank),
      isDataValidated: flags.contains(.dataValidated), segmentation: segmentation, hash: hash)
  }
}
