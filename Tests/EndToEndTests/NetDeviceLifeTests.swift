import Frontends
import Loopback
import Netback
import RingKit
import Testing

/// An interface's life beside its packets: what guests and toolstacks may do to it (net.md, section 4).
@Suite(
  .serialized, .timeLimit(.minutes(10)),
  .disabled(if: netDeviceObstacle != nil, Comment(rawValue: netDeviceObstacle ?? "")))
struct NetDeviceLifeTests {
  /// Whatever a packet took is free again before its answer can be seen: a ring that is always full passes every
  /// packet once and in order.
  @Test func trap6_aSlotIsUsedAgainTheMomentItIsAnswered() throws {
    let world = try NetDeviceWorld()
    try world.addInterface()
    let frontend = try world.connected(0, .control(queueCount: 1))
    let transmitter = frontend.queues[0].transmitter
    let total = 3000
    func frame(_ number: Int) -> [UInt8] {
      experimentalFrame(UInt8(number % 251), byteCount: 60 + number % 900)
    }
    var (placed, answered, passed) = (0, 0, 0)
    while passed < total {
      while placed < total, try transmitter.place(frame(placed)) { placed += 1 }
      try frontend.push()
      while let completion = try transmitter.nextCompletion() {
        #expect(completion.status == .okay)
        answered += 1
        // At once, in the slot and the page that were just given back.
        if placed < total, try transmitter.place(frame(placed)) { placed += 1 }
      }
      // What was answered has been sent, or will be.
      while passed < answered {
        let came = try world.outside.receive()
        try #require(came == frame(passed), "frame \(passed)")
        passed += 1
      }
      try frontend.push()
      if answered < total, try !frontend.wait(timeoutMilliseconds: worldMilliseconds) {
        throw WorldFailure("\(answered) answers of \(placed)")
      }
    }
    #expect(answered == total && transmitter.freePageCount == 256)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.daemon.stop()
  }

  /// Keys are a guest's text: what is no number in its range is refused with the key's name, whatever it is.
  @Test func trap39_keysThatAreNoNumbersAreRefusedByName() throws {
    let world = try NetDeviceWorld()
    try world.addInterface()
    let frontend = try world.connected()
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    let noNumbers = [
      "", "x", "-1", "+1", "1x", " 1", "0x10", "1.0", "١", "4294967296", "18446744073709551616",
      String(repeating: "9", count: 3000),
    ]
    let keys = [
      "multi-queue-num-queues", "queue-0/tx-ring-ref", "queue-1/rx-ring-ref", "queue-1/event-channel-tx",
      "queue-0/event-channel-rx", "feature-sg", "feature-rx-notify", "request-rx-copy", "xdp-headroom",
    ]
    // Every key once, every text at least once.
    var attempts = zip(keys, noNumbers).map { ($0, $1) } + noNumbers[keys.count...].map { ("feature-sg", $0) }
    attempts += [
      ("multi-queue-num-queues", "0"), ("multi-queue-num-queues", "3"), ("xdp-headroom", "2049"),
      ("queue-0/event-channel-tx", "0"),
    ]
    for (key, text) in attempts {
      frontend.options.keys = [key: text]
      #expect(throws: NetFrontendError.self) { try frontend.connect(timeoutMilliseconds: worldMilliseconds) }
      let told = try #require(try world.errorNode(), "\(key)=\(text) is not reported")
      #expect(told.contains(key) && told.utf8.count < 1000, "\(key)=\(text): \(told)")
      try frontend.followClose(timeoutMilliseconds: worldMilliseconds)
      #expect(world.mappedPageCount == 0)
    }
    frontend.options.keys = [:]
    try frontend.connect(timeoutMilliseconds: worldMilliseconds)
    try world.wait("the report outlives its cause") { try world.errorNode() == nil }
    try world.awaitPath(to: frontend)
    try world.traffic(frontend, count: 3)
    try world.daemon.stop()
  }

  /// What a guest writes into its directory while it is connected has no effect.
  @Test func trap40_keysThatChangeWhileConnectedHaveNoEffect() throws {
    let world = try NetDeviceWorld()
    try world.addInterface()
    let frontend = try world.connected()
    let path = "/local/domain/\(NetDeviceWorld.guest)/device/vif/0"
    let store = try world.guestStore()
    let keys = [
      "multi-queue-num-queues", "queue-0/tx-ring-ref", "queue-1/rx-ring-ref", "queue-0/event-channel-tx",
      "ctrl-ring-ref", "event-channel-ctrl", "feature-sg", "feature-gso-tcpv4", "feature-no-csum-offload",
      "feature-rx-notify", "request-rx-copy", "xdp-headroom", "mac", "handle", "backend-id",
    ]
    for text in ["0", "77", "junk", "1"] {
      for key in keys { try store.write("\(path)/\(key)", text) }
      // The daemon looks at everything for that.
      try store.write("\(path)/state", XenbusState.connected.text)
      try world.traffic(frontend, count: 3)
      // More than a page, which only a frontend with feature-sg takes.
      let flow = NetDeviceHashTests.flows[0]
      let large = flow.frame(1, payloadByteCount: 1400)
      try world.outside.send(large)
      #expect(try frontend.nextArrival().bytes == large)
      #expect(try frontend.hashMappingSize() == 128)
    }
    for key in keys { try store.remove("\(path)/\(key)") }
    try store.write("\(path)/state", XenbusState.connected.text)
    try world.traffic(frontend, count: 3)
    #expect(try world.toolstack.state("\(world.backendPath())/state") == .connected)
    #expect(try world.errorNode() == nil && world.mappedPageCount == 5)
    try world.daemon.stop()
  }

