import Netback
import RingKit

/// What is told of an interface: by the daemon on its control socket, by `ringback list` and `ringback stats`.
/// Numbers are those since it last connected.
///
/// Directions are the guest's, as in netif.h: it transmits and receives.
struct VifNumbers: Codable, Equatable {
  var domain: UInt16
  var vif: UInt32
  var kind: String
  var state: String
  /// The guest's address; empty where the toolstack has not said.
  var mac: String
  /// The TAP's name, or "switch:NAME".
  var link: String
  /// What was written of it for the administrator; only `ringback list` looks.
  var error: String?
  /// Absent when no daemon serves it, as are the numbers below.
  var isStalled: Bool?
  var queueCount: Int?
  /// All queues together; absent while it is not connected.
  var total: NetNumbers?
  /// Each of them, when asked for.
  var queues: [NetNumbers]?
}

/// The numbers of one queue of an interface, or of several together.
struct NetNumbers: Codable, Equatable {
  var transmit = Transmit()
  var receive = Receive()
  var link = Link()
  /// Events from the guest, and of these those that found nothing to do.
  var kicks: UInt64 = 0
  var spuriousKicks: UInt64 = 0
  /// Packets that wait for the guest's receive buffers.
  var parked = 0

  /// What the guest sends.
  struct Transmit: Codable, Equatable {
    var packets: UInt64 = 0
    var bytes: UInt64 = 0
    /// Packets that are to be cut into segments.
    var segmentedPackets: UInt64 = 0
    /// Packets that were copied from this guest's pages to another's, at a switch.
    var directPackets: UInt64 = 0
    /// Slots answered, extra infos among them, and of all these those answered with an error.
    var slots: UInt64 = 0
    var extraInfos: UInt64 = 0
    var errors: UInt64 = 0
    /// Packets by the reason for which they went nowhere, those that came.
    var drops: [String: UInt64] = [:]
    /// What was wrong with the headers of the first packet that was refused for them.
    var firstRefusal: String?
    var multicastChanges: UInt64 = 0
    var multicastRefusals: UInt64 = 0
    /// Slots moved by grant copy, and out of pages that the guest keeps granted.
    var grantCopies: UInt64 = 0
    var stagedCopies: UInt64 = 0
    /// Times that a packet waited for the interface's rate, and for a buffer.
    var creditWaits: UInt64 = 0
    var bufferWaits: UInt64 = 0
    /// Events sent to the guest.
    var notifications: UInt64 = 0
  }

  /// What the guest is sent.
  struct Receive: Codable, Equatable {
    var packets: UInt64 = 0
    var bytes: UInt64 = 0
    /// Slots answered, extra infos among them, and those answered with an error because a copy failed.
    var slots: UInt64 = 0
    var extraInfos: UInt64 = 0
    var errors: UInt64 = 0
    /// Packets by the reason for which they did not reach the guest, those that came.
    var drops: [String: UInt64] = [:]
    /// Slots moved by grant copy, and into pages that the guest keeps granted.
    var grantCopies: UInt64 = 0
    var stagedCopies: UInt64 = 0
    /// Checksums completed, and segments cut, for a guest that takes neither.
    var checksums: UInt64 = 0
    var segments: UInt64 = 0
    /// Events sent to the guest.
    var notifications: UInt64 = 0
  }

  /// What became of frames at the TAP or switch.
  struct Link: Codable, Equatable {
    var sentPackets: UInt64 = 0
    var sentBytes: UInt64 = 0
    var receivedPackets: UInt64 = 0
    var receivedBytes: UInt64 = 0
    /// Frames by the reason for which they went no further, those that came.
    var drops: [String: UInt64] = [:]
  }

  /// Packets lost in either direction, whoever was at fault.
  var drops: UInt64 {
    [transmit.drops, receive.drops, link.drops].reduce(0) { $0 + $1.values.reduce(0, +) }
  }

  /// Slots answered with an error.
  var errors: UInt64 { transmit.errors + receive.errors }

  init() {}

