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

  @OptionGroup var daemon: DaemonOptions

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
            DiskHeader(
              domain: address.domain.rawValue, vdev: address.device,
              name: VirtualDevice(number: address.device).description, kind: kind,
              state: state.map { "\($0)" } ?? "none", image: try store.read("\(path)/params") ?? "",
              mode: try store.read("\(path)/mode") ?? ""),
            DeviceDetails(error: try store.read(BackendNodes.errorNode(of: address, backend: own)))))
      }
    }
    let served = try Self.ask(host.daemon(daemon))
    for index in reports.indices {
      let same = served.first {
        $0.domain == reports[index].domain && $0.vdev == reports[index].vdev && $0.kind == reports[index].kind
      }
      reports[index].statistics = same?.statistics
      reports[index].isPaused = same?.isPaused
    }
    print(json ? try reports.json() : Self.table(reports))
  }

  /// The daemon's own numbers; none when it does not run.
  private static func ask(_ daemon: DaemonClient) throws -> [DeviceReport] {
    guard (try? LocalSocket.connect(path: daemon.path)) != nil else { return [] }
    return try daemon.ask(ControlQuestion(.list), for: [DeviceReport].self)
  }

  static func table(_ reports: [DeviceReport]) -> String {
    guard !reports.isEmpty else { return "no disks" }
    let header = ["DOMAIN", "DISK", "KIND", "STATE", "MODE", "READS", "WRITES", "FLUSHES", "ERRORS", "IMAGE"]
    let rows = reports.map { report in
      let numbers = report.statistics.map { [$0.reads, $0.writes, $0.flushes, $0.errors].map(String.init) }
      return [
        "\(report.domain)", report.name, report.kind, report.isPaused == true ? "Paused" : report.state,
        report.mode,
      ]
        + (numbers ?? ["-", "-", "-", "-"]) + [report.image]
    }
    return TextTable.lines(header, rows, rightAligned: [5, 6, 7, 8]).joined(separator: "\n")
  }
}
