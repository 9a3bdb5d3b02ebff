import ArgumentParser
import Blkback
import Foundation
import RingKit

/// Lists the disks.
struct List: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "List the disks of this backend domain, their state and what they have done.",
    discussion: "The nodes come from xenstore, the numbers from the daemon if it runs.")

  @OptionGroup var host: HostOptions

  @Option(help: ArgumentHelp("Kinds of backend to list.", valueName: "kind"))
  var kind = [defaultKind]

  @Option(help: ArgumentHelp("The daemon's control socket.", valueName: "path"))
  var controlSocket: String?

  @Flag(help: "Print JSON.")
  var json = false

  func validate() throws { try kind.forEach(validateKind) }

  func run() throws {
    let store = try host.open().openStore()
    let own = try store.ownDomain()
    var reports: [DeviceReport] = []
    for kind in kind {
      var directory = BackendDirectory(backend: own, kinds: [kind])
      for address in try directory.scan(kind, in: store).appeared {
        let path = "/local/domain/\(own)/backend/\(address)"
        let state = try? store.state("\(path)/state")
        reports.append(
          DeviceReport(
            domain: address.domain.rawValue, vdev: address.device,
            name: VirtualDevice(number: address.device).description, kind: kind,
            state: state.map { "\($0)" } ?? "none", image: try store.read("\(path)/params") ?? "",
            mode: try store.read("\(path)/mode") ?? "",
            error: try store.read(BackendNodes.errorNode(of: address, backend: own))))
      }
    }
    let served = try Self.askDaemon(path: controlSocket ?? host.controlSocketPath)
    for index in reports.indices {
      let same = served.first {
        $0.domain == reports[index].domain && $0.vdev == reports[index].vdev && $0.kind == reports[index].kind
      }
      reports[index].statistics = same?.statistics
    }
    print(json ? try reports.json() : Self.table(reports))
  }

  /// The daemon's own numbers; none when it does not run.
  private static func askDaemon(path: String) throws -> [DeviceReport] {
    guard let reply = try? ControlSocket.ask("list", path: path) else { return [] }
    return try JSONDecoder().decode([DeviceReport].self, from: Data(reply.utf8))
  }

  static func table(_ reports: [DeviceReport]) -> String {
    guard !reports.isEmpty else { return "no disks" }
    let header = ["DOMAIN", "DISK", "KIND", "STATE", "MODE", "READS", "WRITES", "FLUSHES", "ERRORS", "IMAGE"]
    let rows = reports.map { report in
      let numbers = report.statistics.map { [$0.reads, $0.writes, $0.flushes, $0.errors].map(String.init) }
      return ["\(report.domain)", report.name, report.kind, report.state, report.mode]
        + (numbers ?? ["-", "-", "-", "-"]) + [report.image]
    }
    let widths = header.indices.map { column in ([header] + rows).map { $0[column].count }.max() ?? 0 }
    return ([header] + rows).map { row in
      zip(row, widths).map { $0.padding(toLength: $1, withPad: " ", startingAt: 0) }
        .joined(separator: "  ").trimmingCharacters(in: .whitespaces)
    }.joined(separator: "\n")
  }
}

extension HostOptions {
  /// Where the daemon listens for questions.
  var controlSocketPath: String {
    hypervisor == .loopback ? "\(loopbackDirectory)/control" : "/run/ringback/control"
  }
}
