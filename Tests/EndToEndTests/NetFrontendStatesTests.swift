import Frontends
import Netback
import RingKit
import Testing

/// A network frontend and a backend finding each other and parting, in the states of Linux's drivers
/// (xen-netfront.c, netback_changed; net.md 1.8), and the nodes that both see.
@Suite(.serialized, .timeLimit(.minutes(10))) struct NetFrontendStatesTests {
  @Test func connectsClosesAndConnectsAgain() throws {
    let world = try NetFrontendWorld()
    let backend = try world.backend()
    let frontend = try world.connected()
    #expect(frontend.address == EthernetAddress("00:16:3e:12:34:56"))
    #expect(frontend.mtu == 9000 && frontend.hasCarrier)
    #expect(frontend.features.offloads == .all && frontend.features.maximumQueues == 4)
    #expect(try frontend.directory.backendState() == .connected)
    #expect(try frontend.directory.state() == .connected)
    #expect(world.mappedPageCount == 2)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    #expect(world.mappedPageCount == 0)
    #expect(frontend.queues.isEmpty)
    #expect(throws: NetFrontendError.self) { try frontend.queue() }
    try frontend.connect(timeoutMilliseconds: worldMilliseconds)
    try frontend.reconnect(timeoutMilliseconds: worldMilliseconds)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    // Straight to Connected each time, never 3 (Initialised).
    let walk = try backend.perform { $0.walk }
    #expect(
      walk.filter { $0 != .initialising }
        == [.connected, .closing, .closed, .connected, .closing, .closed, .connected, .closing, .closed])
    try backend.stop()
  }

  /// The frontend does not wait for the backend with its own Connected: a script may keep that waiting.
  @Test func trap41_theFrontendIsConnectedFirst() throws {
    let world = try NetFrontendWorld()
    var script = NetModelBackend.Script()
    script.connects = false
    let backend = try world.backend(script)
    let frontend = try world.frontend()
    try frontend.offerRings(timeoutMilliseconds: worldMilliseconds)
    #expect(try world.frontendNode("state") == "4")
    #expect(!frontend.isConnected)
    #expect(throws: NetFrontendError.self) { try frontend.waitUntilConnected(timeoutMilliseconds: 20) }
    let count = try backend.perform { backend in
      try backend.look()
      try backend.setState(.connected)
      return backend.queues.count
    }
    #expect(count == 1)
    try frontend.waitUntilConnected(timeoutMilliseconds: worldMilliseconds)
    #expect(frontend.isConnected)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try backend.stop()
  }

  /// What the backend reads when the state is Connected.
  struct Shape: Sendable, CustomTestStringConvertible {
    var queues: Int
    var splits: Bool
    var control = false
    var testDescription: String { "\(queues) queues, split \(splits), control \(control)" }
  }

  static let shapes = [1, 2, 4].flatMap { queues in
    [true, false].flatMap { splits in
      [true, false].map { Shape(queues: queues, splits: splits, control: $0) }
    }
  }

  @Test(arguments: shapes) func theKeysAreThereWithTheState(shape: Shape) throws {
    let world = try NetFrontendWorld()
    let backend = try world.backend()
    var options = NetFrontendOptions()
    options.queueCount = shape.queues
    options.splitsEventChannels = shape.splits
    options.usesControlRing = shape.control
    let frontend = try world.connected(options)
    #expect(frontend.queues.count == shape.queues)
    #expect(frontend.queues.allSatisfy { $0.isJoint == !shape.splits })
    let keys = try backend.perform { $0.keys }
    #expect(keys["multi-queue-num-queues"] == "\(shape.queues)")
    for name in ["tx-ring-ref", "rx-ring-ref"] {
      #expect((keys[name] != nil) == (shape.queues == 1))
      #expect((keys["queue-0/\(name)"] != nil) == (shape.queues > 1))
    }
    let prefix = shape.queues > 1 ? "queue-0/" : ""
    #expect((keys[prefix + "event-channel"] != nil) == !shape.splits)
    #expect((keys[prefix + "event-channel-rx"] != nil) == shape.splits)
    #expect((keys["ctrl-ring-ref"] != nil) == shape.control)
    #expect(world.mappedPageCount == shape.queues * 2 + (shape.control ? 1 : 0))
    // Fewer queues leave no keys of the others behind, nor of a boot loader that was here before.
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    let leftovers = ["queue-7/tx-ring-ref", "event-channel-ctrl", "feature-split", "request-other"]
    for name in leftovers { try frontend.directory.store.write("\(frontend.directory.path)/\(name)", "1") }
    frontend.options.queueCount = 3 - min(shape.queues, 2)
    frontend.options.splitsEventChannels = !shape.splits
    try frontend.connect(timeoutMilliseconds: worldMilliseconds)
    let count = frontend.queues.count
    let newKeys = try backend.perform { $0.keys }
    #expect((newKeys["tx-ring-ref"] != nil) == (count == 1))
    #expect(newKeys.keys.contains { $0.hasPrefix("queue-") } == (count > 1))
    #expect(newKeys.keys.contains { $0.hasSuffix("event-channel") } == shape.splits)
    #expect(leftovers.allSatisfy { newKeys[$0] == nil || (shape.control && $0 == "event-channel-ctrl") })
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try backend.stop()
  }

  @Test func asManyQueuesAsTheBackendTakes() throws {
    let world = try NetFrontendWorld()
    var script = NetModelBackend.Script()
    for name in ["multi-queue-max-queues", "feature-split-event-channels", "feature-ctrl-ring"] {
      script.features[name] = nil
    }
    let backend = try world.backend(script)
    var options = NetFrontendOptions()
    options.queueCount = 8
    options.usesControlRing = true
    let frontend = try world.connected(options)
    #expect(frontend.queues.count == 1 && frontend.queues[0].isJoint && frontend.control == nil)
    let keys = try backend.perform { $0.keys }
    #expect(keys["multi-queue-num-queues"] == nil && keys["ctrl-ring-ref"] == nil)
    #expect(throws: NetFrontendError.self) { try frontend.hashFlags() }
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try backend.stop()
  }

  @Test func withoutReceiveCopyNothingIsShared() throws {
    let world = try NetFrontendWorld()
    var script = NetModelBackend.Script()
    script.features["feature-rx-copy"] = nil
    let backend = try world.backend(script)
    let error = #expect(throws: NetFrontendError.self) {
      try world.connected()
    }
    guard case .noReceiveCopy(NetFrontendWorld.path) = error else {
      Issue.record("\(String(describing: error))")
      return
    }
    #expect(try world.frontendNode("tx-ring-ref") == nil)
    #expect(try world.frontendNode("state") == "1")
    try backend.stop()
  }

  @Test func anAddressThatIsNoneIsTold() throws {
    let world = try NetFrontendWorld()
    let backend = try world.backend()
    try world.toolstack.write("\(NetFrontendWorld.frontendPath)/mac", "00:16:3e:12:34")
    let error = #expect(throws: NetFrontendError.self) { try world.connected() }
    guard case .badAddress(_, "00:16:3e:12:34") = error else {
      Issue.record("\(String(describing: error))")
      return
    }
    try backend.stop()
  }

  @Test func nobodyThereIsToldInTime() throws {
    let world = try NetFrontendWorld()
    let frontend = try world.frontend()
    let error = #expect(throws: NetFrontendError.self) { try frontend.connect(timeoutMilliseconds: 30) }
    guard case .directory(.timedOut(_, "InitWait", "Initialising", 30, nil)) = error else {
      Issue.record("\(String(describing: error))")
      return
    }
  }

  @Test func aBackendThatClosesIsFollowed() throws {
    let world = try NetFrontendWorld()
    let backend = try world.backend()
    let frontend = try world.connected()
    try backend.perform { try $0.setState(.closing) }
    let error = #expect(throws: NetFrontendError.self) {
      try frontend.wait(timeoutMilliseconds: worldMilliseconds)
    }
    guard case .directory(.backendClosed(_, .closing, _)) = error else {
      Issue.record("\(String(describing: error))")
      return
    }
    try frontend.followClose(timeoutMilliseconds: worldMilliseconds)
    #expect(try frontend.directory.backendState() == .closed)
    #expect(try backend.perform { $0.walk }.suffix(2) == [.connected, .closed])
    #expect(world.mappedPageCount == 0)
    // A backend that is to go away is not waited for.
    try world.write("online", "0")
    try world.write("state", "6")
    try backend.stop()
    #expect(throws: NetFrontendError.self) { try frontend.connect(timeoutMilliseconds: worldMilliseconds) }
  }

  @Test func aBackendWhoseDirectoryGoesIsGone() throws {
    let world = try NetFrontendWorld()
    let backend = try world.backend()
    let frontend = try world.connected()
    try backend.stop()
    try world.toolstack.remove(NetFrontendWorld.path)
    let error = #expect(throws: NetFrontendError.self) {
      try frontend.wait(timeoutMilliseconds: worldMilliseconds)
    }
    guard case .directory(.backendClosed(_, nil, _)) = error else {
      Issue.record("\(String(describing: error))")
      return
    }
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
  }

  @Test func theCarrierIsFollowed() throws {
    let world = try NetFrontendWorld()
    let backend = try world.backend()
    let frontend = try world.connected()
    #expect(frontend.hasCarrier)
    try world.write("carrier", "0")
    #expect(try frontend.waitForCarrier(false, timeoutMilliseconds: worldMilliseconds))
    try world.write("carrier", "1")
    #expect(try frontend.waitForCarrier(true, timeoutMilliseconds: worldMilliseconds))
    #expect(try !frontend.waitForCarrier(false, timeoutMilliseconds: 20))
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try backend.stop()
  }

  @Test func trap46_theHeadroomChangesInPlace() throws {
    let world = try NetFrontendWorld()
    let backend = try world.backend()
    let frontend = try world.connected()
    #expect(try backend.perform { $0.keys }["xdp-headroom"] == "0")
    try frontend.changeHeadroom(to: 256, timeoutMilliseconds: worldMilliseconds)
    #expect(try world.frontendNode("xdp-headroom") == "256")
    #expect(try frontend.directory.backendState() == .reconfigured)
    #expect(try frontend.directory.state() == .connected)
    // It is connected all the same, and stays where it is.
    try frontend.poll()
    let walk = try backend.perform { backend in
      try backend.look()
      for queue in backend.queues { queue.headroom = 256 }
      return backend.walk
    }
    #expect(walk.suffix(3) == [.connected, .reconfiguring, .connected])
    frontend.expectHeadroom()
    let queue = try frontend.queue()
    #expect(try queue.transmitter.place(netFrame(5000)))
    try frontend.push()
    let packet = try frontend.receive()
    #expect(packet.headroom == 256 && packet.byteCount == 5000)
    #expect(queue.receiver.bytes() == netFrame(5000))
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try backend.stop()
  }

  @Test func multicastControlIsAskedForAtAnyTime() throws {
    let world = try NetFrontendWorld()
    let backend = try world.backend()
    var options = NetFrontendOptions()
    options.requestsMulticastControl = true
    let frontend = try world.connected(options)
    #expect(try world.frontendNode("request-multicast-control") == "1")
    try frontend.requestMulticastControl(false)
    #expect(try world.frontendNode("request-multicast-control") == "0")
    let queue = try frontend.queue()
    let address = try #require(EthernetAddress("01:00:5e:00:00:fb"))
    #expect(try queue.transmitter.placeMulticast(address, isAdded: true, tag: 4))
    try frontend.push()
    #expect(try frontend.completion().tag == 4)
    let seen = try backend.perform { $0.queues[0].multicast }
    #expect(seen == [NetExtraInfo(multicast: address, isAdded: true)])
    #expect(try backend.perform { $0.queues[0].packetCount } == 0)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try backend.stop()
    let plain = try NetFrontendWorld()
    var script = NetModelBackend.Script()
    script.features["feature-dynamic-multicast-control"] = nil
    let other = try plain.backend(script)
    let second = try plain.connected()
    #expect(throws: NetFrontendError.self) { try second.requestMulticastControl(true) }
    try other.stop()
  }

  @Test func trap44_aGuestThatVanishesSaysNothing() throws {
    let world = try NetFrontendWorld()
    let backend = try world.backend()
    let frontend = try world.connected()
    frontend.abandon()
    #expect(try world.frontendNode("state") == "4")
    #expect(frontend.queues.isEmpty && !frontend.isConnected)
    try backend.stop()
  }
}
