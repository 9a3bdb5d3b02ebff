import Foundation
import RingKit
import Testing

/// Guests at a switch of the daemon's, each with a real network stack: no TAP of the host's is between them.
@Suite(
  .serialized, .enabled(if: networkObstacle == nil, Comment(rawValue: networkObstacle ?? "")),
  .timeLimit(.minutes(10)))
struct SwitchTests {
  static let none = "sg,csum4,csum6,gso4,gso6"

  /// What one takes and the other does not is done by the daemon.
  @Test(arguments: [
    ("", ""), ("", none), (none, ""), (none, none), ("gso4,gso6", ""), ("", "csum4,gso4"),
    ("sg,gso4,gso6", "csum6"),
    ("split", "notify"),
  ])
  func bytesPassBetweenUnequalGuests(one: String, other: String) throws {
    let network = try SwitchStage()
    let (first, second) = (network.guests[0], network.guests[1])
    for (guest, without) in [(first, one), (second, other)] {
      try network.start(guest, without.isEmpty ? [] : ["--without", without])
    }
    try network.ping(first, second)
    try network.ping(second, first)
    try network.transferAll(first, second)
    // Long packets between guests that take them whole were copied once.
    let direct = try network.number("transmit", "directPackets", of: first)
    if one.isEmpty && other.isEmpty { #expect(direct > 0) }
    if other == Self.none { #expect(direct == 0) }
    for guest in network.guests { try network.stop(guest) }
    try network.stopDaemon()
  }

  @Test func queuesHeadroomAndJumboFrames() throws {
    let network = try SwitchStage()
    let (first, second) = (network.guests[0], network.guests[1])
    try network.start(first, ["--queues", "2", "--headroom", "256"])
    try network.start(second)
    for guest in network.guests { try guest.network.ip("link set dev eth0 mtu 9000") }
    try first.network.execute(
      "ping", ["-c", "2", "-i", "0.2", "-W", "5", "-s", "8000", "-M", "do", second.v4])
    try network.transferAll(first, second)
    #expect(try network.number("transmit", "directPackets", of: second) > 0)
  }

  /// No device of the host's belongs to it, and no script is waited for.
  @Test func noTAPIsMade() throws {
    let network = try SwitchStage()
    let list = try network.ringback(["list", "--kind", "vif"] + network.control)
    #expect(list.output.contains("switch:lan") && list.output.contains("InitWait"), "\(list.output)")
    let first = network.guests[0]
    try network.start(first)
    let links = try FileManager.default.contentsOfDirectory(atPath: "/sys/class/net")
    #expect(!links.contains { $0.hasPrefix("vif1.") || $0.hasPrefix("vif2.") })
  }

  @Test func aGuestGoesAndComesBack() throws {
    let network = try SwitchStage()
    let (first, second) = (network.guests[0], network.guests[1])
    for guest in network.guests { try network.start(guest) }
    try network.transferAll(first, second)
    try network.stop(second)
    // Nobody is there; the sender is answered all the same.
    #expect(throws: ToolFailure.self) {
      try first.network.execute("ping", ["-c", "2", "-i", "0.2", "-W", "1", second.v4])
    }
    try network.start(second, ["--without", "gso4,gso6"])
    try network.transferAll(first, second)
    try network.stop(second)
    try network.start(second, ["--queues", "2"])
    try network.transferAll(first, second)
  }

  /// Detached and attached again, and to another switch, where the first one is not.
  @Test func portsComeAndGo() throws {
    let network = try SwitchStage()
    let (first, second) = (network.guests[0], network.guests[1])
    for guest in network.guests { try network.start(guest) }
    try network.ping(first, second)
    try network.stop(second)
    #expect(try network.ringback(["network-detach", "--domain", "2"]).status == 0)
    _ = try network.daemon?.wait(for: "INFO gone")
    try network.attach(second, link: "switch:other")
    try network.start(second)
    #expect(throws: ToolFailure.self) {
      try first.network.execute("ping", ["-c", "1", "-W", "1", second.v4])
    }
    try network.stop(second)
    #expect(try network.ringback(["network-detach", "--domain", "2"]).status == 0)
    try network.attach(second)
    try network.start(second)
    try network.ping(first, second)
  }

