import Blkback
import RingKit

/// Everything that can be set, in the order of the example file.
extension Setting {
  static let kind = Setting(
    .daemon, "kind", "Kinds of backends to serve, each a directory below backend/ in xenstore.",
    at: \.kinds, valueName: "kind",
    range: "a list of one kind or more, each of 1 to 32 letters, digits, - or _, such as [\"vbd3\"]",
    read: { value in
      guard case .list(let values) = value else { return nil }
      let kinds = values.compactMap { if case .text(let text) = $0 { text } else { nil } }
      return kinds.count == values.count ? kinds : nil
    }, write: { .list($0.map { .text($0) }) }, accept: { !$0.isEmpty && $0.allSatisfy(isKind) })
  static let threads = number(
    .daemon, "threads", "Data threads", at: \.threads, in: 1...64, unit: "count",
    fallback: "one for each processor")
  static let pool = number(
    .daemon, "pool", "Memory for data in flight, in MiB for each data thread", at: \.pool, in: 4...4096,
    unit: "MiB")
  static let controlSocket = text(
    .daemon, "control-socket", "Where to listen for the other commands, such as `ringback stats`.",
    at: \.controlSocket, valueName: "path", range: "an absolute path of at most 107 bytes",
    fallback: "/run/ringback/control", accept: isSocketPath)
  static let controlDirectory = text(
    .daemon, "control-directory", "Directory of the sockets that scripts expect of blktap's tapdisks.",
    at: \.controlDirectory, valueName: "path", range: "an absolute path", fallback: "/run/blktap-control",
    accept: { $0.hasPrefix("/") })
  static let sharedStatistics = text(
    .daemon, "shared-statistics",
    "Directory of the shared statistics that xentop and xcp-rrdd read; - for none.", at: \.sharedStatistics,
    valueName: "path", range: "an absolute path, or - for none", accept: { $0 == "-" || $0.hasPrefix("/") })

  static let queues = number(
    .offer, "queues", live: true, "Rings a guest may use for a disk", at: \.queues,
    in: 1...VbdOffer.queueLimit,
    unit: "count", fallback: "one for each data thread")
  static let ringOrder = number(
    .offer, "ring-order", live: true, "Largest ring, in pages as a power of two", at: \.ringOrder, in: 0...4,
    unit: "order")
  static let indirect = flag(.offer, "indirect", live: true, "Offer indirect requests.", at: \.indirect)
  static let indirectSegments = number(
    .offer, "indirect-segments", live: true, "Most segments of an indirect request",
    at: \.indirectSegments, in: 12...256, unit: "count", off: "indirect")
  static let discard = flag(
    .offer, "discard", live: true, "Offer guests to give ranges back, where the image can.", at: \.discard)
  static let flush = flag(
    .offer, "flush", live: true, "Offer flushes; without them Linux uses write barriers.", at: \.flush)
  static let barrier = flag(.offer, "barrier", live: true, "Offer write barriers.", at: \.barrier)
  static let persistentGrants = flag(
    .offer, "persistent-grants", live: true, "Offer guests to keep their pages mapped.",
    at: \.persistentGrants)
  static let persistentPages = number(
    .offer, "persistent-pages", live: true, "Guest pages that one queue keeps mapped at most",
    at: \.persistentPages, in: 64...65536, unit: "count", off: "persistent-grants")

  static let limitBytes = amount(
    .limits, "bytes", option: "limit-bytes", live: true,
    "Bytes a second that a disk may move, such as 100M; 0 for no limit.", at: \.limitBytes,
    valueName: "bytes",
    range: "0, or 4096 to 2^50 bytes, such as 104857600 or \"100M\"",
    accept: { (try? RateLimits(bytesPerSecond: $0)) != nil })
  static let limitBytesBurst = amount(
    .limits, "bytes-burst", option: "limit-bytes-burst", live: true,
    "Bytes that pass at once after idle time.",
    at: \.limitBytesBurst, valueName: "bytes", range: "a number of bytes, such as 104857600 or \"100M\"",
    accept: { $0 <= Int64.max })
  static let limitRequests = amount(
    .limits, "requests", option: "limit-requests", live: true,
    "Requests a second that a disk may do; 0 for no limit.", at: \.limitRequests, valueName: "count",
    range: "0, or 1 to 1000000000", accept: { (try? RateLimits(requestsPerSecond: $0)) != nil })
  static let limitRequestsBurst = amount(
    .limits, "requests-burst", option: "limit-requests-burst", live: true,
    "Requests that pass at once after idle time.", at: \.limitRequestsBurst, valueName: "count",
    range: "a number of requests", accept: { $0 <= Int64.max })

  static let ioEngine = word(
    .io, "engine", option: "io-engine",
    "What carries I/O: io_uring, libaio, or automatic (libaio where the kernel forbids io_uring).",
    at: \.ioEngine, valueName: "engine")
  static let poll = number(
    .io, "poll", live: true,
    "Microseconds to look for work before sleeping, which trades processor time for latency",
    at: \.poll, in: 0...Int(DataThreadConfiguration.longestPollNanoseconds / 1000), unit: "microseconds")

  static let metricsFile = text(
    .metrics, "file", option: "metrics-file", live: true,
    "Keep a file of metrics for Prometheus (OpenMetrics); its name has to end in .prom for node_exporter.",
    at: \.metricsFile, valueName: "path",
    range: "the path of a file, such as /var/lib/node_exporter/ringback.prom",
    accept: { !$0.isEmpty && !$0.hasSuffix("/") })
  static let metricsInterval = number(
    .metrics, "interval", option: "metrics-interval", live: true, "Seconds between two writings of that file",
    at: \.metricsInterval, in: 1...3600, unit: "seconds")
  static let metricsListen = text(
    .metrics, "listen", option: "metrics-listen", live: true,
    "Answer HTTP GET /metrics at unix:/PATH or 127.0.0.1:PORT; other machines cannot ask.",
    at: \.metricsListen, valueName: "address",
    range: "unix:/PATH (absolute, at most 107 bytes) or 127.0.0.1:PORT", accept: { MetricsAddress($0) != nil }
  )

  static let logLevel = word(
    .log, "level", option: "log-level", live: true,
    "Least important messages to log: trace, debug, info, notice, warning, error or critical.",
    at: \.logLevel,
    valueName: "log-level")

  /// All of them.
  static let all: [Setting] = [
    kind, threads, pool, controlSocket, controlDirectory, sharedStatistics,
    queues, ringOrder, indirect, indirectSegments, discard, flush, barrier, persistentGrants, persistentPages,
    limitBytes, limitBytesBurst, limitRequests, limitRequestsBurst,
    ioEngine, poll,
    metricsFile, metricsInterval, metricsListen,
    logLevel,
  ]

  private static func isSocketPath(_ path: String) -> Bool {
    path.hasPrefix("/") && !path.hasSuffix("/") && path.utf8.count <= 107
  }
}
