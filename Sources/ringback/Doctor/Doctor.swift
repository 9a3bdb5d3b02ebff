import ArgumentParser
import Foundation
import RingKit

/// Says what is missing on this machine to serve guests.
struct Doctor: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Say what is missing on this machine to serve guests, and how to mend it.",
    discussion: """
      Looks at Xen and its devices, xenstored, io_uring and limits, rival backends, what xl needs, the daemon, \
      and disks that are stuck. Changes nothing. Ends with status 0 when guests can be served, 1 when not; a \
      warning tells what would not work. Run it as the daemon's user, which is usually root.
      """)

  @OptionGroup var host: HostOptions
  @OptionGroup(title: "The daemon's configuration") var file: ConfigurationOptions
  @OptionGroup var daemon: DaemonOptions

  @Option(help: Setting.kind.help) var kind: [String] = []
  @Option(help: Setting.persistentPages.help) var persistentPages: Int?
  @Option(help: Setting.ioEngine.help) var ioEngine: EngineChoice?

  @Flag(help: "Print JSON.")
  var json = false

  func validate() throws {
    if let complaint = settings.complaints.first { throw ValidationError(complaint) }
  }

  /// What the command line says of the daemon.
  private var settings: DaemonSettings {
    var settings = DaemonSettings()
    settings.kinds = kind.isEmpty ? nil : kind
    settings.controlSocket = daemon.controlSocket
    settings.persistentPages = persistentPages
    settings.ioEngine = ioEngine
    return settings
  }

  func run() throws {
    let environment = ProcessInfo.processInfo.environment
    let host = host
    let (configuration, settings) = ConfigurationCheck.load(file.source(settings, on: host.hypervisor))
    let examination = Examination(
      machine: host.hypervisor, settings: settings,
      controlSocketPath: settings.controlSocket ?? host.controlSocketPath,
      tapDirectory: settings.controlDirectory ?? host.tapDirectory,
      searchPath: environment["PATH"] ?? "/usr/sbin:/usr/bin:/sbin:/bin",
      loopbackDirectory: host.loopbackDirectory,
      open: { host.hypervisor == .loopback ? try host.open() : XenHypervisor() })
    let diagnosis = Diagnosis(try examination.checks() + [configuration].compactMap { $0 })
    if json {
      print(try diagnosis.json())
    } else {
      let inColour = Terminal.isOutput && environment["NO_COLOR"] == nil && environment["TERM"] != "dumb"
      print(diagnosis.lines(inColour: inColour).joined(separator: "\n"))
    }
    guard diagnosis.canServe else { throw ExitCode(1) }
  }
}

/// Whether the daemon's configuration file is in order.
enum ConfigurationCheck {
  /// The settings, and what is to be said of their file, if there is one; the defaults when it is bad.
  static func load(_ source: ConfigurationSource) -> (check: Check?, settings: DaemonSettings) {
    do throws(ConfigurationFailure) {
      let settings = try source.load()
      guard let path = source.path, FileManager.default.fileExists(atPath: path) else {
        return (nil, settings)
      }
      return (.ok("configuration", "\(path) is in order"), settings)
    } catch {
      let check = Check.problem(
        "configuration", error.complaints.joined(separator: "; "),
        mend: "correct the file; ringback.toml(5) tells what can stand in it")
      return (check, source.commandLine.over(.defaults))
    }
  }
}
