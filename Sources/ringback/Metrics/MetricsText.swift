import Blkback
import RingKit

/// The disks' and interfaces' numbers in the OpenMetrics text format 1.0.
///
/// Gauges stand for "info" metrics, so that the older parsers of Prometheus' own text format (node_exporter's
/// textfile collector) read the same text.
struct MetricsText {
  /// What an HTTP answer says of it.
  static let contentType = "application/openmetrics-text; version=1.0.0; charset=utf-8"
  /// Bounds of the latencies' buckets: powers of two of nanoseconds, about 8 us to 8.6 s.
  static let bucketPowers = 13...33

  private var text = ""
  private let disks: [(sample: DiskSample, labels: String, tally: BlockTally)]

  /// Tells of all disks and interfaces, and of the daemon.
  static func write(
    _ samples: [DiskSample], interfaces: [VifSample] = [], daemon: [(label: String, value: String)]
  ) -> String {
    var metrics = MetricsText(samples)
    metrics.family("ringback_build_info", .gauge, help: "The daemon that answers.") {
      $0.sample("", labels: Self.labels(daemon), value: "1")
    }
    metrics.writeState()
    metrics.writeRequests()
    metrics.writeRings()
    metrics.writeInterfaces(interfaces)
    return metrics.text + "# EOF\n"
  }

  private init(_ samples: [DiskSample]) {
    disks = samples.map { sample in
      (
        sample,
        Self.labels([
          ("kind", sample.address.kind), ("domain", "\(sample.address.domain)"), ("disk", sample.name),
        ]), sample.tally
      )
    }
  }

  private mutating func writeState() {
    gauge("ringback_disk_info", "What serves the disk.") { disk, writer in
      let more = Self.labels([
        ("image", disk.sample.image), ("mode", disk.sample.mode), ("state", disk.sample.state),
      ])
      writer.sample("", labels: "\(disk.labels),\(more)", value: "1")
    }
    gauge("ringback_disk_connected", "Whether the guest is connected to the disk.") {
      $1.sample("", labels: $0.labels, value: $0.sample.isConnected ? "1" : "0")
    }
    gauge("ringback_disk_paused", "Whether the disk's image is let go and its requests wait.") {
      $1.sample("", labels: $0.labels, value: $0.sample.isPaused ? "1" : "0")
    }
    gauge("ringback_disk_size_bytes", "Size of the disk; 0 for an empty drive.", unit: "bytes") {
      $1.sample("", labels: $0.labels, value: "\($0.sample.byteCount)")
    }
    gauge(
      "ringback_disk_limit_bytes", "Bytes a second that the disk may move; absent for no limit.",
      unit: "bytes"
    ) {
      guard let limits = $0.sample.limits, limits.bytesPerSecond > 0 else { return }
      $1.sample("", labels: $0.labels, value: "\(limits.bytesPerSecond)")
    }
    gauge("ringback_disk_limit_requests", "Requests a second that the disk may do; absent for no limit.") {
      guard let limits = $0.sample.limits, limits.requestsPerSecond > 0 else { return }
      $1.sample("", labels: $0.labels, value: "\(limits.requestsPerSecond)")
    }
  }

  private mutating func writeRequests() {
    counter("ringback_disk_requests", "Requests answered since the guest connected.") { disk, writer in
      for kind in BlockRequestKind.allCases {
        let numbers = disk.tally[kind]
        for (result, value) in [
          ("okay", numbers.completed), ("error", numbers.failed), ("unsupported", numbers.unsupported),
        ] {
          writer.sample(
            "_total", labels: "\(disk.labels),\(Self.labels([("request", kind.name), ("result", result)]))",
            value: "\(value)")
        }
      }
    }
    counter("ringback_disk_bytes", "Bytes of the requests that were answered OKAY.", unit: "bytes") {
      disk, writer in
      for kind in BlockRequestKind.allCases where kind != .other {
        writer.sample(
          "_total", labels: "\(disk.labels),\(Self.labels([("request", kind.name)]))",
          value: "\(disk.tally[kind].byteCount)")
      }
    }
    counter("ringback_disk_refusals", "Requests that broke a rule, by rule.") { disk, writer in
      for reason in RejectReason.allCases {
        writer.sample(
          "_total", labels: "\(disk.labels),\(Self.labels([("reason", "\(reason)")]))",
          value: "\(disk.tally.refusals(for: reason))")
      }
    }
    counter("ringback_disk_indirect_requests", "Requests that came as indirect ones.") {
      $1.sample("_total", labels: $0.labels, value: "\($0.tally.indirectCount)")
    }
    let disks = disks
    family(
      "ringback_disk_request_duration_seconds", .histogram, unit: "seconds",
      help: "Time from taking a request to answering it, of all but refused ones."
    ) { writer in
      for disk in disks {
        for kind in BlockRequestKind.allCases where kind != .other {
          writer.histogram(
            disk.tally[kind].latency, labels: "\(disk.labels),\(Self.labels([("request", kind.name)]))")
        }
      }
    }
  }

