import Foundation
import RingKit
import Testing

@testable import Netback
@testable import ringback

/// What is told of an interface: every name and number of it, in JSON, text, metrics and the live view.
@Suite struct VifReportTests {
  /// An interface of two queues, of which every number is another.
  private func sample() -> VifSample {
    var sample = VifSample(
      address: DeviceAddress(kind: "vif", domain: DomainID(rawValue: 7), device: 3), state: "Connected")
    (sample.isConnected, sample.mac, sample.link) = (true, "00:16:3e:00:00:01", "vif7.3")
    for queue in 1...2 as ClosedRange<UInt64> {
      var snapshot = NetStatistics.Snapshot()
      snapshot.transmit.packets = 100 * queue
      snapshot.transmit.bytes = 101 * queue
      snapshot.transmit.segmentedPackets = 102 * queue
      snapshot.transmit.slots = 103 * queue
      snapshot.transmit.extraInfos = 104 * queue
      snapshot.transmit.errors = 105 * queue
      snapshot.transmit.tooShort = 106 * queue
      snapshot.transmit.overlongSlots = 107 * queue
      snapshot.transmit.tooManySlots = 108 * queue
      snapshot.transmit.failedCopies = 109 * queue
      snapshot.transmit.refused = 110 * queue
      if queue == 2 { snapshot.transmit.firstRefusal = .badSegmentSize }
      snapshot.transmit.multicastChanges = 111 * queue
      snapshot.transmit.multicastRefusals = 112 * queue
      snapshot.transmit.grantCopies = 113 * queue
      snapshot.transmit.stagedCopies = 114 * queue
      snapshot.transmit.creditWaits = 115 * queue
      snapshot.transmit.bufferWaits = 116 * queue
      snapshot.transmit.notifications = 117 * queue
      snapshot.transmit.directPackets = 118 * queue
      snapshot.receive.packets = 200 * queue
      snapshot.receive.bytes = 201 * queue
      snapshot.receive.slots = 202 * queue
      snapshot.receive.extras = 203 * queue
      snapshot.receive.copyErrors = 204 * queue
      snapshot.receive.grantCopies = 205 * queue
      snapshot.receive.stagedCopies = 206 * queue
      snapshot.receive.checksums = 207 * queue
      snapshot.receive.segments = 208 * queue
      snapshot.receive.notifications = 209 * queue
      for reason in RxDropReason.allCases {
        snapshot.receive.drops[reason] = (210 + UInt64(reason.rawValue)) * queue
      }
      snapshot.link.sentPackets = 300 * queue
      snapshot.link.sentBytes = 301 * queue
      snapshot.link.receivedPackets = 302 * queue
      snapshot.link.receivedBytes = 303 * queue
      snapshot.link.droppedDown = 304 * queue
      snapshot.link.droppedErrors = 305 * queue
      snapshot.link.droppedUnwanted = 306 * queue
      snapshot.kicks = 307 * queue
      snapshot.spuriousKicks = 308 * queue
      snapshot.parkedCount = 309 * Int(queue)
      sample.queues.append(snapshot)
    }
    return sample
  }

  /// The JSON as "name.name=value" words, in order.
  private func words(_ report: some Encodable) throws -> String {
    func flatten(_ value: Any, _ name: String) -> [String] {
      guard let object = value as? [String: Any] else { return ["\(name)=\(value)"] }
      return object.flatMap { flatten($1, name.isEmpty ? $0 : "\(name).\($0)") }
    }
    let whole = try JSONSerialization.jsonObject(with: Data(report.json().utf8))
    return flatten(whole, "").sorted().joined(separator: " ")
  }

