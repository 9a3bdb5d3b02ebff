import RingKit

extension VifNumbers {
  /// Its state as tables show it.
  var shownState: String { isStalled == true ? "Stalled" : state }

  /// The table of `ringback list`.
  static func table(_ interfaces: [VifNumbers]) -> String {
    let header = [
      "DOMAIN", "VIF", "STATE", "QUEUES", "TX PACKETS", "TX BYTES", "RX PACKETS", "RX BYTES", "DROPS", "MAC",
      "LINK",
    ]
    let rows = interfaces.map { interface in
      let numbers = interface.total.map { total in
        [
          total.transmit.packets, total.transmit.bytes, total.receive.packets, total.receive.bytes,
          total.drops,
        ].map(String.init)
      }
      return ["\(interface.domain)", "\(interface.vif)", interface.shownState]
        + [interface.queueCount.map(String.init) ?? "-"] + (numbers ?? Array(repeating: "-", count: 5))
        + [interface.mac.isEmpty ? "-" : interface.mac, interface.link.isEmpty ? "-" : interface.link]
    }
    return TextTable.lines(header, rows, rightAligned: Set([1] + Array(3...8))).joined(separator: "\n")
  }

  /// The paragraph of `ringback stats`.
  var text: String {
    let mac = mac.isEmpty ? "" : ", \(mac)"
    let heading =
      "interface \(vif) of domain \(domain) (\(kind)), \(shownState)\(link.isEmpty ? "" : ", \(link)")\(mac)"
    guard let total else { return heading + "\n  not connected" }
    let count = queueCount ?? 0
    var lines = [
      heading, "  \(count) queue\(count == 1 ? "" : "s"), \(total.parked) packets wait for the guest",
    ]
    lines += total.lines.map { "  \($0)" }
    for (index, queue) in (queues ?? []).enumerated() {
      lines.append("  queue \(index): \(queue.parked) packets wait for the guest")
      lines += queue.lines.map { "    \($0)" }
    }
    return lines.joined(separator: "\n")
  }
}

extension NetNumbers {
  /// All numbers, for people; those of rare things only where they happened.
  fileprivate var lines: [String] {
    let rows = [
      [
        "transmit", "\(transmit.packets)", "\(ByteCount(transmit.bytes))", "\(transmit.slots)",
        "\(transmit.extraInfos)", "\(transmit.errors)", "\(transmit.grantCopies)",
        "\(transmit.stagedCopies)", "\(transmit.notifications)",
      ],
      [
        "receive", "\(receive.packets)", "\(ByteCount(receive.bytes))", "\(receive.slots)",
        "\(receive.extraInfos)", "\(receive.errors)", "\(receive.grantCopies)", "\(receive.stagedCopies)",
        "\(receive.notifications)",
      ],
    ]
    var lines = TextTable.lines(
      ["GUEST", "PACKETS", "BYTES", "SLOTS", "EXTRAS", "ERRORS", "GRANT COPIES", "STAGED", "EVENTS"], rows,
      rightAligned: Set(1...8))
    lines.append(
      "link: took \(link.sentPackets) packets (\(ByteCount(link.sentBytes))), gave \(link.receivedPackets) "
        + "(\(ByteCount(link.receivedBytes)))")
    lines.append("kicks: \(kicks), of which \(spuriousKicks) found nothing")
    let rare: [(UInt64, String)] = [
      (transmit.segmentedPackets, "sent to be segmented"),
      (transmit.directPackets, "copied from guest to guest"), (receive.segments, "segments cut here"),
      (receive.checksums, "checksums completed here"), (transmit.creditWaits, "waits for the rate"),
      (transmit.bufferWaits, "waits for a buffer"), (transmit.multicastChanges, "multicast changes"),
      (transmit.multicastRefusals, "multicast changes refused"),
    ]
    let told = rare.filter { $0.0 > 0 }.map { "\($0.0) \($0.1)" }
    if !told.isEmpty { lines.append(told.joined(separator: ", ")) }
    for (name, drops) in [
      ("transmit", transmit.drops), ("receive", receive.drops), ("link", link.drops),
    ] where !drops.isEmpty {
      let words = drops.sorted { $0.key < $1.key }.map { "\($0.value) \($0.key)" }
      let first = name == "transmit" ? transmit.firstRefusal.map { " (first: \($0))" } ?? "" : ""
      lines.append("dropped, \(name): " + words.joined(separator: ", ") + first)
    }
    return lines
  }
}
