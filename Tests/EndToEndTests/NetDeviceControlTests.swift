import Frontends
import Loopback
import Netback
import RingKit
import Testing

/// The control ring of a served interface: promptness, staging grants, its end and its breach.
@Suite(
  .serialized, .timeLimit(.minutes(10)),
  .disabled(if: netDeviceObstacle != nil, Comment(rawValue: netDeviceObstacle ?? "")))
struct NetDeviceControlTests {
  @Test func trap38_everyControlRequestIsAnsweredWhileBothRingsStandStill() throws {
    let world = try NetDeviceWorld()
    // Two frames of this test's in a second.
    try world.addInterface(nodes: ["rate": "2000,1000000"])
    let frontend = try world.connected(0, .control(queueCount: 1))
    let queue = frontend.queues[0]
    for number in 0..<200 {
      try #require(try queue.transmitter.place(experimentalFrame(UInt8(number), byteCount: 1000)))
    }
    try frontend.push()
    try world.wait("packets are not held back") { try world.statistics()[0].transmit.creditWaits > 0 }
    // Nothing is posted again.
    for number in 0..<600 { try world.outside.send(experimentalFrame(UInt8(number & 0xFF))) }
    try world.wait("nothing waits for slots") { try world.statistics()[0].parkedCount > 0 }

    let list = try #require(frontend.control).dataReference.rawValue
    let pages = queue.receiver.dataPages.references.prefix(20).map {
      NetFrontend.StagingGrant(reference: $0, isReadOnly: false)
    }
    for _ in 0..<50 {
      try frontend.setHashAlgorithm(1)
      #expect(try frontend.hashFlags() == NetHashTypes.all.rawValue)
      try frontend.setHashFlags(15)
      try frontend.setHashKey([1, 2, 3])
      #expect(try frontend.hashMappingSize() == UInt32(NetHashState.maximumMappingCount))
      try frontend.setHashMappingSize(4)
      try frontend.setHashMapping([0, 0, 0, 0])
      #expect(try frontend.grantMappingSize(of: 0) == 512)
      try frontend.addGrantMapping(pages, to: 0)
      #expect(world.mappedPageCount == 3 + pages.count)
      let removed = try frontend.deleteGrantMapping(pages, of: 0)
      #expect(removed.count == UInt32(pages.count) && removed.grants.allSatisfy { $0.status == 0 })
      #expect(world.mappedPageCount == 3)
      // What is wrong is answered too.
      for (type, first, second, third, status) in [
        (NetControlType.setHashMapping, list, 1, UInt32.max, NetControlStatus.bufferOverflow),
        (.setHashMapping, list, 5, 0, .invalidParameter), (.setHashKey, list, 41, 0, .bufferOverflow),
        (.setHashKey, .max, 8, 0, .invalidParameter), (.setHashAlgorithm, 2, 0, 0, .invalidParameter),
        (.getGrantMappingSize, 1, 0, 0, .invalidParameter), (.addGrantMapping, 0, .max, 1, .invalidParameter),
        (.deleteGrantMapping, 1, list, 1, .invalidParameter),
        (NetControlType(rawValue: 11), 0, 0, 0, .notSupported),
      ] {
        let response = try frontend.ask(type, first, second, third)
        #expect(response.status == status.rawValue, "request \(type.rawValue)")
      }
      try frontend.setHashAlgorithm(0)
    }
    let numbers = try world.statistics()[0]
    #expect(numbers.parkedCount > 0 && queue.transmitter.outstanding > 0, "the rings did not stand still")
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    #expect(world.mappedPageCount == 0)
    try world.daemon.stop()
  }

  /// A round trip of `count` frames on each queue, each checked.
  private func traffic(_ world: NetDeviceWorld, _ frontend: NetFrontend, count: Int) throws {
    for number in 0..<count {
      let frame = experimentalFrame(UInt8(number % 250 + 1), byteCount: 200)
      for queue in frontend.queues {
        #expect(try frontend.send(frame, on: queue.number).status == .okay)
        #expect(try world.outside.receive() == frame)
      }
      try world.outside.send(frame)
      #expect(try frontend.nextArrival().bytes == frame)
    }
  }