  /// Makes readable what a queue, or several, have counted.
  init(_ snapshots: [NetStatistics.Snapshot]) {
    func sum(_ number: KeyPath<NetStatistics.Snapshot, UInt64>) -> UInt64 {
      snapshots.reduce(0) { $0 + $1[keyPath: number] }
    }
    func some(_ reasons: [NetDrop]) -> [String: UInt64] {
      Dictionary(
        uniqueKeysWithValues: reasons.map { drop in
          (drop.reason, snapshots.reduce(0) { $0 + drop.count($1) })
        }
      ).filter { $0.value > 0 }
    }
    transmit = Transmit(
      packets: sum(\.transmit.packets), bytes: sum(\.transmit.bytes),
      segmentedPackets: sum(\.transmit.segmentedPackets), directPackets: sum(\.transmit.directPackets),
      slots: sum(\.transmit.slots),
      extraInfos: sum(\.transmit.extraInfos), errors: sum(\.transmit.errors),
      drops: some(NetDrop.transmit),
      firstRefusal: snapshots.lazy.compactMap(\.transmit.firstRefusal).first?.words,
      multicastChanges: sum(\.transmit.multicastChanges),
      multicastRefusals: sum(\.transmit.multicastRefusals), grantCopies: sum(\.transmit.grantCopies),
      stagedCopies: sum(\.transmit.stagedCopies), creditWaits: sum(\.transmit.creditWaits),
      bufferWaits: sum(\.transmit.bufferWaits), notifications: sum(\.transmit.notifications))
    receive = Receive(
      packets: sum(\.receive.packets), bytes: sum(\.receive.bytes), slots: sum(\.receive.slots),
      extraInfos: sum(\.receive.extras), errors: sum(\.receive.copyErrors), drops: some(NetDrop.receive),
      grantCopies: sum(\.receive.grantCopies), stagedCopies: sum(\.receive.stagedCopies),
      checksums: sum(\.receive.checksums), segments: sum(\.receive.segments),
      notifications: sum(\.receive.notifications))
    link = Link(
      sentPackets: sum(\.link.sentPackets), sentBytes: sum(\.link.sentBytes),
      receivedPackets: sum(\.link.receivedPackets), receivedBytes: sum(\.link.receivedBytes),
      drops: some(NetDrop.link))
    kicks = sum(\.kicks)
    spuriousKicks = sum(\.spuriousKicks)
    parked = snapshots.reduce(0) { $0 + $1.parkedCount }
  }
}

/// A reason for which packets are lost, by its name in answers and metrics.
struct NetDrop: Sendable {
  let reason: String
  let count: @Sendable (NetStatistics.Snapshot) -> UInt64

  /// Of packets that the guest sent: answered with an error.
  static let transmit: [NetDrop] = [
    NetDrop(reason: "too short") { $0.transmit.tooShort },
    NetDrop(reason: "overlong slot") { $0.transmit.overlongSlots },
    NetDrop(reason: "too many slots") { $0.transmit.tooManySlots },
    NetDrop(reason: "failed copy") { $0.transmit.failedCopies },
    NetDrop(reason: "bad headers") { $0.transmit.refused },
  ]

  /// Of packets for the guest.
  static let receive: [NetDrop] = RxDropReason.allCases.map { reason in
    NetDrop(reason: reason.words) { $0.receive.drops[reason] }
  }

  /// Of frames at the link.
  static let link: [NetDrop] = [
    NetDrop(reason: "link down") { $0.link.droppedDown },
    NetDrop(reason: "link refused") { $0.link.droppedErrors },
    NetDrop(reason: "unwanted") { $0.link.droppedUnwanted },
    NetDrop(reason: "flood limit") { $0.link.droppedFlood },
  ]
}

extension RxDropReason {
  /// Its name in answers and metrics.
  var words: String {
    switch self {
    case .closing: "closing"
    case .brokenRing: "broken ring"
    case .badLength: "bad length"
    case .tooManySlots: "too many slots"
    case .severalSlots: "several slots"
    case .headroom: "headroom"
    case .offload: "offload"
    case .copyFailed: "failed copy"
    case .backlogFull: "backlog full"
    case .expired: "expired"
    case .stalled: "stalled"
    }
  }
}

extension PacketRefusal {
  /// Its name in answers.
  var words: String {
    switch self {
    case .truncatedHeaders: "truncated headers"
    case .checksumWithoutProtocol: "checksum without a protocol"
    case .segmentationMismatch: "segmentation of another protocol"
    case .badSegmentSize: "bad segment size"
    }
  }
}
