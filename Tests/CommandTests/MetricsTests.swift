import Foundation
import RingKit
import Testing

@testable import Blkback
@testable import ringback

@Suite struct MetricsTests {
  private func sample(image: String = "raw:/srv/disk.img") -> DiskSample {
    var sample = DiskSample(
      address: DeviceAddress(kind: "vbd3", domain: DomainID(rawValue: 7), device: 51712), state: "Connected")
    sample.image = image
    sample.isConnected = true
    sample.byteCount = 1 << 30
    sample.slotCount = 32
    var tally = BlockTally()
    for microseconds in 1...1000 as ClosedRange<UInt64> {
      tally.note(
        BlockOutcome(kind: .read, status: .okay, sectorCount: 8, nanoseconds: microseconds * 1000))
    }
    sample.queues = [(BlockStatistics.Snapshot(), tally), (BlockStatistics.Snapshot(), tally)]
    return sample
  }

  @Test func theTextIsOpenMetrics() throws {
    let scrape = try MetricsScrape(MetricsText.write([sample()], daemon: [("version", "1")]))
    #expect(scrape.value("ringback_disk_size_bytes", ["disk": "xvda", "domain": "7"]) == 1_073_741_824)
    #expect(scrape.value("ringback_disk_queue_slots") == 64)
    #expect(scrape.value("ringback_disk_requests_total", ["request": "read", "result": "okay"]) == 2000)
    #expect(scrape.value("ringback_disk_bytes_total", ["request": "read"]) == 8_192_000)
    let seconds = "ringback_disk_request_duration_seconds"
    // 1...8 us are below 8.192 us, 1...65 us below 65.536 us.
    #expect(scrape.value("\(seconds)_bucket", ["request": "read", "le": "8.192e-06"]) == 16)
    #expect(scrape.value("\(seconds)_bucket", ["request": "read", "le": "6.5536e-05"]) == 130)
    #expect(scrape.value("\(seconds)_sum", ["request": "read"]) == 1.001)
    #expect(scrape.families["ringback_disk_request_duration_seconds"]?.unit == "seconds")
    for family in scrape.families.values { #expect(family.help?.isEmpty == false, "\(family.name)") }
    #expect(try MetricsScrape(MetricsText.write([], daemon: [])).families.count == scrape.families.count)
  }

  @Test func labelsAreEscaped() throws {
    let nasty = "raw:/a\"b\\c\nd,e}f"
    let scrape = try MetricsScrape(MetricsText.write([sample(image: nasty)], daemon: []))
    #expect(scrape.value("ringback_disk_info", ["image": "raw:/a\\\"b\\\\c\\nd,e}f"]) == 1)
  }

  /// The reader is strict: each of these is refused.
  @Test(arguments: [
    "ringback_x 1\n", "# EOF", "# TYPE a gauge\na 1\n\n# EOF\n", "# TYPE a gauge\na{b=\"c} 1\n# EOF\n",
    "# TYPE a counter\na 1\n# EOF\n", "# TYPE a counter\na_total -1\n# EOF\n",
    "# TYPE a gauge\na 1\na 1\n# EOF\n", "# TYPE a gauge\n# UNIT a bytes\n# EOF\n",
    "# TYPE a gauge\na 1\n# TYPE b gauge\nb 1\n# TYPE a gauge\n# EOF\n",
    "# TYPE a histogram\na_bucket{le=\"1\"} 2\na_bucket{le=\"+Inf\"} 1\na_sum 1\na_count 1\n# EOF\n",
    "# TYPE a histogram\na_bucket{le=\"1\"} 2\na_sum 1\na_count 2\n# EOF\n",
  ])
  func malformedTextIsRefused(text: String) {
    #expect(throws: MetricsScrape.Malformed.self) { try MetricsScrape(text) }
  }

  /// A request's head, and the status of its answer; nil while more is awaited.
  static let requests: [(head: String, status: String?)] = [
    ("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "200"), ("GET /metrics?x=1 HTTP/1.0\r\n\r\n", "200"),
    ("HEAD /metrics HTTP/1.1\r\n\r\n", "200"), ("GET / HTTP/1.1\r\n\r\n", "404"),
    ("POST /metrics HTTP/1.1\r\n\r\n", "405"), ("GET /metrics\r\n\r\n", "400"),
    ("GET  /metrics HTTP/1.1\r\n\r\n", "400"), ("\r\n\r\n", "400"), ("GET /metrics HTTP/2.0\r\n\r\n", "400"),
    ("GET /metrics HTTP/1.1\r\nHost: x\r\n", nil), ("", nil),
    (String(repeating: "a", count: MetricsServer.headLimit + 1), "431"),
  ]

  @Test(arguments: requests.indices)
  func httpIsAnsweredAsItShould(index: Int) {
    let (head, status) = Self.requests[index]
    let answer = MetricsServer.answer(to: Array(head.utf8)) { "# EOF\n" }
    #expect(answer?.split(separator: " ").dropFirst().first.map(String.init) == status, "\(head)")
    if let answer, status == "200" {
      #expect(answer.contains("Content-Type: application/openmetrics-text; version=1.0.0"))
      #expect(answer.contains("Content-Length: 6\r\n"))
      #expect(answer.hasSuffix("\r\n\r\n# EOF\n") != head.hasPrefix("HEAD"))
    }
  }

  @Test func addressesAreThoseOfThisMachine() {
    #expect(MetricsAddress("unix:/run/x") == .local(path: "/run/x"))
    #expect(MetricsAddress("127.0.0.1:9400") == .loopback(port: 9400))
    #expect(MetricsAddress("localhost:1") == .loopback(port: 1))
    for wrong in [
      "", "9400", "0.0.0.0:9400", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:+1", "unix:", "unix:x",
      "unix:/" + String(repeating: "x", count: 107),
    ] { #expect(MetricsAddress(wrong) == nil, "\(wrong)") }
  }
}