  /// A toolstack asks for the end in the backend's own nodes (libxl_device.c); the TAP stays for its script, until
  /// the directory is gone.
  @Test func trap42_aToolstackEndsAnInterfaceByTheBackendsOwnState() throws {
    let world = try NetDeviceWorld()
    try world.addInterface()
    let frontend = try world.connected()
    try frontend.stageAllPages()
    let index = try #require(try world.tapIndex())
    try world.detach()
    #expect(throws: NetFrontendError.self) {
      while try frontend.wait(timeoutMilliseconds: worldMilliseconds) { try frontend.drain() }
    }
    try frontend.followClose(timeoutMilliseconds: worldMilliseconds)
    #expect(try world.toolstack.state("\(world.backendPath())/state") == .closed)
    #expect(world.mappedPageCount == 0)
    #expect(try world.tapIndex() == index)
    try world.removeDirectories()
    try world.wait("the TAP stays") { try world.tapIndex() == nil }
    try world.daemon.stop()
  }

  /// When the backend says Closed nothing is under way any more: not a page is mapped, and nothing is written
  /// into the guest's memory afterwards, whatever goes on outside.
  @Test func trap43_nothingIsTouchedAfterClosed() throws {
    let world = try NetDeviceWorld()
    try world.addInterface()
    let frontend = try world.connected()
    for round in 0..<5 {
      try frontend.stageAllPages()
      let pages = frontend.queues.flatMap {
        [$0.transmitter.ringPages, $0.transmitter.dataPages, $0.receiver.ringPages, $0.receiver.dataPages]
      }
      for queue in frontend.queues {
        for number in 0..<200 { _ = try queue.transmitter.place(experimentalFrame(UInt8(number + 1))) }
      }
      for number in 0..<200 { try world.outside.send(experimentalFrame(UInt8(number + 1))) }
      let list = try #require(frontend.control).dataReference.rawValue
      for number in 0..<40 {
        let type: NetControlType = number % 2 == 0 ? .deleteGrantMapping : .addGrantMapping
        _ = try #require(frontend.control).place(type, UInt32(number / 2 % 2), list, 256)
      }
      try frontend.pushControl()
      try frontend.push()
      if round % 2 == 0 {
        try frontend.directory.setState(.closing)
        try frontend.directory.setState(.closed)
      } else {
        try world.toolstack.write("\(world.backendPath())/state", XenbusState.closing.text)
        try world.wait("it does not close") {
          try world.toolstack.state("\(world.backendPath())/state") == .closing
        }
        try frontend.directory.setState(.closed)
      }
      try world.wait("it is not closed") {
        try world.toolstack.state("\(world.backendPath())/state") == .closed
      }
      #expect(world.mappedPageCount == 0)
      func snapshot() -> [[UInt8]] {
        pages.map { $0.pages.copyBytes(at: 0, count: $0.pages.pageCount * pageByteCount) }
      }
      let before = snapshot()
      for number in 0..<200 { try world.outside.send(experimentalFrame(UInt8(number + 1))) }
      // The daemon has had its turns since.
      _ = try world.daemon.ask(world.address()) { $0.state }
      #expect(snapshot() == before, "round \(round)")
      frontend.abandon()
      try frontend.connect(timeoutMilliseconds: worldMilliseconds)
      try world.awaitPath(to: frontend)
    }
    // What had come to the TAP, and what the guest had sent, may still arrive before this; the outside world's
    // queue, which nobody has read, has to have room.
    world.outside.drain()
    let last = experimentalFrame(251, byteCount: 300)
    try world.outside.send(last)
    while try frontend.nextArrival().bytes != last {}
    #expect(try frontend.send(last).status == .okay)
    while try world.outside.receive() != last {}
    try world.daemon.stop()
  }

  /// A guest that is destroyed says nothing, and its directory vanishes: nothing of it stays mapped.
  @Test func trap44_aGuestThatIsDestroyedLeavesNothingBehind() throws {
    let world = try NetDeviceWorld()
    try world.addInterface()
    var frontend: NetFrontend? = try world.connected()
    try frontend?.stageAllPages()
    try frontend?.setHashAlgorithm(1)
    frontend?.abandon()
    frontend = nil
    world.killGuest()
    try world.removeDirectories()
    try world.wait("pages stay mapped") { world.host.machine.statistics.mappedPageCount == 0 }
    try world.wait("the TAP stays") { try world.tapIndex() == nil }
    try world.daemon.stop()
  }

  /// Suspend and resume, kexec, a driver that is loaded anew: the same device goes through its states over and
  /// over, and its TAP, with its place in the bridge, is the same one all along.
  @Test func trap45_theTAPOutlivesEveryConnection() throws {
    let world = try NetDeviceWorld()
    try world.addInterface()
    let frontend = try world.connected()
    let index = try #require(try world.tapIndex())
    for round in 0..<8 {
      switch round % 3 {
      case 0: try frontend.reconnect(timeoutMilliseconds: worldMilliseconds)
      case 1:
        // Straight to Closed (mirage #89).
        try frontend.followClose(timeoutMilliseconds: worldMilliseconds)
        try frontend.connect(timeoutMilliseconds: worldMilliseconds)
      default:
        frontend.options.queueCount = 1 + round % 2
        try frontend.reconnect(timeoutMilliseconds: worldMilliseconds)
      }
      #expect(try world.tapIndex() == index)
      try world.awaitPath(to: frontend)
      try world.traffic(frontend, count: 3)
    }
    try world.daemon.stop()
    #expect(try world.tapIndex() == index)
  }
}
