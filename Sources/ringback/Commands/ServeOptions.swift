import ArgumentParser
import Blkback
import RingKit

/// What the daemon offers to guests.
struct OfferOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Rings a guest may use for a disk (1 to \(VbdOffer.queueLimit)); one for each data thread by default.",
      valueName: "count"))
  var queues: Int?

  @Option(help: ArgumentHelp("Largest ring, in pages as a power of two (0 to 4).", valueName: "order"))
  var ringOrder = 4

  @Option(help: ArgumentHelp("Segments of one indirect request at most (12 to 256).", valueName: "count"))
  var indirectSegments = 256

  @Flag(name: .customLong("indirect"), inversion: .prefixedNo, help: "Offer indirect requests.")
  var indirect = true

  @Flag(
    name: .customLong("discard"), inversion: .prefixedNo,
    help: "Offer guests to give ranges back, where the image can.")
  var discard = true

  @Flag(
    name: .customLong("flush"), inversion: .prefixedNo,
    help: "Offer flushes; without them Linux uses write barriers.")
  var flush = true

  @Flag(name: .customLong("barrier"), inversion: .prefixedNo, help: "Offer write barriers.")
  var barrier = true

  @Flag(
    name: .customLong("persistent-grants"), inversion: .prefixedNo,
    help: "Offer guests to keep their pages mapped.")
  var persistentGrants = true

  @Option(
    help: ArgumentHelp("Guest pages that one queue keeps mapped at most (64 to 65536).", valueName: "count"))
  var persistentPages = VbdOffer().persistentPageLimit

  func validate() throws {
    guard (64...65536).contains(persistentPages) else {
      throw ValidationError("--persistent-pages is 64 to 65536; see --no-persistent-grants for none")
    }
    if let queues, !(1...VbdOffer.queueLimit).contains(queues) {
      throw ValidationError("--queues is 1 to \(VbdOffer.queueLimit)")
    }
    guard (0...4).contains(ringOrder) else { throw ValidationError("--ring-order is 0 to 4") }
    guard (12...256).contains(indirectSegments) else {
      throw ValidationError(
        "--indirect-segments is 12 to 256; an ordinary request has 11 (see --no-indirect)")
    }
  }

  var offer: VbdOffer {
    var offer = VbdOffer()
    offer.maximumQueues = queues
    offer.maximumRingPageOrder = ringOrder
    offer.indirectSegments = indirect ? indirectSegments : 0
    offer.discard = discard
    offer.flush = flush
    offer.barrier = barrier
    offer.persistentGrants = persistentGrants
    offer.persistentPageLimit = persistentPages
    return offer
  }
}

/// The kernel's interfaces by the names that people know.
enum EngineChoice: String, CaseIterable, ExpressibleByArgument {
  case automatic
  case uring = "io_uring"
  case aio = "libaio"

  init(_ engine: IOEngine) {
    switch engine {
    case .automatic: self = .automatic
    case .uring: self = .uring
    case .aio: self = .aio
    }
  }

  var engine: IOEngine {
    switch self {
    case .automatic: .automatic
    case .uring: .uring
    case .aio: .aio
    }
  }
}

/// How data threads do their work.
struct IOOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "What carries I/O: io_uring, libaio, or automatic (libaio where the kernel forbids io_uring).",
      valueName: "engine"))
  var ioEngine = EngineChoice.automatic

  @Option(
    help: ArgumentHelp(
      "Look for work so long before sleeping, in microseconds (0 to 10000). Trades processor time for latency.",
      valueName: "microseconds"))
  var poll: UInt64 = 0

  private static var longestPoll: UInt64 { DataThreadConfiguration.longestPollNanoseconds / 1000 }

  func validate() throws {
    guard poll <= Self.longestPoll else {
      throw ValidationError("--poll is 0 to \(Self.longestPoll) microseconds")
    }
  }

  var configuration: DataThreadConfiguration {
    var configuration = DataThreadConfiguration()
    configuration.pollNanoseconds = poll * 1000
    configuration.engine = ioEngine.engine
    return configuration
  }
}

/// Where the daemon tells its numbers.
struct StatisticsOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Keep a file of metrics for Prometheus (OpenMetrics), as node_exporter's textfile collector reads it.",
      discussion: "The name has to end in .prom for that collector. The file is replaced as a whole.",
      valueName: "path"))
  var metricsFile: String?

  @Option(help: ArgumentHelp("Seconds between two writings of that file (1 to 3600).", valueName: "seconds"))
  var metricsInterval = 15

  @Option(
    help: ArgumentHelp(
      "Answer HTTP GET /metrics at unix:/PATH or 127.0.0.1:PORT.",
      discussion: "Other machines cannot ask; put a proxy in front of it if they have to.",
      valueName: "address"))
  var metricsListen: String?

  @Option(
    help: ArgumentHelp(
      "Directory of the shared statistics that xentop and xcp-rrdd read; - for none.", valueName: "path"))
  var sharedStatistics = SharedStatistics.usualDirectory

  func validate() throws {
    guard (1...3600).contains(metricsInterval) else {
      throw ValidationError("--metrics-interval is 1 to 3600 seconds")
    }
    if let metricsFile, metricsFile.isEmpty || metricsFile.hasSuffix("/") {
      throw ValidationError(
        "--metrics-file is the path of a file, such as /var/lib/node_exporter/ringback.prom")
    }
    if let metricsListen, MetricsAddress(metricsListen) == nil {
      throw ValidationError(
        "--metrics-listen is unix:/PATH (absolute, at most 107 bytes) or 127.0.0.1:PORT; not \"\(metricsListen)\""
      )
    }
    guard sharedStatistics == "-" || sharedStatistics.hasPrefix("/") else {
      throw ValidationError("--shared-statistics is an absolute path, or - for none")
    }
  }

  var sharedDirectory: String? { sharedStatistics == "-" ? nil : sharedStatistics }
  var file: MetricsFile? { metricsFile.map { MetricsFile(path: $0, intervalSeconds: metricsInterval) } }
  var address: MetricsAddress? { metricsListen.flatMap { MetricsAddress($0) } }
}
