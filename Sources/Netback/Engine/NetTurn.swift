public import RingKit

/// How a turn of one ring of an interface ended: of one direction of a queue, or of the control ring.
@frozen
public enum NetTurn: Equatable, Sendable {
  /// There is more to do: come back after others had their turn.
  case more
  /// Nothing to do until an event, or until the host has what a packet or a request waits for.
  case idle
  /// The frontend broke the protocol's rules; its ring is never touched again.
  case broken(NetFault)
}

/// What a frontend did that breaks one of its rings for good, as opposed to a packet that is answered with an
/// error. The interface recovers when the frontend reconnects.
@frozen
public enum NetFault: Error, Equatable, Sendable, CustomStringConvertible {
  /// The ring's counters contradict each other.
  case ring(RingError)
  /// A request says that the packet goes on (NETTXF_more_data), and there is no further one: packets are
  /// published whole (netif.h, "Packet framing"). The value is the packet's data slots so far.
  case unfinishedPacket(slots: Int)
  /// An extra info was announced (NETTXF_extra_info, XEN_NETIF_EXTRA_FLAG_MORE), and its slot is missing.
  case missingExtraInfo
  /// An extra info's type does not exist (netif.h, XEN_NETIF_EXTRA_TYPE_*).
  case extraInfoType(UInt8)
  /// Data lie beyond the granted page.
  case crossesPage(offset: Int, byteCount: Int)
  /// A packet has more data slots than a frontend can have sent by mistake.
  case tooManySlots(Int)
  /// A packet is to be cut into pieces of no bytes (netif.h, gso.size).
  case noSegmentSize
  /// A packet is to be segmented as a protocol that does not exist (netif.h, XEN_NETIF_GSO_TYPE_*).
  case segmentationType(UInt8)

  /// What happened, and what ends it.
  public var description: String {
    let ending = "; the ring is broken until the frontend reconnects"
    return switch self {
    case .ring(let error): error.description
    case .unfinishedPacket(let slots):
      "the frontend published only the first \(slots) data slots of a packet" + ending
    case .missingExtraInfo: "the frontend announced an extra info and did not publish it" + ending
    case .extraInfoType(let type):
      "the frontend sent an extra info of type \(type), which does not exist" + ending
    case .crossesPage(let offset, let byteCount):
      "the frontend's slot of \(byteCount) bytes at offset \(offset) ends beyond its page" + ending
    case .tooManySlots(let count):
      "a packet of the frontend's goes on beyond \(count - 1) data slots" + ending
    case .noSegmentSize: "the frontend asked for segments of no bytes" + ending
    case .segmentationType(let type):
      "the frontend asked for segmentation of type \(type), which does not exist" + ending
    }
  }
}
