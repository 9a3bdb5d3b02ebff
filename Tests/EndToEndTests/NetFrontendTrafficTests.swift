import Frontends
import Netback
import RingKit
import Testing

/// Packets through both rings and a backend on a thread of its own, which sends each back.
@Suite(.serialized, .timeLimit(.minutes(10))) struct NetFrontendTrafficTests {
  /// One shape of a connection.
  struct Shape: Sendable, CustomTestStringConvertible {
    var queues = 1
    var splits = true
    var receivePages = 256
    var idMask: UInt16 = 0
    var headroom = 0
    var testDescription: String {
      "\(queues) queues, split \(splits), \(receivePages) pages, ids ^ \(idMask), headroom \(headroom)"
    }
  }

  static let shapes = [
    Shape(), Shape(splits: false), Shape(queues: 3), Shape(queues: 2, splits: false),
    Shape(receivePages: 24, idMask: 0xFF00), Shape(splits: false, idMask: 0x5A5A, headroom: 256),
  ]

  /// Every frame comes back whole, with its flags and extra infos, and in order.
  @Test(arguments: shapes) func framesComeBackAsTheyWent(shape: Shape) throws {
    let world = try NetFrontendWorld()
    let backend = try world.backend()
    var options = NetFrontendOptions()
    options.queueCount = shape.queues
    options.splitsEventChannels = shape.splits
    options.receivePageCount = shape.receivePages
    options.receiveIDMask = shape.idMask
    options.headroomByteCount = shape.headroom
    options.firstRingIndex = 0xFFFF_FFF0
    let frontend = try world.connected(options)
    var generator = SeededGenerator(seed: UInt64(shape.receivePages))
    var sent: [[(frame: [UInt8], transmission: NetTransmission)]] = Array(repeating: [], count: shape.queues)
    var received = Array(repeating: 0, count: shape.queues)
    let total = 300
    while received.reduce(0, +) < total {
      let number = Int.random(in: 0..<shape.queues, using: &generator)
      let queue = frontend.queues[number]
      if sent.reduce(0, { $0 + $1.count }) < total {
        let count = Int.random(in: 14...(Bool.random(using: &generator) ? 200 : 20_000), using: &generator)
        let frame = netFrame(count, seed: UInt8.random(in: 0...255, using: &generator))
        var transmission = NetTransmission()
        if Int.random(in: 0..<3, using: &generator) == 0 {
          transmission.flags = [.checksumBlank, .dataValidated]
          transmission.segmentation = NetExtraInfo(segmentation: .tcpIPv4, size: 1448)
        }
        let cut = NetSlotCut.random(byteCount: count, allowsEmpty: true, using: &generator)
        if try queue.transmitter.place(frame, transmission, cut: cut) {
          sent[number].append((frame, transmission))
          if Bool.random(using: &generator) { continue }
        }
      }
      try frontend.push()
      while let packet = try queue.receiver.nextPacket() {
        let expected = sent[number][received[number]]
        #expect(queue.receiver.bytes() == expected.frame)
        #expect(packet.segmentation?.payload == expected.transmission.segmentation?.payload)
        #expect(packet.flags.contains(.checksumBlank) == expected.transmission.flags.contains(.checksumBlank))
        received[number] += 1
      }
      for queue in frontend.queues { queue.receiver.post() }
      try frontend.push()
      for queue in frontend.queues { try queue.transmitter.reap() }
      let isAllSent = sent.reduce(0) { $0 + $1.count } == total
      if isAllSent, received.reduce(0, +) < total {
        guard try frontend.wait(timeoutMilliseconds: worldMilliseconds) else {
          throw WorldFailure("\(received) of \(sent.map(\.count)) packets came back")
        }
      }
    }
    for queue in frontend.queues {
      while true {
        try queue.transmitter.reap()
        if queue.transmitter.outstanding == 0 { break }
        guard try frontend.wait(timeoutMilliseconds: worldMilliseconds) else {
          throw WorldFailure("packets are not answered")
        }
      }
    }
    let counts = frontend.packetCounts
    #expect(counts.sent == UInt64(total) && counts.received == UInt64(total))
    #expect(frontend.queues.allSatisfy { $0.transmitter.freePageCount == 256 })
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    #expect(world.mappedPageCount == 0)
    try backend.stop()
  }

  /// A frontend that is not asked for events sends none: the backend asks while it sleeps only.
  @Test func eventsAreSentWhenTheyAreAskedFor() throws {
    let world = try NetFrontendWorld()
    var script = NetModelBackend.Script()
    script.echoes = false
    let backend = try world.backend(script)
    let frontend = try world.connected()
    let queue = try frontend.queue()
    let begin = frontend.notificationCount
    // The backend has asked for the first request only, and takes none.
    for _ in 0..<20 {
      #expect(try queue.transmitter.place(netFrame(60)))
      try frontend.push()
    }
    #expect(frontend.notificationCount == begin + 1)
    #expect(queue.transmitter.outstanding == 20)
    // It takes them all, and asks again.
    try backend.perform { backend in
      while try backend.queues[0].take(backend.grants, backend.events) != nil {}
    }
    #expect(try queue.transmitter.reap() == 20)
    #expect(try queue.transmitter.place(netFrame(60)))
    try frontend.push()
    #expect(frontend.notificationCount == begin + 2)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try backend.stop()
  }

  /// Without feature-rx-notify posting brings no event, whatever the backend asks for.
  @Test(arguments: [true, false]) func trap31_postingIsToldOrNot(notifies: Bool) throws {
    let world = try NetFrontendWorld()
    var script = NetModelBackend.Script()
    script.looksForPages = !notifies
    let backend = try world.backend(script)
    var options = NetFrontendOptions()
    options.notifiesOnPosting = notifies
    options.receivePageCount = 1
    let frontend = try world.connected(options)
    #expect(try world.frontendNode("feature-rx-notify") == (notifies ? "1" : nil))
    let queue = try frontend.queue()
    #expect(try queue.transmitter.place(netFrame(60)))
    try frontend.push()
    _ = try frontend.receive()
    // The backend looks once more for pages, and asks for an event, when a packet finds none.
    #expect(try queue.transmitter.place(netFrame(61)))
    try frontend.push()
    _ = try frontend.completion()
    #expect(try backend.perform { $0.queues[0].hasParked })
    let before = frontend.notificationCount
    queue.receiver.release()
    queue.receiver.post()
    try frontend.push()
    #expect(frontend.notificationCount == before + (notifies ? 1 : 0))
    #expect(try frontend.receive().byteCount == 61)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try backend.stop()
  }

  /// A backend that starts anew finds the rings by their keys, with what is in them (net.md trap 4): the
  /// frontend goes on as if nothing had happened.
  @Test(arguments: [true, false]) func trap4_aBackendStartedAnewGoesOnWithTheRings(splits: Bool) throws {
    let world = try NetFrontendWorld()
    var script = NetModelBackend.Script()
    script.echoes = false
    let first = try world.backend(script)
    var options = NetFrontendOptions()
    options.splitsEventChannels = splits
    options.firstRingIndex = 0xFFFF_FFF0
    let frontend = try world.connected(options)
    let queue = try frontend.queue()
    for count in 0..<30 { #expect(try queue.transmitter.place(netFrame(60 + count))) }
    try frontend.push()
    try first.perform { backend in
      for _ in 0..<10 { _ = try backend.queues[0].take(backend.grants, backend.events) }
    }
    #expect(try queue.transmitter.reap() == 10)
    try first.stop()
    #expect(world.mappedPageCount == 0)

    script.echoes = true
    let second = try world.backend(script)
    for count in 10..<30 { #expect(try frontend.receive().byteCount == 60 + count) }
    try frontend.poll()
    #expect(frontend.isConnected && frontend.queues[0] === queue)
    #expect(try queue.transmitter.place(netFrame(5000)))
    try frontend.push()
    #expect(try frontend.receive().byteCount == 5000)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try second.stop()
  }

  /// A frontend that keeps its rings over a close takes up what was left in them.
  @Test func keptRingsGoOnAfterAReconnection() throws {
    let world = try NetFrontendWorld()
    let backend = try world.backend()
    var options = NetFrontendOptions()
    options.keepsRings = true
    let frontend = try world.connected(options)
    let queue = try frontend.queue()
    for count in 0..<5 {
      #expect(try queue.transmitter.place(netFrame(100 + count)))
      try frontend.push()
      #expect(try frontend.receive().byteCount == 100 + count)
      try frontend.reconnect(timeoutMilliseconds: worldMilliseconds)
      #expect(frontend.queues[0] === queue)
    }
    #expect(queue.receiver.packetCount == 5)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try backend.stop()
  }

  @Test func violationsAreSeenThroughTheSeams() throws {
    let world = try NetFrontendWorld()
    let backend = try world.backend()
    let frontend = try world.connected()
    try backend.perform { $0.queues[0].status = NetStatus(rawValue: 77) }
    #expect(try frontend.queue().transmitter.place(netFrame(60)))
    try frontend.push()
    let error = #expect(throws: NetFrontendError.self) { try frontend.completion() }
    guard case .violation(.unknownStatus, queue: 0) = error else {
      Issue.record("\(String(describing: error))")
      return
    }
    #expect(throws: NetFrontendError.self) { try frontend.wait(timeoutMilliseconds: 1) }
    try frontend.reconnect(timeoutMilliseconds: worldMilliseconds)
    #expect(try frontend.queue().transmitter.place(netFrame(60)))
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try backend.stop()
  }
}
