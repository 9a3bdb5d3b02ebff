import Foundation
import Loopback
import RingKit
import Testing

/// The daemon's life around a guest that is a process of its own.
@Suite struct LifeTests {
  private struct List: Decodable {
    struct Statistics: Decodable {
      var reads: UInt64
      var writes: UInt64
      var fsyncs: UInt64
      var usesPersistentGrants: Bool
      var grantsMapped: UInt64
    }
    var name: String
    var state: String
    var statistics: Statistics?
  }

  private func list(_ stage: CommandStage) throws -> [List] {
    let outcome = try Command.run(["list", "--json"] + stage.host)
    #expect(outcome.status == 0, "\(outcome.errors)")
    return try JSONDecoder().decode([List].self, from: Data(outcome.output.utf8))
  }

  @Test(.timeLimit(.minutes(10)))
  func aDaemonTakesOverFromTheOneThatStopped() throws {
    let stage = try CommandStage()
    try stage.startMachine()
    let machine = "\(stage.directory)/machine"
    // The domain outlives its guest's process, and with it the disk's nodes.
    let presence = try LoopbackHypervisor(directory: machine, domain: DomainID(rawValue: 1))
    defer { withExtendedLifetime(presence) {} }
    let first = try stage.startDaemon()
    #expect(try stage.attach().status == 0)
    let guest = try Command.Running(
      ["guest", "--own-domain", "1", "--vdev", "xvda", "--load", "randrw", "--check", "--duration", "4000"]
        + stage.host)
    _ = try first.wait(for: "-> Connected")
    first.process.terminate()
    let end = first.finish()
    #expect(end.status == 0 && end.output.contains("stopped"))
    // The guest saw nothing of it but time.
    #expect(try list(stage).first?.state == "Connected")

    let second = try stage.startDaemon()
    let outcome = guest.finish()
    #expect(outcome.status == 0, "\(outcome.output)")
    #expect(outcome.output.contains(" 0 errors") && outcome.output.contains(" 0 wrong"), "\(outcome.output)")
    // Whoever reads the shared statistics is led to the daemon that serves.
    let store = try LoopbackHypervisor(directory: machine, domain: DomainID(rawValue: 0)).openStore()
    #expect(
      try store.read("/local/domain/0/backend/vbd3/1/51712/kthread-pid")
        == "\(second.process.processIdentifier)")
    second.process.terminate()
    #expect(second.finish().status == 0)
  }

  /// Two daemons for one kind would fight for every disk; the second says so, and serves when the first was
  /// killed, of which nothing tells.
  @Test(.timeLimit(.minutes(10)))
  func aSecondDaemonLeavesDisksToTheFirst() throws {
    let stage = try CommandStage()
    try stage.startMachine()
    let presence = try LoopbackHypervisor(
      directory: "\(stage.directory)/machine", domain: DomainID(rawValue: 1))
    defer { withExtendedLifetime(presence) {} }
    let first = try stage.startDaemon()
    #expect(try stage.attach().status == 0)
    let other = "\(stage.directory)/second"
    let second = try stage.startDaemon(["--control-socket", "\(other)/control", "--control-directory", other])
    let told = try second.wait(for: "serves this disk too")
    #expect(told.contains("another ringback (process \(first.process.processIdentifier) "), "\(told)")
    kill(first.process.processIdentifier, SIGKILL)
    _ = first.finish()
    _ = try second.wait(for: "the other backend is gone")
    let guest = try Command.run(
      ["guest", "--own-domain", "1", "--vdev", "xvda", "--load", "randrw", "--check", "--duration", "500"]
        + stage.host)
    #expect(guest.status == 0 && guest.output.contains(" 0 wrong"), "\(guest)")
    second.process.terminate()
    #expect(second.finish().status == 0)
  }

  @Test(.timeLimit(.minutes(10)))
  func numbersTellWhatTheGuestDid() throws {
    let stage = try CommandStage()
    try stage.startMachine(domains: [1, 2])
    let daemon = try stage.startDaemon()
    #expect(try stage.attach().status == 0)
    let guest = try Command.Running(
      [
        "guest", "--own-domain", "1", "--vdev", "xvda", "--write-image", stage.image, "--load", "randread",
        "--duration", "60000",
      ] + stage.host)
    _ = try daemon.wait(for: "-> Connected")
    var statistics: List.Statistics?
    for _ in 0..<10_000 {
      statistics = try list(stage).first?.statistics
      if let statistics, statistics.reads > 0, statistics.fsyncs > 0 { break }
    }
    let numbers = try #require(statistics)
    #expect(numbers.writes > 0 && numbers.fsyncs > 0 && numbers.usesPersistentGrants)
    #expect(numbers.grantsMapped > 0 && numbers.grantsMapped < numbers.reads + numbers.writes)

    // A guest that dies takes its disk with it: the daemon was the only one to know of it.
    kill(guest.process.processIdentifier, SIGKILL)
    _ = guest.finish()
    _ = try daemon.wait(for: "gone")
    #expect(try list(stage).isEmpty)
    daemon.process.terminate()
    #expect(daemon.finish().status == 0)
  }
}