  private struct Copies: Equatable {
    var granted: UInt64 = 0
    var staged: UInt64 = 0
  }

  private func copies(_ world: NetDeviceWorld) throws -> Copies {
    try world.statistics().reduce(into: Copies()) { sum, queue in
      sum.granted += queue.transmit.grantCopies + queue.receive.grantCopies
      sum.staged += queue.transmit.stagedCopies + queue.receive.stagedCopies
    }
  }

  @Test func stagedPagesSpareGrantCopiesUntilTheyAreTakenBack() throws {
    let world = try NetDeviceWorld()
    try world.addInterface()
    let frontend = try world.connected()
    let ringPages = 5
    try traffic(world, frontend, count: 5)
    let before = try copies(world)
    #expect(before.granted >= 15 && before.staged == 0, "\(before)")
    #expect(world.mappedPageCount == ringPages)

    try frontend.stageAllPages()
    #expect(world.mappedPageCount == ringPages + 2 * 512)
    try traffic(world, frontend, count: 20)
    let staged = try copies(world)
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
    let after = try copies(world)
    #expect(after.granted > staged.granted && after.staged > staged.staged, "\(staged) \(after)")

    // The pages go with the connection.
    try frontend.reconnect(timeoutMilliseconds: worldMilliseconds)
    #expect(world.mappedPageCount == ringPages)
    try world.awaitPath(to: frontend)
    try traffic(world, frontend, count: 3)
    #expect(try copies(world).staged == 0)
    try frontend.stageAllPages()
    try traffic(world, frontend, count: 3)
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

  @Test func theDeathOfAGuestUnmapsItsStagedPages() throws {
    let world = try NetDeviceWorld()
    try world.addInterface()
    var frontend: NetFrontend? = try world.connected()
    try frontend?.stageAllPages()
    #expect(world.mappedPageCount == 5 + 2 * 512)
    try frontend?.queues.forEach { queue in
      for number in 0..<50 { _ = try queue.transmitter.place(experimentalFrame(UInt8(number + 1))) }
    }
    try frontend?.push()
    frontend?.abandon()
    frontend = nil
    world.killGuest()
    try world.detach()
    try world.wait("it does not close") {
      try world.toolstack.state("\(world.backendPath())/state") == .closed
    }
    #expect(world.host.machine.statistics.mappedPageCount == 0)
    try world.daemon.stop()
  }

  @Test func aBrokenControlRingBreaksItsOwnInterfaceAlone() throws {
    let world = try NetDeviceWorld(threadCount: 1)
    try world.addInterface(0)
    try world.addInterface(1)
    let other = try world.connected(1)
    let frontend = try world.connected(0)
    try other.drain()
    try frontend.stageAllPages()
    let control = try #require(frontend.control)
    // req_prod, further ahead than there are slots (ring.h).
    control.ringPages.pages.setBytes([0x00, 0x10, 0, 0], at: 0)
    try frontend.notify(control.port)
    let path = world.backendPath()
    try world.wait("it does not close") { try world.toolstack.state("\(path)/state") == .closing }
    let told = try #require(
      try world.toolstack.read("/local/domain/0/error/backend/vif/\(NetDeviceWorld.guest)/0/error"))
    #expect(told.contains("control ring"), "\(told)")
    try frontend.followClose(timeoutMilliseconds: worldMilliseconds)
    #expect(world.mappedPageCount == 5, "the other interface's rings alone")

    try other.setHashAlgorithm(1)
    try traffic(world, other, count: 3)
    // It begins anew when its frontend does.
    try frontend.connect(timeoutMilliseconds: worldMilliseconds)
    try frontend.setHashAlgorithm(1)
    try world.daemon.stop()
  }
}
