import Foundation
import Loopback
import RingKit
import Testing

/// The daemon's interfaces between two real network stacks: whatever is wrong with a ring, an offload or a
/// checksum shows as a packet that Linux does not take.
@Suite(
  .serialized, .enabled(if: networkObstacle == nil, Comment(rawValue: networkObstacle ?? "")),
  .timeLimit(.minutes(10)))
struct NetworkTests {
  /// Every offload alone, all of them, none; and the other things that a frontend can do without.
  static let negotiations = [
    "", "sg,csum4,csum6,gso4,gso6", "csum4,csum6,gso4,gso6", "sg,csum6,gso4,gso6", "sg,csum4,gso4,gso6",
    "csum6,gso6", "csum4,gso4", "gso4,gso6", "split", "notify",
  ]

  @Test(arguments: negotiations) func bytesPassWithWhateverAFrontendNegotiates(without: String) throws {
    let network = try NetworkStage()
    try network.attach()
    try network.setUpHost()
    try network.startGuest(without.isEmpty ? [] : ["--without", without])
    try network.ping()
    try network.transferAll()
    try network.stopGuest()
    try network.stopDaemon()
  }

  @Test func twoQueuesWithRoomForXDPAndJumboFrames() throws {
    let network = try NetworkStage()
    try network.attach()
    try network.setUpHost()
    try network.host.ip("link set dev vif1.0 mtu 9000")
    try network.startGuest(["--queues", "2", "--headroom", "256"])
    try network.guest.ip("link set dev eth0 mtu 9000")
    try network.ping("-s 8000 -M do")
    try network.transferAll()
    try network.stopGuest()
  }

  /// A multicast frame that nobody has asked for stays out; ARP, a broadcast, does not (netif.h,
  /// request-multicast-control).
  @Test func multicastStaysOutWhereTheGuestFiltersIt() throws {
    let network = try NetworkStage()
    try network.attach()
    try network.setUpHost()
    try network.startGuest(["--multicast-control"])
    try network.host.execute("ping", ["-c", "1", "-W", "5", NetworkStage.addresses.v4.guest])
    // Neighbours of IPv6 are asked for by multicast.
    #expect(throws: ToolFailure.self) {
      try network.host.execute("ping", ["-c", "1", "-W", "1", NetworkStage.addresses.v6.guest])
    }
    try network.stopGuest()
  }

  /// A guest that goes and comes finds the same TAP: its bridge has not noticed.
  @Test func theTAPOutlivesAGuestThatReconnects() throws {
    let network = try NetworkStage()
    try network.attach()
    try network.setUpHost()
    let index = try network.index(of: "vif1.0")
    for options in [[], ["--without", "sg,gso4,gso6"], ["--queues", "2"]] {
      try network.startGuest(options)
      try network.transferAll()
      try network.stopGuest()
      #expect(try network.index(of: "vif1.0") == index)
    }
    #expect(try network.ringback(["network-detach", "--domain", "1"]).status == 0)
    _ = try network.daemon?.wait(for: "INFO gone")
    #expect(try network.index(of: "vif1.0") == nil)
  }

  /// The guest sees only that packets take a little longer (net.md, rule 4).
  @Test(arguments: [false, true]) func aConnectedGuestIsTakenOver(afterKill: Bool) throws {
    let network = try NetworkStage()
    try network.attach()
    try network.setUpHost()
    try network.startGuest()
    try network.transferAll()
    let index = try network.index(of: "vif1.0")
    try network.stopDaemon(violently: afterKill)
    #expect(try network.index(of: "vif1.0") == index, "the bridge keeps its port")
    try network.startDaemon()
    _ = try network.daemon?.wait(for: "connecting:")
    try network.ping()
    try network.transferAll()
    #expect(try network.index(of: "vif1.0") == index)
    try network.stopGuest()
  }

  @Test func whatAScriptRenamesIsStillServed() throws {
    let network = try NetworkStage()
    try network.attach()
    try network.host.ip("link set dev vif1.0 name lan7")
    try network.setUpHost("lan7")
    try network.startGuest(["--queues", "2"])
    try network.ping()
    try network.transferAll()
    try network.stopGuest()
  }

  /// A limit in bytes a second, as xl writes it: 100 kB in 50 ms.
  @Test func aRateHoldsWhatTheGuestSends() throws {
    let network = try NetworkStage()
    try network.attach(["--rate", "100000,50000"])
    try network.setUpHost()
    try network.startGuest(["--queues", "2"])
    let start = ContinuousClock.now
    let count = 4 << 20
    let moved = try NetworkStage.transfer(
      count, to: NetworkStage.addresses.v4.host, from: network.guest, to: network.host)
    #expect(moved == count)
    // 4 MiB less the burst at 2 MB/s: no machine can be too fast for it.
    #expect(ContinuousClock.now - start > .seconds(1))
    try network.stopGuest()
  }

  /// A toolstack takes the link down and up again by a node of the backend's.
  @Test func theLinkFollowsNodeCarrier() throws {
    let network = try NetworkStage()
    try network.attach()
    try network.setUpHost()
    try network.startGuest()
    let store = try LoopbackHypervisor(
      directory: "\(network.stage.directory)/machine", domain: DomainID(rawValue: 0)
    ).openStore()
    for (value, isUp) in [("0", false), ("1", true)] {
      try store.write("/local/domain/0/backend/vif/1/0/carrier", value)
      _ = try network.daemon?.wait(for: "the link is \(isUp ? "up" : "down") by node carrier")
      let status = try network.host.inside { try LinkControl().status(name: "vif1.0") }
      #expect(status?.hasCarrier == isUp)
    }
    try network.ping()
    try network.stopGuest()
  }

  // MARK: What goes wrong

  @Test func aTakenNameIsToldAndHarmsNobody() throws {
    let network = try NetworkStage()
    try network.host.ip("link add name vif1.0 type bridge")
    let refused = try network.ringback(["network-attach", "--domain", "1"])
    #expect(refused.status != 0)
    #expect(refused.errors.contains("vif1.0"), "\(refused.errors)")
    try network.attach(["--vif", "1"])
    #expect(try network.index(of: "vif1.1") != nil)
  }

  @Test(arguments: [
    (["--rate", "fast"], "rate"), (["--link", "switch:"], "link"), (["--link", "veth"], "link"),
  ]) func badNodesAreRefusedWithTheirName(options: [String], name: String) throws {
    let network = try NetworkStage()
    let refused = try network.ringback(["network-attach", "--domain", "1"] + options)
    #expect(refused.status != 0)
    #expect(refused.errors.contains("/vif/1/0/\(name)"), "\(refused.errors)")
    #expect(try network.index(of: "vif1.0") == nil)
  }

  @Test func aDaemonThatStartsTakesAwayWhatBelongsToNobody() throws {
    let network = try NetworkStage()
    try network.attach()
    try network.stopDaemon(violently: true)
    #expect(try network.index(of: "vif1.0") != nil)
    #expect(try network.ringback(["network-detach", "--domain", "1", "--timeout", "1"]).status == 0)
    try network.startDaemon()
    _ = try network.daemon?.wait(for: "was removed")
    #expect(try network.index(of: "vif1.0") == nil)
  }
}

extension NetworkStage {
  /// An interface's index in the host; nil when there is none.
  func index(of name: String) throws -> Int32? {
    try host.inside { try LinkControl().status(name: name)?.index }
  }
}
