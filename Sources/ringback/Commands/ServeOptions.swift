import ArgumentParser
import RingKit

/// The configuration file.
struct ConfigurationOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Configuration file (default: \(ConfigurationSource.usualPath), if it is there). Options win over it.",
      valueName: "path"))
  var config: String?

  @Flag(help: "Read no configuration file.")
  var noConfig = false

  func validate() throws {
    guard config == nil || !noConfig else {
      throw ValidationError("--config and --no-config exclude each other")
    }
  }

  /// The file to read. A loopback machine is for trying things: only a file that is named counts there.
  func source(_ commandLine: DaemonSettings, on hypervisor: HypervisorKind?) -> ConfigurationSource {
    let usual = hypervisor == .loopback || noConfig ? nil : ConfigurationSource.usualPath
    return ConfigurationSource(commandLine: commandLine, path: config ?? usual, mustExist: config != nil)
  }
}

/// The daemon itself.
struct DaemonSettingsOptions: ParsableArguments {
  @Option(help: Setting.kind.help) var kind: [String] = []
  @Option(help: Setting.threads.help) var threads: Int?
  @Option(help: Setting.pool.help) var pool: Int?
  @Option(help: Setting.controlSocket.help) var controlSocket: String?
  @Option(help: Setting.controlDirectory.help) var controlDirectory: String?
  @Option(help: Setting.logLevel.help) var logLevel: LogLevel?
}

/// What the daemon offers to guests.
struct OfferOptions: ParsableArguments {
  @Option(help: Setting.queues.help) var queues: Int?
  @Option(help: Setting.ringOrder.help) var ringOrder: Int?
  @Option(help: Setting.indirectSegments.help) var indirectSegments: Int?
  @Flag(name: Setting.indirect.flagName, inversion: .prefixedNo, help: Setting.indirect.help)
  var indirect: Bool?
  @Flag(name: Setting.discard.flagName, inversion: .prefixedNo, help: Setting.discard.help)
  var discard: Bool?
  @Flag(name: Setting.flush.flagName, inversion: .prefixedNo, help: Setting.flush.help)
  var flush: Bool?
  @Flag(name: Setting.barrier.flagName, inversion: .prefixedNo, help: Setting.barrier.help)
  var barrier: Bool?
  @Flag(name: Setting.persistentGrants.flagName, inversion: .prefixedNo, help: Setting.persistentGrants.help)
  var persistentGrants: Bool?
  @Option(help: Setting.persistentPages.help) var persistentPages: Int?
}

/// What disks may do.
struct LimitOptions: ParsableArguments {
  @Option(help: Setting.limitBytes.help) var limitBytes: ByteCountArgument?
  @Option(help: Setting.limitBytesBurst.help) var limitBytesBurst: ByteCountArgument?
  @Option(help: Setting.limitRequests.help) var limitRequests: UInt64?
  @Option(help: Setting.limitRequestsBurst.help) var limitRequestsBurst: UInt64?
}

/// How data threads do their work.
struct IOOptions: ParsableArguments {
  @Option(help: Setting.ioEngine.help) var ioEngine: EngineChoice?
  @Option(help: Setting.poll.help) var poll: Int?
}

/// Where the daemon tells its numbers.
struct StatisticsOptions: ParsableArguments {
  @Option(help: Setting.metricsFile.help) var metricsFile: String?
  @Option(help: Setting.metricsInterval.help) var metricsInterval: Int?
  @Option(help: Setting.metricsListen.help) var metricsListen: String?
  @Option(help: Setting.sharedStatistics.help) var sharedStatistics: String?
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
