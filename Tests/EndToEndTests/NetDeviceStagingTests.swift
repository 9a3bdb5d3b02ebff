import Frontends
import Netback
import RingKit
import Testing

/// Staging grants of a served interface: what they spare, and what a guest may try with them (netif.h, control
/// messages 8 to 10).
@Suite(
  .serialized, .timeLimit(.minutes(10)),
  .disabled(if: netDeviceObstacle != nil, Comment(rawValue: netDeviceObstacle ?? "")))
struct NetDeviceStagingTests {
  /// Two of each queue, and the control ring.
  private let ringPages = 5

  /// As they are to be read from by the backend, or written to.
  private func grants(_ pages: SharedPages, isReadOnly: Bool) -> [NetFrontend.StagingGrant] {
    pages.references.map { NetFrontend.StagingGrant(reference: $0, isReadOnly: isReadOnly) }
  }

  private struct Copies: Equatable {
    var granted: UInt64 = 0
    var staged: UInt64 = 0
  }

  private func copies(_ world: NetDeviceWorld, _ frontend: NetFrontend) throws -> Copies {
    // Its answer comes after the turns of the queues, which publish their numbers at the end.
    _ = try frontend.hashMappingSize()
    return try world.statistics().reduce(into: Copies()) { sum, queue in
      sum.granted += queue.transmit.grantCopies + queue.receive.grantCopies
      sum.staged += queue.transmit.stagedCopies + queue.receive.stagedCopies
    }
  }

  @Test func stagedPagesSpareGrantCopiesUntilTheyAreTakenBack() throws {
    let world = try NetDeviceWorld()
    try world.addInterface()
    let frontend = try world.connected()
    try world.traffic(frontend, count: 5)
    let before = try copies(world, frontend)
    #expect(before.granted >= 15 && before.staged == 0, "\(before)")
    #expect(world.mappedPageCount == ringPages)

    try frontend.stageAllPages()
    #expect(world.mappedPageCount == ringPages + 2 * 512)
    try world.traffic(frontend, count: 20)
    let staged = try copies(world, frontend)
    #expect(staged.granted == before.granted && staged.staged >= 60, "\(before) \(staged)")
    // One more has no room.
    #expect(throws: NetFrontendError.self) {
      let page = try #require(frontend.control).dataReference
      try frontend.addGrantMapping([.init(reference: page, isReadOnly: false)], to: 0)
    }

    // Taken back while packets wait in both directions, over and over.
    let grants = frontend.queues.map { queue in
      queue.transmitter.dataPages.references.map {
        NetFrontend.StagingGrant(reference: $0, isReadOnly: true)
      }
        + queue.receiver.dataPages.references.map {
          NetFrontend.StagingGrant(reference: $0, isReadOnly: false)
        }
    }
    var sent = 0
    for round in 0..<6 {
      for queue in frontend.queues {
        let number = queue.number
        for frame in 0..<30 {
          let bytes = experimentalFrame(UInt8(1 + (round * 60 + frame) % 250), byteCount: 300)
          try #require(try queue.transmitter.place(bytes))
          try world.outside.send(bytes)
          sent += 1
        }
        try frontend.push()
        if round % 2 == 0 {
          let removed = try frontend.deleteGrantMapping(grants[number], of: number)
          #expect(removed.count == 512)
        } else {
          try frontend.addGrantMapping(grants[number], to: number)
        }
      }
      #expect(world.mappedPageCount == (round % 2 == 0 ? ringPages : ringPages + 2 * 512))
      try finish(frontend, world, count: 60)
    }
    #expect(sent == 360)
    let after = try copies(world, frontend)
    #expect(after.granted > staged.granted && after.staged > staged.staged, "\(staged) \(after)")

