import ArgumentParser
import Blkback
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
  @OptionGroup var daemon: DaemonOptions

  @Option(help: ArgumentHelp("Kind of backend to serve; repeat it for several.", valueName: "kind"))
  var kind: [String] = []

  @Option(help: ArgumentHelp("Guest pages that one queue keeps mapped at most.", valueName: "count"))
  var persistentPages = VbdOffer().persistentPageLimit

  @Option(help: ArgumentHelp("What is to carry I/O: io_uring, libaio, or automatic.", valueName: "engine"))
  var ioEngine = EngineChoice.automatic

  @Flag(help: "Print JSON.")
  var json = false

  func validate() throws {
    try kind.forEach(validateKind)
    guard persistentPages > 0 else { throw ValidationError("--persistent-pages is a positive number") }
  }

  func run() throws {
    let environment = ProcessInfo.processInfo.environment
    let host = host
    let examination = Examination(
      machine: host.hypervisor, kinds: kind.isEmpty ? [defaultKind] : kind,
      persistentPageLimit: persistentPages, engine: ioEngine.engine,
      controlSocketPath: host.daemon(daemon).path, tapDirectory: host.tapDirectory,
      searchPath: environment["PATH"] ?? "/usr/sbin:/usr/bin:/sbin:/bin",
      loopbackDirectory: host.loopbackDirectory,
      open: {
        host.hypervisor == .loopback ? try host.open() : XenHypervisor()
      })
    let diagnosis = try examination.diagnose()
    if json {
      print(try diagnosis.json())
    } else {
      let inColour = Terminal.isOutput && environment["NO_COLOR"] == nil && environment["TERM"] != "dumb"
      print(diagnosis.lines(inColour: inColour).joined(separator: "\n"))
    }
    guard diagnosis.canServe else { throw ExitCode(1) }
  }
}