  private mutating func writeRings() {
    gauge("ringback_disk_queues", "Queues of the connection.") {
      $1.sample("", labels: $0.labels, value: "\($0.sample.queues.count)")
    }
    gauge("ringback_disk_queue_slots", "Requests that can be in flight.") {
      $1.sample("", labels: $0.labels, value: "\($0.sample.queues.count * $0.sample.slotCount)")
    }
    gauge("ringback_disk_in_flight", "Requests taken and not answered.") {
      $1.sample("", labels: $0.labels, value: "\($0.sample.snapshots.reduce(0) { $0 + $1.inFlightCount })")
    }
    gauge("ringback_disk_mapped_grants", "Guest pages that are kept mapped.") {
      $1.sample(
        "", labels: $0.labels, value: "\($0.sample.snapshots.reduce(0) { $0 + $1.persistentPageCount })")
    }
    sum("ringback_disk_grant_maps", "Guest pages mapped to be kept.") { $0.mapCount }
    sum("ringback_disk_grant_copies", "Pieces of data moved by grant copy.") { $0.counters.grantCopies }
    sum("ringback_disk_medium_flushes", "Flushes that reached the medium.") { $0.counters.mediumFlushes }
    sum("ringback_disk_notifications", "Events sent to the guest.") { $0.counters.notifications }
    sum("ringback_disk_kicks", "Events received from the guest.") { $0.counters.kicks }
    sum("ringback_disk_spurious_kicks", "Events that found nothing to do.") { $0.counters.spuriousKicks }
  }

  // MARK: Families

  enum FamilyType: String {
    case gauge, counter, histogram
  }

  /// Writes the samples of one family.
  struct Writer {
    let name: String
    var text = ""

    mutating func sample(_ suffix: String, labels: String, value: String) {
      text += "\(name)\(suffix){\(labels)} \(value)\n"
    }

    mutating func histogram(_ latency: LatencyHistogram, labels: String) {
      for power in MetricsText.bucketPowers {
        sample(
          "_bucket", labels: "\(labels),le=\"\(Double(UInt64(1) << UInt64(power)) / 1e9)\"",
          value: "\(latency.count(belowPowerOfTwo: power))")
      }
      sample("_bucket", labels: "\(labels),le=\"+Inf\"", value: "\(latency.count)")
      sample("_sum", labels: labels, value: "\(Double(latency.total) / 1e9)")
      sample("_count", labels: labels, value: "\(latency.count)")
    }
  }

  mutating func family(
    _ name: String, _ type: FamilyType, unit: String? = nil, help: String, _ body: (inout Writer) -> Void
  ) {
    text += "# TYPE \(name) \(type.rawValue)\n"
    if let unit { text += "# UNIT \(name) \(unit)\n" }
    text += "# HELP \(name) \(Self.escaped(help))\n"
    var writer = Writer(name: name)
    body(&writer)
    text += writer.text
  }

  private typealias Disk = (sample: DiskSample, labels: String, tally: BlockTally)

  private mutating func gauge(
    _ name: String, _ help: String, unit: String? = nil, _ body: (Disk, inout Writer) -> Void
  ) {
    let disks = disks
    family(name, .gauge, unit: unit, help: help) { writer in for disk in disks { body(disk, &writer) } }
  }

  private mutating func counter(
    _ name: String, _ help: String, unit: String? = nil, _ body: (Disk, inout Writer) -> Void
  ) {
    let disks = disks
    family(name, .counter, unit: unit, help: help) { writer in for disk in disks { body(disk, &writer) } }
  }

  private mutating func sum(_ name: String, _ help: String, _ value: (BlockStatistics.Snapshot) -> UInt64) {
    counter(name, help) {
      $1.sample("_total", labels: $0.labels, value: "\($0.sample.snapshots.reduce(0) { $0 + value($1) })")
    }
  }

  static func labels(_ pairs: [(label: String, value: String)]) -> String {
    pairs.map { "\($0.label)=\"\(escaped($0.value))\"" }.joined(separator: ",")
  }

  /// As the format has it: a backslash before each backslash, quotation mark and line feed.
  static func escaped(_ text: String) -> String {
    var escaped = ""
    for character in text.unicodeScalars {
      switch character {
      case "\\": escaped += "\\\\"
      case "\"": escaped += "\\\""
      case "\n": escaped += "\\n"
      default: escaped.unicodeScalars.append(character)
      }
    }
    return escaped
  }
}
