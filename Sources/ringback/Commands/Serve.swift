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
      guests' devices as they are: the next daemon takes them up again. SIGHUP reads the configuration file \
      again; what cannot change while the daemon runs is told in the log.
      """)

  /// A configuration that is not in order (EX_CONFIG of sysexits.h); systemd need not try again.
  static let configurationStatus = ExitCode(78)

  @OptionGroup var host: HostOptions
  @OptionGroup(title: "Configuration") var file: ConfigurationOptions

  @Flag(help: "Only check the options and the configuration file: status 0 if they are in order, 78 if not.")
  var check = false

  @OptionGroup(title: "The daemon") var daemon: DaemonSettingsOptions
  @OptionGroup(title: "What guests are offered") var features: OfferOptions
  @OptionGroup(title: "Limits of disks that have none of their own") var limits: LimitOptions
  @OptionGroup(title: "How data threads work") var io: IOOptions
  @OptionGroup(title: "Statistics") var statistics: StatisticsOptions

  func validate() throws {
    if let complaint = settings.complaints.first { throw ValidationError(complaint) }
  }

  /// What the command line says.
  var settings: DaemonSettings {
    var settings = DaemonSettings()
    settings.kinds = daemon.kind.isEmpty ? nil : daemon.kind
    settings.threads = daemon.threads
    settings.pool = daemon.pool
    settings.controlSocket = daemon.controlSocket
    settings.controlDirectory = daemon.controlDirectory
    settings.logLevel = daemon.logLevel
    settings.queues = features.queues
    settings.ringOrder = features.ringOrder
    settings.indirectSegments = features.indirectSegments
    settings.indirect = features.indirect
    settings.discard = features.discard
    settings.flush = features.flush
    settings.barrier = features.barrier
    settings.persistentGrants = features.persistentGrants
    settings.persistentPages = features.persistentPages
    settings.limitBytes = limits.limitBytes?.value
    settings.limitBytesBurst = limits.limitBytesBurst?.value
    settings.limitRequests = limits.limitRequests
    settings.limitRequestsBurst = limits.limitRequestsBurst
    settings.ioEngine = io.ioEngine
    settings.poll = io.poll
    settings.metricsFile = statistics.metricsFile
    settings.metricsInterval = statistics.metricsInterval
    settings.metricsListen = statistics.metricsListen
    settings.sharedStatistics = statistics.sharedStatistics
    return settings
  }

  func run() throws {
    let source = file.source(settings, on: host.hypervisor)
    let settings: DaemonSettings
    do throws(ConfigurationFailure) {
      settings = try source.load()
    } catch {
      FileHandle.standardError.write(Data(error.complaints.map { "Error: \($0)\n" }.joined().utf8))
      throw Self.configurationStatus
    }
    if check {
      let isThere = source.path.map { FileManager.default.fileExists(atPath: $0) } ?? false
      print(isThere ? "\(source.path ?? "") is in order" : "the options are in order; there is no file")
      return
    }
    let level = (settings.logLevel ?? .info).level
    LoggingSystem.bootstrap { _ in StandardErrorLogHandler(level: level) }
    var configuration = DaemonConfiguration(
      settings, from: source, controlSocketPath: settings.controlSocket ?? host.controlSocketPath)
    configuration.tapDirectory = settings.controlDirectory ?? host.tapDirectory
    try Daemon(host: host.open(), configuration: configuration, logger: Logger(label: "ringback")).run()
  }
}

extension DaemonConfiguration {
  /// What the settings make.
  init(_ settings: DaemonSettings, from source: ConfigurationSource, controlSocketPath: String) {
    self.init(
      kinds: settings.kinds ?? [defaultKind],
      threadCount: settings.threads ?? ProcessInfo.processInfo.activeProcessorCount,
      controlSocketPath: controlSocketPath)
    self.settings = settings
    self.source = source
    offer = settings.offer
    defaultLimits = (try? settings.limits) ?? .unlimited
    threads = settings.threadConfiguration
    sharedStatisticsDirectory = settings.sharedStatisticsDirectory
    metricsFile = settings.metrics
    metricsAddress = settings.metricsAddress
  }
}

/// The levels by the names of swift-log.
enum LogLevel: String, CaseIterable, ExpressibleByArgument {
  case trace, debug, info, notice, warning, error, critical

  var level: Logger.Level { Logger.Level(rawValue: rawValue) ?? .info }
}
