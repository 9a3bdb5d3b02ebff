import Netback
import RingKit

/// The interfaces' families. Directions are the guest's.
extension MetricsText {
  private typealias Interface = (sample: VifSample, labels: String)
  private typealias Number = (NetStatistics.Snapshot) -> UInt64

  mutating func writeInterfaces(_ samples: [VifSample]) {
    let interfaces: [Interface] = samples.map {
      ($0, Self.labels([("domain", "\($0.address.domain)"), ("vif", "\($0.address.device)")]))
    }
    writeState(of: interfaces)
    writePackets(of: interfaces)
    writeLinks(of: interfaces)
  }

  private mutating func writeState(of interfaces: [Interface]) {
    family("ringback_vif_info", .gauge, help: "Where the interface's packets go.") { writer in
      for (sample, labels) in interfaces {
        let more = Self.labels([("mac", sample.mac), ("link", sample.link), ("state", sample.state)])
        writer.sample("", labels: "\(labels),\(more)", value: "1")
      }
    }
    let gauges: [(String, String, (VifSample) -> Int)] = [
      ("connected", "Whether the guest is connected to the interface.", { $0.isConnected ? 1 : 0 }),
      ("stalled", "Whether the guest takes no packets, so that the link is down.", { $0.isStalled ? 1 : 0 }),
      ("queues", "Queues of the connection.", { $0.queues.count }),
      (
        "parked_packets", "Packets that wait for the guest's receive buffers.",
        { $0.queues.reduce(0) { $0 + $1.parkedCount } }
      ),
    ]
    for (name, help, value) in gauges {
      family("ringback_vif_\(name)", .gauge, help: help) { writer in
        for (sample, labels) in interfaces {
          writer.sample("", labels: labels, value: "\(value(sample))")
        }
      }
    }
  }

  private mutating func writePackets(of interfaces: [Interface]) {
    counter(
      "packets", "Packets that the guest sent or was sent, whole.", of: interfaces, "direction",
      [
        ("transmit", { $0.transmit.packets }), ("receive", { $0.receive.packets }),
      ])
    counter(
      "bytes", "Bytes of these packets.", unit: "bytes", of: interfaces, "direction",
      [
        ("transmit", { $0.transmit.bytes }), ("receive", { $0.receive.bytes }),
      ])
    counter(
      "slots", "Ring slots answered.", of: interfaces, "direction",
      [
        ("transmit", { $0.transmit.slots }), ("receive", { $0.receive.slots }),
      ])
    counter(
      "extra_infos", "Ring slots of extra infos answered.", of: interfaces, "direction",
      [
        ("transmit", { $0.transmit.extraInfos }), ("receive", { $0.receive.extras }),
      ])
    counter(
      "errors", "Ring slots answered with an error.", of: interfaces, "direction",
      [
        ("transmit", { $0.transmit.errors }), ("receive", { $0.receive.copyErrors }),
      ])
    family("ringback_vif_drops", .counter, help: "Packets lost between guest and backend, by reason.") {
      writer in
      for interface in interfaces {
        for (direction, drops) in [("transmit", NetDrop.transmit), ("receive", NetDrop.receive)] {
          for drop in drops {
            writer.sum(drop.count, of: interface, [("direction", direction), ("reason", drop.reason)])
          }
        }
      }
    }
    counter(
      "grant_copies", "Slots moved by grant copy.", of: interfaces, "direction",
      [
        ("transmit", { $0.transmit.grantCopies }), ("receive", { $0.receive.grantCopies }),
      ])
    counter(
      "staged_copies", "Slots moved by way of pages that the guest keeps granted.", of: interfaces,
      "direction",
      [("transmit", { $0.transmit.stagedCopies }), ("receive", { $0.receive.stagedCopies })])
    counter(
      "notifications", "Events sent to the guest.", of: interfaces, "direction",
      [
        ("transmit", { $0.transmit.notifications }), ("receive", { $0.receive.notifications }),
      ])
    counter("kicks", "Events received from the guest.", of: interfaces) { $0.kicks }
    counter("spurious_kicks", "Events that found nothing to do.", of: interfaces) { $0.spuriousKicks }
    counter("segmented_packets", "Packets that the guest sent to be segmented.", of: interfaces) {
      $0.transmit.segmentedPackets
    }
    counter("direct_packets", "Packets copied from the guest to another at a switch.", of: interfaces) {
      $0.transmit.directPackets
    }
    counter("segments", "Segments cut for a guest that does not take the whole.", of: interfaces) {
      $0.receive.segments
    }
    counter("checksums", "Checksums completed for a guest that does not do it.", of: interfaces) {
      $0.receive.checksums
    }
    counter(
      "multicast_changes", "Changes of the multicast filter, by result.", of: interfaces, "result",
      [
        ("okay", { $0.transmit.multicastChanges }), ("refused", { $0.transmit.multicastRefusals }),
      ])
    counter(
      "waits", "Times that a packet of the guest's waited, by what for.", of: interfaces, "reason",
      [
        ("rate", { $0.transmit.creditWaits }), ("buffer", { $0.transmit.bufferWaits }),
      ])
  }

  private mutating func writeLinks(of interfaces: [Interface]) {
    counter(
      "link_packets", "Frames that the TAP or switch took or gave.", of: interfaces, "direction",
      [
        ("transmit", { $0.link.sentPackets }), ("receive", { $0.link.receivedPackets }),
      ])
    counter(
      "link_bytes", "Bytes of these frames.", unit: "bytes", of: interfaces, "direction",
      [
        ("transmit", { $0.link.sentBytes }), ("receive", { $0.link.receivedBytes }),
      ])
    counter(
      "link_drops", "Frames lost at the TAP or switch, by reason.", of: interfaces, "reason",
      NetDrop.link.map { ($0.reason, $0.count) })
  }

  private mutating func counter(
    _ name: String, _ help: String, of interfaces: [Interface], _ number: Number
  ) {
    family("ringback_vif_\(name)", .counter, help: help) { writer in
      for interface in interfaces { writer.sum(number, of: interface, []) }
    }
  }

  private mutating func counter(
    _ name: String, _ help: String, unit: String? = nil, of interfaces: [Interface], _ label: String,
    _ numbers: [(value: String, number: Number)]
  ) {
    family("ringback_vif_\(name)", .counter, unit: unit, help: help) { writer in
      for interface in interfaces {
        for (value, number) in numbers { writer.sum(number, of: interface, [(label, value)]) }
      }
    }
  }
}

extension MetricsText.Writer {
  fileprivate mutating func sum(
    _ number: (NetStatistics.Snapshot) -> UInt64, of interface: (sample: VifSample, labels: String),
    _ more: [(label: String, value: String)]
  ) {
    let labels = more.isEmpty ? interface.labels : "\(interface.labels),\(MetricsText.labels(more))"
    sample("_total", labels: labels, value: "\(interface.sample.queues.reduce(0) { $0 + number($1) })")
  }
}