    // The pages go with the connection.
    try frontend.reconnect(timeoutMilliseconds: worldMilliseconds)
    #expect(world.mappedPageCount == ringPages)
    try world.awaitPath(to: frontend)
    try world.traffic(frontend, count: 3)
    #expect(try copies(world, frontend).staged == 0)
    try frontend.stageAllPages()
    try world.traffic(frontend, count: 3)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    #expect(world.mappedPageCount == 0)
    try world.daemon.stop()
  }

  /// Waits for so many packets in each direction.
  private func finish(_ frontend: NetFrontend, _ world: NetDeviceWorld, count: Int) throws {
    var (received, answered) = (0, 0)
    for _ in 0..<count { _ = try world.outside.receive() }
    while received < count || answered < count {
      for queue in frontend.queues {
        while try queue.receiver.nextPacket() != nil { received += 1 }
        queue.receiver.post()
        while let completion = try queue.transmitter.nextCompletion() {
          #expect(completion.status == .okay)
          answered += 1
        }
      }
      try frontend.push()
      guard received < count || answered < count else { break }
      guard try frontend.wait(timeoutMilliseconds: worldMilliseconds) else {
        throw WorldFailure("\(received) packets came and \(answered) answers of \(count)")
      }
    }
    #expect(received == count && answered == count)
  }

  /// All of a list or nothing of it.
  @Test func grantsThatAreNotOursAreRefusedWithoutATrace() throws {
    let world = try NetDeviceWorld()
    try world.addInterface()
    let frontend = try world.connected()
    let good = grants(try world.share(40), isReadOnly: false)
    let fixed = try world.share(1, .readOnly)
    let foreign = try world.share(1, with: DomainID(rawValue: 5))
    for bad in [
      grants(foreign, isReadOnly: true), grants(foreign, isReadOnly: false), grants(fixed, isReadOnly: false),
      [.init(reference: GrantReference(rawValue: .max), isReadOnly: true)],
      // Twice in one list.
      [good[0]], [.init(reference: good[1].reference, isReadOnly: true)],
    ] {
      for place in [0, 20, 40] {
        var list = good
        list.insert(contentsOf: bad, at: place)
        #expect(try frontend.status(adding: list, to: 0) == .invalidParameter)
        #expect(world.mappedPageCount == ringPages)
      }
    }
    // None of that has left anything behind which would stand in the way.
    #expect(try frontend.status(adding: good, to: 0) == .success)
    #expect(try frontend.status(adding: grants(fixed, isReadOnly: true), to: 0) == .success)
    #expect(world.mappedPageCount == ringPages + 41)
    // What a queue has it does not get again.
    #expect(try frontend.status(adding: [good[7]], to: 0) == .invalidParameter)
    #expect(
      try frontend.status(adding: grants(try world.share(1), isReadOnly: false) + [good[7]], to: 0)
        != .success)
    #expect(world.mappedPageCount == ringPages + 41)
    let removed = try frontend.deleteGrantMapping([good[7], good[7], good[8]], of: 0)
    #expect(removed.count == 2 && removed.grants.map(\.status) == [0, 2, 0])
    #expect(world.mappedPageCount == ringPages + 39)
    try world.traffic(frontend, count: 3)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    #expect(world.mappedPageCount == 0)
    try world.daemon.stop()
  }

  /// A page that two queues have stays mapped for one when the other lets go of it.
  @Test func queuesThatStageTheSamePagesDoNotTakeThemFromEachOther() throws {
    let world = try NetDeviceWorld()
    try world.addInterface()
    let frontend = try world.connected()
    try frontend.stageAllPages()
    let first = frontend.queues[0]
    let pages = grants(first.receiver.dataPages, isReadOnly: false)
    #expect(world.mappedPageCount == ringPages + 2 * 512)
    let room = grants(frontend.queues[1].receiver.dataPages, isReadOnly: false)
    _ = try frontend.deleteGrantMapping(room, of: 1)
    #expect(try frontend.status(adding: pages, to: 1) == .success)
    #expect(world.mappedPageCount == ringPages + 512 + 256, "they are mapped once")
    #expect(try frontend.deleteGrantMapping(pages, of: 0).count == 256)
    #expect(world.mappedPageCount == ringPages + 512 + 256)
    try world.traffic(frontend, count: 5)
    #expect(try frontend.deleteGrantMapping(pages, of: 1).count == 256)
    #expect(world.mappedPageCount == ringPages + 512)
    try world.traffic(frontend, count: 5)
    try world.daemon.stop()
  }

  /// Pages that are staged for reading are not written through that mapping, whatever their grant allows.
  @Test func pagesStagedForReadingAreNotWrittenTo() throws {
    let world = try NetDeviceWorld()
    try world.addInterface()
    let frontend = try world.connected()
    for queue in frontend.queues {
      try frontend.addGrantMapping(grants(queue.receiver.dataPages, isReadOnly: true), to: queue.number)
    }
    let before = try copies(world, frontend)
    try world.traffic(frontend, count: 10)
    let after = try copies(world, frontend)
    #expect(after.staged == before.staged && after.granted >= before.granted + 30, "\(before) \(after)")
    try world.daemon.stop()
  }

  /// A guest may stage the very pages of its rings; then it has its packets in them, and nobody else suffers.
  @Test func aGuestThatStagesItsOwnRingsHarmsItselfAlone() throws {
    let world = try NetDeviceWorld(threadCount: 1)
    try world.addInterface(0)
    try world.addInterface(1)
    let other = try world.connected(1)
    let frontend = try world.connected(0)
    let control = try #require(frontend.control)
    let rings =
      frontend.queues.flatMap { [$0.transmitter.ringPages, $0.receiver.ringPages] }
      + [control.ringPages, control.dataPages]
    let list = rings.flatMap { grants($0, isReadOnly: false) }
    #expect(try frontend.status(adding: list, to: 0) == .success)
    #expect(try frontend.deleteGrantMapping(list, of: 1).count == 0)
    try world.traffic(frontend, count: 3)
    // A packet whose bytes are the transmit ring itself.
    let transmitter = frontend.queues[0].transmitter
    let request = NetTxRequest(
      reference: transmitter.ringPages.references[0], offset: 0, flags: [], id: 255, size: 1000)
    try #require(transmitter.placeRaw(request.encode()))
    try frontend.push()
    #expect(try frontend.completion().status == .okay)
    // A slot that ends beyond its staged page (net.md 12).
    var beyond = request
    (beyond.offset, beyond.size) = (4000, 97)
    try #require(transmitter.placeRaw(beyond.encode()))
    try frontend.push()
    let path = world.backendPath()
    try world.wait("it does not close") { try world.toolstack.state("\(path)/state") == .closing }
    #expect(try world.errorNode()?.contains("ends beyond its page") == true)
    try frontend.followClose(timeoutMilliseconds: worldMilliseconds)
    #expect(world.mappedPageCount == ringPages)
    try other.drain()
    try other.setHashAlgorithm(1)
    try world.traffic(other, count: 3)
    try world.daemon.stop()
  }
}
