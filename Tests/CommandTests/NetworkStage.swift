import Foundation
import Glibc
import Loopback
import RingKit
import Testing

/// Why interfaces cannot be served here; nil when they can.
let networkObstacle: String? = {
  if geteuid() != 0 { return "TAPs need root (CAP_NET_ADMIN)" }
  if unsafe access("/dev/net/tun", R_OK | W_OK) != 0 { return "this machine has no /dev/net/tun" }
  do { _ = try NetworkNamespace() } catch { return "no network namespace can be made: \(error)" }
  let missing = ["ip", "ping"].filter { NetworkNamespace.path(of: $0) == nil }
  return missing.isEmpty ? nil : "not installed: \(missing.joined(separator: ", ")) (iproute2, iputils-ping)"
}()

/// Two Linux network stacks, a host's and a guest's, with the built daemon between them.
final class NetworkStage {
  static let addresses = (v4: (host: "10.9.0.1", guest: "10.9.0.2"), v6: (host: "fd00::1", guest: "fd00::2"))

  let stage: CommandStage
  let host: NetworkNamespace
  let guest: NetworkNamespace
  private(set) var daemon: Command.Running?
  private(set) var guestProcess: Command.Running?
  private let loopback: [String]
  /// Keeps the guest's domain alive while none of its processes runs.
  private let presence: LoopbackHypervisor

  init() throws {
    stage = try CommandStage(imageByteCount: 4096)
    host = try NetworkNamespace()
    guest = try NetworkNamespace()
    loopback = stage.host
    for network in [host, guest] { try network.setUp("lo") }
    try stage.startMachine()
    presence = try LoopbackHypervisor(
      directory: "\(stage.directory)/machine", domain: DomainID(rawValue: 1))
    try startDaemon()
  }

  deinit {
    for running in [guestProcess, daemon].compactMap({ $0 }) where running.process.isRunning {
      running.process.terminate()
      running.process.waitUntilExit()
    }
  }

  var control: [String] { ["--control-socket", "\(stage.directory)/control"] }

  func startDaemon(_ options: [String] = []) throws {
    daemon = try host.inside { try stage.startDaemon(["--kind", "vif"] + control + options) }
  }

  /// Ends the daemon; by SIGKILL if `violently`.
  func stopDaemon(violently: Bool = false) throws {
    let daemon = try #require(daemon)
    if violently { kill(daemon.process.processIdentifier, SIGKILL) } else { daemon.process.terminate() }
    let end = daemon.finish()
    if !violently { #expect(end.status == 0, "\(end.output)") }
    self.daemon = nil
  }

  func ringback(_ arguments: [String]) throws -> Command.Outcome {
    try host.inside { try Command.run(arguments + loopback) }
  }

  func attach(_ options: [String] = []) throws {
    let outcome = try ringback(["network-attach", "--domain", "1"] + options)
    try #require(outcome.status == 0, "\(outcome.errors)")
  }

  /// Sets the host's end up, as a script would.
  func setUpHost(_ link: String = "vif1.0") throws {
    try host.addAddress("\(Self.addresses.v4.host)/24", to: link)
    try host.addAddress("\(Self.addresses.v6.host)/64", to: link)
    try host.setUp(link)
  }

  /// Starts the guest and gives its interface addresses.
  func startGuest(_ options: [String] = []) throws {
    let running = try guest.inside {
      try Command.Running(["guest-network", "--own-domain", "1"] + loopback + options)
    }
    _ = try running.wait(for: "connected")
    guestProcess = running
    try guest.addAddress("\(Self.addresses.v4.guest)/24", to: "eth0")
    try guest.addAddress("\(Self.addresses.v6.guest)/64", to: "eth0")
  }

  func stopGuest() throws {
    let running = try #require(guestProcess)
    running.process.terminate()
    let end = running.finish()
    #expect(end.status == 0, "\(end.output)")
    guestProcess = nil
  }

  // MARK: Traffic

  /// The guest's last words, if it ended before it was told to: the cause of whatever else fails.
  private var guestsEnd: String {
    guard let running = guestProcess, !running.process.isRunning else { return "" }
    return "; the guest has ended: \(running.finish().output)"
  }

  func ping(_ options: String = "") throws {
    try host.execute("ping", words("-c 2 -i 0.2 -W 5 \(options) \(Self.addresses.v4.guest)"))
    try guest.execute("ping", words("-c 2 -i 0.2 -W 5 \(options) \(Self.addresses.v6.host)"))
  }

  private func words(_ text: String) -> [String] { text.split(separator: " ").map(String.init) }

  /// Sends bytes that tell their place, both ways, by IPv4 and IPv6, and compares what comes; then looks whether
  /// any checksum was wrong.
  func transferAll(byteCount: Int = 1 << 20) throws {
    let (v4, v6) = Self.addresses
    for (address, source, sink) in [
      (v4.guest, host, guest), (v4.host, guest, host), (v6.guest, host, guest), (v6.host, guest, host),
    ] {
      #expect(
        try Self.transfer(byteCount, to: address, from: source, to: sink) == byteCount,
        "to \(address)\(guestsEnd)")
    }
    for (network, name) in [(host, "host"), (guest, "guest")] {
      #expect(try Self.wrongChecksums(in: network) == 0, "checksums were wrong in the \(name)")
    }
  }

  /// Checksum errors that the kernel has counted (/proc/net/snmp, snmp6).
  static func wrongChecksums(in network: NetworkNamespace) throws -> Int {
    try network.inside {
      let four = try String(contentsOfFile: "/proc/thread-self/net/snmp", encoding: .utf8)
      let six = try String(contentsOfFile: "/proc/thread-self/net/snmp6", encoding: .utf8)
      var total = 0
      let lines = four.split(separator: "\n").map { $0.split(separator: " ") }
      for (names, values) in zip(lines, lines.dropFirst()) where names.first == values.first {
        for (name, value) in zip(names, values) where name == "InCsumErrors" { total += Int(value) ?? 0 }
      }
      for line in six.split(separator: "\n") where line.contains("CsumErrors") {
        total += line.split(separator: " ").last.flatMap { Int($0) } ?? 0
      }
      return total
    }
  }

  /// Sends by TCP, and gives how many bytes came as they were sent.
  static func transfer(
    _ byteCount: Int, to address: String, from source: NetworkNamespace, to sink: NetworkNamespace
  ) throws -> Int {
    let listener = try sink.inside { try StreamSocket(listeningAt: address) }
    let port = listener.port
    let sender = try source.inside { try StreamSocket(connectingTo: address, port: port) }
    let receiver = try listener.accept()
    let finished = DispatchSemaphore(value: 0)
    Thread.detachNewThread {
      sender.send(byteCount)
      finished.signal()
    }
    let received = receiver.receive()
    receiver.shutDown()
    finished.wait()
    return received
  }
}
