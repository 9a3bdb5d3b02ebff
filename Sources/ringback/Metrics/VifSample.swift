import Netback
import RingKit

/// What is known of an interface at one moment, for all that tell of it.
struct VifSample {
  var address: DeviceAddress
  var state: String
  var isConnected = false
  /// The guest's address; empty where the toolstack has not said.
  var mac = ""
  /// The TAP by its present name, or "switch:NAME"; empty while there is none.
  var link = ""
  /// The frontend takes no packets, so that the link is down.
  var isStalled = false
  /// Each queue's numbers since the interface last connected.
  var queues: [NetStatistics.Snapshot] = []
}

extension VifSample {
  /// What the daemon knows of an interface.
  init(_ vif: Vif) {
    address = vif.identity
    state = vif.state.map { "\($0)" } ?? "none"
    isConnected = vif.state == .connected
    mac = vif.configuration?.address.map { "\($0)" } ?? ""
    // Messages say "TAP vif1.0"; the rest of the system knows it without the first word.
    link = vif.link.map { String($0.name.trimmingPrefix("TAP ")) } ?? ""
    isStalled = vif.isStalled
    queues = vif.statistics.map(\.snapshot)
  }
}

extension VifNumbers {
  /// Makes a sample readable; `perQueue` tells of each queue too.
  init(_ sample: VifSample, perQueue: Bool) {
    domain = sample.address.domain.rawValue
    vif = sample.address.device
    kind = sample.address.kind
    state = sample.state
    mac = sample.mac
    link = sample.link
    isStalled = sample.isStalled
    queueCount = sample.queues.count
    total = sample.queues.isEmpty ? nil : NetNumbers(sample.queues)
    if perQueue { queues = sample.queues.map { NetNumbers([$0]) } }
  }
}