  @Test func anInterfacesNumbers() throws {
    let numbers = VifNumbers(sample(), perQueue: false)
    #expect(
      try words(numbers) == """
        domain=7 isStalled=0 kind=vif link=vif7.3 mac=00:16:3e:00:00:01 queueCount=2 state=Connected \
        total.kicks=921 total.link.drops.link down=912 total.link.drops.link refused=915 \
        total.link.drops.unwanted=918 total.link.receivedBytes=909 total.link.receivedPackets=906 \
        total.link.sentBytes=903 total.link.sentPackets=900 total.parked=927 total.receive.bytes=603 \
        total.receive.checksums=621 total.receive.drops.backlog full=654 total.receive.drops.bad length=636 \
        total.receive.drops.broken ring=633 total.receive.drops.closing=630 total.receive.drops.expired=657 \
        total.receive.drops.failed copy=651 total.receive.drops.headroom=645 \
        total.receive.drops.offload=648 total.receive.drops.several slots=642 \
        total.receive.drops.stalled=660 total.receive.drops.too many slots=639 total.receive.errors=612 \
        total.receive.extraInfos=609 total.receive.grantCopies=615 total.receive.notifications=627 \
        total.receive.packets=600 total.receive.segments=624 total.receive.slots=606 \
        total.receive.stagedCopies=618 total.spuriousKicks=924 total.transmit.bufferWaits=348 \
        total.transmit.bytes=303 total.transmit.creditWaits=345 total.transmit.directPackets=354 \
        total.transmit.drops.bad headers=330 \
        total.transmit.drops.failed copy=327 total.transmit.drops.overlong slot=321 \
        total.transmit.drops.too many slots=324 total.transmit.drops.too short=318 total.transmit.errors=315 \
        total.transmit.extraInfos=312 total.transmit.firstRefusal=bad segment size \
        total.transmit.grantCopies=339 total.transmit.multicastChanges=333 \
        total.transmit.multicastRefusals=336 total.transmit.notifications=351 total.transmit.packets=300 \
        total.transmit.segmentedPackets=306 total.transmit.slots=309 total.transmit.stagedCopies=342 vif=3
        """)
    let whole = VifNumbers(sample(), perQueue: true)
    #expect(
      whole.queues?.map(\.transmit.packets) == [100, 200] && whole.queues?[1].link.drops["unwanted"] == 612)
    #expect(try JSONDecoder().decode(VifNumbers.self, from: Data(whole.json().utf8)) == whole)
  }

  @Test func whatIsNotConnectedHasNoNumbers() throws {
    var sample = sample()
    (sample.queues, sample.state, sample.mac) = ([], "InitWait", "")
    let numbers = VifNumbers(sample, perQueue: false)
    #expect(
      try words(numbers) == "domain=7 isStalled=0 kind=vif link=vif7.3 mac= queueCount=0 state=InitWait vif=3"
    )
    #expect(numbers.text == "interface 3 of domain 7 (vif), InitWait, vif7.3\n  not connected")
    let row = VifNumbers.table([numbers]).split(separator: "\n")[1].split(whereSeparator: \.isWhitespace)
    #expect(row == ["7", "3", "InitWait", "0", "-", "-", "-", "-", "-", "-", "vif7.3"])
  }

  @Test func theTextTellsAllOfIt() {
    let text = VifNumbers(sample(), perQueue: true).text
    for words in [
      "interface 3 of domain 7 (vif), Connected, vif7.3, 00:16:3e:00:00:01", "2 queues, 927 packets wait",
      "queue 1: 618 packets wait", "kicks: 921, of which 924 found nothing",
      "dropped, transmit: 330 bad headers, 327 failed copy, 321 overlong slot, 324 too many slots, 318 too short "
        + "(first: bad segment size)", "660 stalled", "dropped, link: 912 link down",
      "306 sent to be segmented, 354 copied from guest to guest, 624 segments cut here, 621 checksums completed "
        + "here, 345 waits for the rate, 348 waits for a buffer, 333 multicast changes, 336 multicast changes refused",
      "took 900 packets (903 bytes), gave 906 (909 bytes)",
    ] { #expect(text.contains(words), "\(text)") }
    for number in ["300", "309", "312", "315", "339", "342", "351", "600", "606", "609", "612", "615", "618"]
    {
      #expect(text.contains(" \(number)"), "\(number): \(text)")
    }
    var stalled = sample()
    stalled.isStalled = true
    #expect(VifNumbers(stalled, perQueue: false).text.contains(", Stalled,"))
  }

  @Test func theMetricsAreOpenMetrics() throws {
    let scrape = try MetricsScrape(MetricsText.write([], interfaces: [sample()], daemon: []))
    func value(_ name: String, _ labels: [String: String] = [:]) -> Double? {
      scrape.value("ringback_vif_\(name)", labels.merging(["domain": "7", "vif": "3"]) { $1 })
    }
    #expect(value("info", ["mac": "00:16:3e:00:00:01", "link": "vif7.3", "state": "Connected"]) == 1)
    #expect(value("connected") == 1 && value("stalled") == 0 && value("queues") == 2)
    #expect(value("parked_packets") == 927)
    for (name, transmit, receive) in [
      ("packets", 300.0, 600.0), ("bytes", 303, 603), ("slots", 309, 606), ("extra_infos", 312, 609),
      ("errors", 315, 612), ("grant_copies", 339, 615), ("staged_copies", 342, 618),
      ("notifications", 351, 627), ("link_packets", 900, 906), ("link_bytes", 903, 909),
    ] {
      #expect(value("\(name)_total", ["direction": "transmit"]) == transmit, "\(name)")
      #expect(value("\(name)_total", ["direction": "receive"]) == receive, "\(name)")
    }
    #expect(value("drops_total", ["direction": "transmit", "reason": "too many slots"]) == 324)
    #expect(value("drops_total", ["direction": "receive", "reason": "too many slots"]) == 639)
    #expect(value("drops_total", ["reason": "backlog full"]) == 654)
    #expect(value("link_drops_total", ["reason": "unwanted"]) == 918)
    #expect(value("multicast_changes_total", ["result": "refused"]) == 336)
    #expect(value("waits_total", ["reason": "rate"]) == 345)
    #expect(value("waits_total", ["reason": "buffer"]) == 348)
    for (name, number) in [
      ("kicks", 921.0), ("spurious_kicks", 924), ("segmented_packets", 306), ("direct_packets", 354),
      ("segments", 624),
      ("checksums", 621),
    ] { #expect(value("\(name)_total") == number, "\(name)") }
    for family in scrape.families.values { #expect(family.help?.isEmpty == false, "\(family.name)") }
    #expect(try MetricsScrape(MetricsText.write([], daemon: [])).families.count == scrape.families.count)
  }

  // MARK: The live view

  private func numbers(_ vif: UInt32, packets: UInt64, bytes: UInt64 = 0) -> VifNumbers {
    var total = NetNumbers()
    (total.transmit.packets, total.transmit.slots) = (packets, packets)
    total.receive.bytes = bytes
    total.link.drops["unwanted"] = UInt64(vif)
    return VifNumbers(
      domain: 1, vif: vif, kind: "vif", state: "Connected", mac: "", link: "vif1.\(vif)", queueCount: 1,
      total: total)
  }

  @Test func ratesAreDifferences() {
    let (before, after) = (numbers(1, packets: 100), numbers(1, packets: 300, bytes: 8_000_000))
    let rate = VifRate(after, since: before, seconds: 2)
    #expect(rate.transmittedPacketsPerSecond == 100 && rate.receivedPacketsPerSecond == 0)
    #expect(rate.receivedBytesPerSecond == 4_000_000 && rate.bytesPerSecond == 4_000_000)
    #expect(rate.drops == 1)
    // After a reconnection it has counted from zero; nothing is known of one that is seen for the first time.
    #expect(VifRate(before, since: after, seconds: 1).packetsPerSecond == 100)
    #expect(VifRate(after, since: nil, seconds: 1).packetsPerSecond == 0)
  }

  @Test func theTableFitsTheTerminal() {
    let rates = (0..<4 as Range<UInt32>).map {
      VifRate(numbers($0, packets: UInt64($0) * 10), since: numbers($0, packets: 0), seconds: 1)
    }
    let view = TopView(order: .requests)
    let free = view.lines([], rates)
    #expect(free[0] == "4 interfaces, 4 connected, 60 packets/s, 0.0 MB/s")
    #expect(free[2].hasPrefix("DOM  VIF") && free[3].contains("vif1.3") && free.count == 7)
    #expect(TopView(order: .disk).lines([], rates)[3].contains("vif1.0"))
    #expect(TopView(order: .errors).lines([], rates)[3].contains("vif1.3"))
    for columns in [10, 40, 60, 80, 120] {
      for rows in [1, 3, 5, 24] {
        let lines = view.lines([], rates, columns: columns, rows: rows)
        #expect(lines.count <= rows && lines.allSatisfy { $0.count <= columns }, "\(columns) by \(rows)")
      }
    }
    let narrow = view.lines([], rates, columns: 60, rows: 24)
    for word in ["VIF", "TX PKT/S", "RX PKT/S", "DROPS"] { #expect(narrow[2].contains(word), "\(narrow[2])") }
    // Disks stand first.
    let disk = DiskNumbers(
      DiskHeader(
        domain: 1, vdev: 51712, name: "xvda", kind: "vbd3", state: "Connected", image: "", mode: "w"),
      DiskDetails())
    let both = view.lines([DiskRate(disk, since: nil, seconds: 1)], rates)
    #expect(both[3].contains("xvda") && both[4].isEmpty && both[5] == free[0])
    var nasty = numbers(0, packets: 0)
    nasty.link = "\u{1B}[2J"
    #expect(!view.lines([], [VifRate(nasty, since: nil, seconds: 1)]).joined().contains("\u{1B}"))
  }
}
