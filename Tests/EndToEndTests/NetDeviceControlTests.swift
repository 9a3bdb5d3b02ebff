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
    let told = try #require(try world.errorNode())
    #expect(told.contains("control ring"), "\(told)")
    try frontend.followClose(timeoutMilliseconds: worldMilliseconds)
    #expect(world.mappedPageCount == 5, "the other interface's rings alone")

    try other.setHashAlgorithm(1)
    try world.traffic(other, count: 3)
    // It begins anew when its frontend does.
    try frontend.connect(timeoutMilliseconds: worldMilliseconds)
    try frontend.setHashAlgorithm(1)
    try world.daemon.stop()
  }
}
