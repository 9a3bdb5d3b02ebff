import Loopback
import Netback
import RingKit
import Testing

@testable import Frontends

/// What becomes of a control ring, and of what was set with it, when a frontend or a daemon begins anew.
@Suite(
  .serialized, .timeLimit(.minutes(10)),
  .disabled(if: netDeviceObstacle != nil, Comment(rawValue: netDeviceObstacle ?? "")))
struct NetDeviceRestartTests {
  private let flow = NetDeviceHashTests.flows[0]

  private func setAll(_ frontend: NetFrontend) throws {
    try frontend.hashAll(with: NetDeviceHashTests.key)
    try frontend.setHashMappingSize(3)
    try frontend.setHashMapping([1, 1, 1])
  }

  private func arrival(_ world: NetDeviceWorld, _ frontend: NetFrontend) throws -> NetFrontend.Arrival {
    try world.outside.send(flow.frame(1))
    return try frontend.nextArrival()
  }

  /// Nothing of what was set holds any more: no algorithm, no types, no key, no table, no page.
  private func expectNothingSet(_ world: NetDeviceWorld, _ frontend: NetFrontend) throws {
    #expect(world.mappedPageCount == 5)
    #expect(try frontend.ask(.getHashFlags).status == NetControlStatus.notSupported.rawValue)
    try frontend.setHashAlgorithm(1)
    #expect(try arrival(world, frontend).packet.hash == nil, "types are still set")
    try frontend.setHashFlags(NetHashTypes.all.rawValue)
    let unkeyed = try arrival(world, frontend)
    #expect(unkeyed.packet.hash == NetHash(type: .ipv4TCP, algorithm: 1, value: 0), "a key is still set")
    #expect(unkeyed.queue == 0, "a table is still set")
    let page = try #require(frontend.control).dataReference
    let grant = NetFrontend.StagingGrant(reference: page, isReadOnly: false)
    #expect(try frontend.deleteGrantMapping([grant], of: 0).count == 0)
    try frontend.stageAllPages()
    #expect(world.mappedPageCount == 5 + 2 * 512)
    try world.traffic(frontend, count: 3)
  }

  @Test func aFrontendThatReconnectsFindsNothingSet() throws {
    let world = try NetDeviceWorld()
    try world.addInterface()
    let frontend = try world.connected()
    try frontend.stageAllPages()
    for _ in 0..<3 {
      try setAll(frontend)
      let before = try arrival(world, frontend)
      #expect(before.queue == 1 && before.packet.hash?.value == flow.tcp)
      try frontend.reconnect(timeoutMilliseconds: worldMilliseconds)
      try world.awaitPath(to: frontend)
      // Hashes that nobody has asked for on these rings would be thrown here.
      try world.traffic(frontend, count: 3)
      try expectNothingSet(world, frontend)
    }
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    #expect(world.mappedPageCount == 0)
    try world.daemon.stop()
  }

  /// The next daemon goes on in the same control ring, answers what was asked meanwhile, and begins with nothing
  /// set, while packets pass on by grant copy: the frontend loses no packet of its own by that.
  @Test func trap4_theNextDaemonGoesOnInTheControlRing() throws {
    let world = try NetDeviceWorld()
    try world.addInterface()
    let frontend = try world.connected()
    let control = try #require(frontend.control)
    try frontend.stageAllPages()
    for _ in 0..<3 {
      try setAll(frontend)
      try world.traffic(frontend, count: 3)
      try world.daemon.stop()
      #expect(world.mappedPageCount == 0)
      let ids = try (0..<20).map { _ in try #require(try control.place(.getHashMappingSize)) }
      _ = control.push()
      try world.startDaemon()
      var answered: [UInt16] = []
      while answered.count < ids.count {
        try frontend.waitForControl()
        while let response = try control.nextResponse() {
          #expect(response.status == 0 && response.data == 128)
          answered.append(response.id)
        }
      }
      #expect(answered == ids)
      try world.awaitPath(to: frontend)
      try world.traffic(frontend, count: 3)
      try expectNothingSet(world, frontend)
    }
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.daemon.stop()
    #expect(world.mappedPageCount == 0)
  }

  /// The daemon is stopped while requests about staging are under way and later ones are answered already: what
  /// it has taken it answers, and what it has not taken the next one does.
  @Test func trap4_everyRequestIsAnsweredOnceAcrossDaemons() throws {
    let world = try NetDeviceWorld()
    try world.addInterface()
    let frontend = try world.connected()
    let control = try #require(frontend.control)
    let pages = try world.share(100)
    control.dataPages.pages.setWords(pages.references.map { UInt64($0.rawValue) }, at: 0)
    let list = control.dataReference.rawValue
    for _ in 0..<3 {
      var (placed, answered) = (0, 0)
      while true {
        // Each takes many turns; what is asked for between is answered at once.
        let type: NetControlType =
          placed % 2 == 0 ? .getHashMappingSize : placed % 4 == 1 ? .addGrantMapping : .deleteGrantMapping
        guard try control.place(type, 0, list, 100) != nil else { break }
        placed += 1
      }
      #expect(placed == 128)
      try frontend.pushControl()
      try frontend.waitForControl()
      try world.daemon.stop()
      try world.startDaemon()
      while answered < placed {
        try frontend.waitForControl()
        // A second answer to a request is thrown here.
        while try control.nextResponse() != nil { answered += 1 }
      }
      #expect(answered == 128 && control.outstanding == 0)
      // Also that none comes later.
      #expect(try frontend.ask(.getHashMappingSize).data == 128)
    }
    try world.awaitPath(to: frontend)
    try world.traffic(frontend, count: 3)
    try world.daemon.stop()
    #expect(world.mappedPageCount == 0)
  }

  /// A daemon that ends without closing anything, with a control ring and staged pages: the queues and their
  /// group let go of each other, and with them all pages.
  @Test func threadsThatEndWithTheirQueuesLeaveNothingMapped() throws {
    let world = try NetDeviceWorld()
    try world.addInterface()
    let frontend = try world.connected()
    try setAll(frontend)
    try frontend.stageAllPages()
    #expect(world.mappedPageCount == 5 + 2 * 512)
    try world.daemon.crash()
    try world.wait("pages stay mapped") { world.mappedPageCount == 0 }
    frontend.abandon()
  }
}