  /// Broadcasts and multicasts reach all, and what is for one reaches only that one.
  @Test func threePorts() throws {
    let network = try SwitchStage(guestCount: 3)
    for guest in network.guests { try network.start(guest) }
    for guest in network.guests {
      for other in network.guests where other !== guest { try network.ping(guest, other) }
    }
    // ff02::1 is answered by every other one.
    let (first, third) = (network.guests[0], network.guests[2])
    try first.network.execute("ping", ["-c", "2", "-i", "0.2", "-W", "5", "-I", "eth0", "ff02::1"])
    let before = try network.number("receive", "bytes", of: third)
    try network.transferAll(first, network.guests[1], byteCount: 4 << 20)
    let after = try network.number("receive", "bytes", of: third)
    #expect(after - before < 1 << 20, "the third guest was sent what was for the second")
    try network.transferAll(first, third)
  }

  /// A guest that filters multicast is not sent what it has not asked for.
  @Test func multicastStaysOutWhereAGuestFiltersIt() throws {
    let network = try SwitchStage()
    let (first, second) = (network.guests[0], network.guests[1])
    try network.start(first)
    try network.start(second, ["--multicast-control"])
    try first.network.execute("ping", ["-c", "1", "-W", "5", second.v4])
    #expect(throws: ToolFailure.self) {
      try first.network.execute("ping", ["-c", "1", "-W", "1", second.v6])
    }
  }

  /// A limit in bytes a second, as xl writes it: 100 kB in 50 ms.
  @Test func aRateHoldsASender() throws {
    let network = try SwitchStage(attaching: ["--rate", "100000,50000"])
    let (first, second) = (network.guests[0], network.guests[1])
    for guest in network.guests { try network.start(guest) }
    let start = ContinuousClock.now
    let count = 4 << 20
    #expect(
      try NetworkStage.transfer(count, to: second.v4, from: first.network, to: second.network) == count)
    // 4 MiB less the burst at 2 MB/s: no machine can be too fast for it.
    #expect(ContinuousClock.now - start > .seconds(1))
  }

  /// A receiver that stands still costs its sender nothing but what is for it.
  @Test func aGuestThatStandsStillHoldsNobodyUp() throws {
    let network = try SwitchStage(guestCount: 3)
    let (first, second, third) = (network.guests[0], network.guests[1], network.guests[2])
    for guest in network.guests { try network.start(guest) }
    try network.ping(first, third)
    let stopped = try #require(third.process).process.processIdentifier
    kill(stopped, SIGSTOP)
    defer { kill(stopped, SIGCONT) }
    // More than its rings and its backlog hold.
    try first.network.ip("neighbour replace \(third.v4) lladdr \(third.mac) dev eth0 nud permanent")
    _ = try? first.network.execute(
      "ping", ["-q", "-c", "2000", "-i", "0.002", "-W", "1", "-s", "1400", third.v4])
    try network.transferAll(first, second)
    let drops = try #require(
      try (network.numbers(of: third)["receive"] as? [String: Any])?["drops"] as? [String: Int])
    #expect(drops["backlog full"] ?? 0 > 0, "\(drops)")
  }

  /// The guests see only that packets take a little longer.
  @Test(arguments: [false, true]) func connectedGuestsAreTakenOver(afterKill: Bool) throws {
    let network = try SwitchStage()
    let (first, second) = (network.guests[0], network.guests[1])
    for guest in network.guests { try network.start(guest) }
    try network.transferAll(first, second)
    try network.stopDaemon(violently: afterKill)
    try network.startDaemon()
    _ = try network.daemon?.wait(for: "connecting:")
    try network.ping(first, second)
    try network.transferAll(first, second)
  }

  @Test func theLinkFollowsNodeCarrier() throws {
    let network = try SwitchStage()
    let (first, second) = (network.guests[0], network.guests[1])
    for guest in network.guests { try network.start(guest) }
    try network.ping(first, second)
    let store = try network.store()
    try store.write("/local/domain/0/backend/vif/2/0/carrier", "0")
    _ = try network.daemon?.wait(for: "the link is down by node carrier")
    #expect(throws: ToolFailure.self) {
      try first.network.execute("ping", ["-c", "2", "-i", "0.2", "-W", "1", second.v4])
    }
    try store.write("/local/domain/0/backend/vif/2/0/carrier", "1")
    _ = try network.daemon?.wait(for: "the link is up by node carrier")
    try network.ping(first, second)
  }
}
