import Foundation
import RingKit

/// The part of the demo that needs root: two network stacks of this machine, with an interface between them.
extension DemoStage {
  /// What the network part shows.
  struct NetworkReport {
    var ping = ""
    /// Bits a second.
    var toGuest = 0.0
    var fromGuest = 0.0
  }

  /// Why there is no network part here; nil if there can be one.
  static var networkObstacle: String? {
    guard geteuid() == 0 else { return "network interfaces need root; `sudo make demo` shows them" }
    guard FileManager.default.isWritableFile(atPath: "/dev/net/tun") else {
      return "there is no /dev/net/tun; `modprobe tun` makes it"
    }
    let missing = ["ip", "ping", "iperf3"].filter { NetworkNamespace.path(of: $0) == nil }
    guard missing.isEmpty else { return "not installed: \(missing.joined(separator: ", "))" }
    do {
      _ = try NetworkNamespace()
      return nil
    } catch {
      return "no network namespace can be made: \(error)"
    }
  }

  private static let addresses = (host: "10.9.0.1", guest: "10.9.0.2")

  /// Attaches an interface and sets its TAP up, as xl and its script do.
  func attachNetwork() throws {
    guard let networks else { return }
    try networks.host.inside { _ = try ringback(["network-attach", "--domain", "1"] + hostArguments) }
    try networks.host.addAddress("\(Self.addresses.host)/24", to: "vif1.0")
    try networks.host.setUp("vif1.0")
  }

  /// Starts the guest: an ordinary network stack behind a netfront.
  func startGuestNetwork() throws {
    guard let networks else { return }
    try networks.guest.setUp("lo")
    let (process, line) = try networks.guest.inside {
      try start("guest-network", ["guest-network", "--own-domain", "1", "--queues", "2"] + hostArguments)
    }
    guestNetwork = process
    guard line.contains("connected") else { throw CommandError("the guest's network did not start: \(line)") }
    try networks.guest.addAddress("\(Self.addresses.guest)/24", to: "eth0")
  }

  /// Pings the guest, and moves bytes for two seconds each way.
  func useNetwork() throws -> NetworkReport {
    guard let networks, let ping = NetworkNamespace.path(of: "ping"),
      let iperf = NetworkNamespace.path(of: "iperf3")
    else { return NetworkReport() }
    var report = NetworkReport()
    let said = try networks.host.inside {
      try run(ping, ["-c", "5", "-i", "0.2", "-q", Self.addresses.guest])
    }
    report.ping = said.split(separator: "\n").suffix(2).joined(separator: ", ")
    // Its first line says that it listens.
    let (server, _) = try networks.guest.inside {
      try start("iperf3", ["-s", "-B", Self.addresses.guest, "--forceflush"], program: URL(filePath: iperf))
    }
    defer {
      server.terminate()
      server.waitUntilExit()
    }
    report.toGuest = try bulk(iperf, networks.host, [])
    report.fromGuest = try bulk(iperf, networks.host, ["-R"])
    return report
  }

  private func bulk(_ iperf: String, _ network: NetworkNamespace, _ options: [String]) throws -> Double {
    struct Report: Decodable {
      struct End: Decodable {
        struct Sum: Decodable { var bits_per_second: Double }
        var sum_received: Sum
      }
      var end: End
    }
    let text = try network.inside { try run(iperf, ["-c", Self.addresses.guest, "-t", "2", "-J"] + options) }
    return try JSONDecoder().decode(Report.self, from: Data(text.utf8)).end.sum_received.bits_per_second
  }

  /// Lets the guest's network go.
  func stopGuestNetwork() throws {
    guard let guestNetwork else { return }
    guestNetwork.terminate()
    guestNetwork.waitUntilExit()
    self.guestNetwork = nil
    guard guestNetwork.terminationStatus == 0 else {
      throw CommandError("the guest's network ended with status \(guestNetwork.terminationStatus)")
    }
  }
}
