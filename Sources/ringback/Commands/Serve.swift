import ArgumentParser
import Blkback
import Foundation
import Logging
import RingKit

/// The daemon.
struct Serve: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Serve the disks of this backend domain until told to stop.",
    discussion: """
      Watches xenstore for devices below backend/KIND and serves each one. Runs in the foreground and logs to \
      standard error, as systemd likes it. SIGTERM and SIGINT finish the requests in flight and leave the \
      guests' devices as they are: the next daemon takes them up again.
      """)

  @OptionGroup var host: HostOptions

  @Option(
    help: ArgumentHelp("Kind of backend to serve; repeat it for several.", valueName: "kind"))
  var kind: [String] = []

  @Option(
    help: ArgumentHelp("Data threads (1 to 64); one for each processor by default.", valueName: "count"))
  var threads: Int?

  @Option(
    help: ArgumentHelp("Memory for data in flight, in MiB a thread (4 to 4096).", valueName: "MiB"))
  var pool = 32

  @Option(help: "Least important messages to log: trace, debug, info, notice, warning, error or critical.")
  var logLevel = LogLevel.info

  @Option(
    help: ArgumentHelp(
      "Where to listen for the other commands, such as `ringback stats`.", valueName: "path"))
  var controlSocket: String?

  @Option(
    help: ArgumentHelp(
      "Directory of the sockets that scripts expect of blktap's tapdisks.", valueName: "path"))
  var controlDirectory: String?

  @OptionGroup(title: "What guests are offered") var features: OfferOptions

  @OptionGroup(title: "How data threads work") var io: IOOptions

  @OptionGroup(title: "Statistics") var statistics: StatisticsOptions

  func validate() throws {
    try kind.forEach(validateKind)
    if let threads, !(1...64).contains(threads) { throw ValidationError("--threads is 1 to 64") }
    guard (4...4096).contains(pool) else { throw ValidationError("--pool is 4 to 4096 MiB") }
  }

  func run() throws {
    let level = logLevel.level
    LoggingSystem.bootstrap { _ in StandardErrorLogHandler(level: level) }
    var daemon = DaemonConfiguration(
      kinds: kind.isEmpty ? [defaultKind] : kind,
      threadCount: threads ?? ProcessInfo.processInfo.activeProcessorCount,
      controlSocketPath: controlSocket ?? host.controlSocketPath)
    daemon.tapDirectory = controlDirectory ?? host.tapDirectory
    daemon.offer = features.offer
    daemon.threads = io.configuration
    daemon.threads.poolByteCount = pool << 20
    daemon.sharedStatisticsDirectory = statistics.sharedDirectory
    daemon.metricsFile = statistics.file
    daemon.metricsAddress = statistics.address
    try Daemon(host: host.open(), configuration: daemon, logger: Logger(label: "ringback")).run()
  }
}

/// The levels by the names of swift-log.
enum LogLevel: String, CaseIterable, ExpressibleByArgument {
  case trace, debug, info, notice, warning, error, critical

  var level: Logger.Level { Logger.Level(rawValue: rawValue) ?? .info }
}
