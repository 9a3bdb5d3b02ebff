import Foundation
import Loopback
import RingKit
import Testing

/// Guests' Linux network stacks at one switch of the built daemon: domains 1 and on, each with an interface 0
/// that it calls eth0.
final class SwitchStage {
  /// A guest.
  final class Guest {
    let domain: Int
    let network: NetworkNamespace
    fileprivate(set) var process: Command.Running?
    /// Keeps the domain alive while none of its processes runs.
    private let presence: LoopbackHypervisor

    var v4: String { "10.9.0.\(domain)" }
    var v6: String { "fd00::\(domain)" }
    /// The address that `network-attach` gives it.
    var mac: String { "00:16:3e:00:0\(domain):00" }

    fileprivate init(domain: Int, machine: String) throws {
      self.domain = domain
      network = try NetworkNamespace()
      presence = try LoopbackHypervisor(directory: machine, domain: DomainID(rawValue: UInt16(domain)))
      try network.setUp("lo")
    }
  }

  let stage: CommandStage
  let guests: [Guest]
  private(set) var daemon: Command.Running?
  private let host: NetworkNamespace

  /// A daemon and guests that are attached to `switch:lan`, not started yet.
  init(guestCount: Int = 2, attaching options: [String] = []) throws {
    stage = try CommandStage(imageByteCount: 4096)
    host = try NetworkNamespace()
    try host.setUp("lo")
    try stage.startMachine(domains: Array(1...guestCount))
    let machine = "\(stage.directory)/machine"
    guests = try (1...guestCount).map { try Guest(domain: $0, machine: machine) }
    try startDaemon()
    for guest in guests { try attach(guest, options) }
  }

  deinit {
    for running in guests.map(\.process) + [daemon] {
      guard let running, running.process.isRunning else { continue }
      running.process.terminate()
      running.process.waitUntilExit()
    }
  }

  var control: [String] { ["--control-socket", "\(stage.directory)/control"] }

  func startDaemon() throws {
    daemon = try host.inside { try stage.startDaemon(["--kind", "vif"] + control) }
  }

  func stopDaemon(violently: Bool = false) throws {
    let running = try #require(daemon)
    if violently { kill(running.process.processIdentifier, SIGKILL) } else { running.process.terminate() }
    let end = running.finish()
    if !violently { #expect(end.status == 0, "\(end.output)") }
    daemon = nil
  }

  func ringback(_ arguments: [String]) throws -> Command.Outcome {
    try host.inside { try Command.run(arguments + stage.host) }
  }

  func attach(_ guest: Guest, _ options: [String] = [], link: String = "switch:lan") throws {
    let outcome = try ringback(
      ["network-attach", "--domain", "\(guest.domain)", "--link", link] + options)
    try #require(outcome.status == 0, "\(outcome.errors)")
  }

  /// Starts a guest and gives its interface addresses.
  func start(_ guest: Guest, _ options: [String] = []) throws {
    let running = try guest.network.inside {
      try Command.Running(["guest-network", "--own-domain", "\(guest.domain)"] + stage.host + options)
    }
    _ = try running.wait(for: "connected")
    guest.process = running
    try guest.network.addAddress("\(guest.v4)/24", to: "eth0")
    try guest.network.addAddress("\(guest.v6)/64", to: "eth0")
  }

  func stop(_ guest: Guest) throws {
    let running = try #require(guest.process)
    running.process.terminate()
    let end = running.finish()
    #expect(end.status == 0, "\(end.output)")
    guest.process = nil
  }

  // MARK: Traffic

  /// Both families, one way and its answers.
  func ping(_ from: Guest, _ to: Guest) throws {
    for address in [to.v4, to.v6] {
      try from.network.execute("ping", ["-c", "2", "-i", "0.2", "-W", "5", address])
    }
  }

  /// Bytes that tell their place, both ways and by both families, and no wrong checksum anywhere.
  func transferAll(_ one: Guest, _ other: Guest, byteCount: Int = 1 << 20) throws {
    for (source, sink) in [(one, other), (other, one)] {
      for address in [sink.v4, sink.v6] {
        let moved = try NetworkStage.transfer(
          byteCount, to: address, from: source.network, to: sink.network)
        #expect(moved == byteCount, "to \(address)")
      }
    }
    for guest in [one, other] {
      #expect(try NetworkStage.wrongChecksums(in: guest.network) == 0, "in domain \(guest.domain)")
    }
  }

  /// What the daemon says of an interface's numbers.
  func numbers(of guest: Guest) throws -> [String: Any] {
    let outcome = try ringback(
      ["stats", "--vif", "0", "--domain", "\(guest.domain)", "--json"] + control)
    let array = try #require(
      JSONSerialization.jsonObject(with: Data(outcome.output.utf8)) as? [[String: Any]],
      "\(outcome.output)\(outcome.errors)")
    return try #require(array.first?["total"] as? [String: Any])
  }

  func number(_ direction: String, _ name: String, of guest: Guest) throws -> Int {
    let part = try #require(try numbers(of: guest)[direction] as? [String: Any])
    return try #require(part[name] as? Int, "\(part)")
  }
}

extension SwitchStage {
  /// The toolstack's connection to the store.
  func store() throws -> StoreClient {
    try LoopbackHypervisor(directory: "\(stage.directory)/machine", domain: DomainID(rawValue: 0)).openStore()
  }
}
