import ArgumentParser
import Blkback
import Foundation
import RingKit

/// Lists the disks and interfaces.
struct List: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "List the disks and network interfaces of this backend domain, and what they have done.",
    discussion: """
      The nodes come from xenstore, the numbers from the daemon if it runs. TX is what the guest sends, RX what it \
      is sent. In JSON, disks and then interfaces are elements of one array; kind is vif for an interface.
      """)

  @OptionGroup var host: HostOptions

  @Option(help: ArgumentHelp("Kinds of backend to list.", valueName: "kind"))
  var kind = [defaultKind, DaemonVifs.kind]

  @OptionGroup var daemon: DaemonOptions

  @Flag(help: "Print JSON.")
  var json = false

  func validate() throws { try kind.forEach(validateKind) }

  func run() throws {
    let store = try host.open().openStore()
    let own = try store.ownDomain()
    let disks = try disks(of: own, in: store)
    let interfaces = kind.contains(DaemonVifs.kind) ? try interfaces(of: own, in: store) : []
    if json {
      print(try DeviceArray(disks: disks, interfaces: interfaces).json())
      return
    }
    // Of interfaces nothing is said where there are none, as long as disks are asked for.
    let tables = [
      kind.contains { $0 != DaemonVifs.kind } ? Self.table(disks) : nil,
      interfaces.isEmpty ? nil : VifNumbers.table(interfaces),
    ].compactMap { $0 }
    print(tables.isEmpty ? "no interfaces" : tables.joined(separator: "\n\n"))
  }

  private func disks(of own: DomainID, in store: StoreClient) throws -> [DeviceReport] {
    var reports: [DeviceReport] = []
    for kind in kind where kind != DaemonVifs.kind {
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
    guard !reports.isEmpty else { return [] }
    let served: [DeviceReport] = try ask(ControlQuestion(.list))
    for index in reports.indices {
      let same = served.first {
        $0.domain == reports[index].domain && $0.vdev == reports[index].vdev && $0.kind == reports[index].kind
      }
      reports[index].statistics = same?.statistics
      reports[index].isPaused = same?.isPaused
    }
    return reports
  }

  private func interfaces(of own: DomainID, in store: StoreClient) throws -> [VifNumbers] {
    var directory = BackendDirectory(backend: own, kinds: [DaemonVifs.kind])
    var interfaces: [VifNumbers] = []
    for address in try directory.scan(DaemonVifs.kind, in: store).appeared {
      let path = "/local/domain/\(own)/backend/\(address)"
      let state = try? store.state("\(path)/state")
      func node(_ name: String) throws -> String? {
        try store.read("\(path)/\(name)").flatMap { $0.isEmpty ? nil : $0 }
      }
      let link = try node("link").flatMap { $0 == "tap" ? nil : $0 }
      interfaces.append(
        VifNumbers(
          domain: address.domain.rawValue, vif: address.device, kind: address.kind,
          state: state.map { "\($0)" } ?? "none", mac: try node("mac") ?? "",
          link: try link ?? node("vifname") ?? "vif\(address.domain).\(address.device)",
          error: try store.read(BackendNodes.errorNode(of: address, backend: own))))
    }
    guard !interfaces.isEmpty else { return [] }
    var question = ControlQuestion(.list)
    question.kind = DaemonVifs.kind
    let served: [VifNumbers] = try ask(question)
    for (index, interface) in interfaces.enumerated() {
      guard let same = served.first(where: { $0.domain == interface.domain && $0.vif == interface.vif })
      else { continue }
      interfaces[index].isStalled = same.isStalled
      interfaces[index].queueCount = same.queueCount
      interfaces[index].total = same.total
      // Scripts rename TAPs.
      if !same.link.isEmpty { interfaces[index].link = same.link }
    }
    return interfaces
  }

  /// The daemon's own numbers; none when it does not run.
  private func ask<Report: Decodable>(_ question: ControlQuestion) throws -> [Report] {
    let daemon = host.daemon(daemon)
    guard (try? LocalSocket.connect(path: daemon.path)) != nil else { return [] }
    return try daemon.ask(question, for: [Report].self)
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
