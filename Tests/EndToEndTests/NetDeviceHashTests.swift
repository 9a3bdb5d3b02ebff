import Frontends
import Netback
import RingKit
import Testing

/// Hashes and steering, from what a frontend sets to where its packets arrive.
@Suite(
  .serialized, .timeLimit(.minutes(10)),
  .disabled(if: netDeviceObstacle != nil, Comment(rawValue: netDeviceObstacle ?? "")))
struct NetDeviceHashTests {
  /// What Microsoft publishes to check an implementation with ("Verifying the RSS hash calculation").
  static let key: [UInt8] = [
    0x6D, 0x5A, 0x56, 0xDA, 0x25, 0x5B, 0x0E, 0xC2, 0x41, 0x67, 0x25, 0x3D, 0x43, 0xA3, 0x8F, 0xB0,
    0xD0, 0xCA, 0x2B, 0xCB, 0xAE, 0x7B, 0x30, 0xB4, 0x77, 0xCB, 0x2D, 0xA3, 0x80, 0x30, 0xF2, 0x0C,
    0x6A, 0x42, 0xB7, 0x3B, 0xBE, 0xAC, 0x01, 0xFA,
  ]

  struct Flow {
    var source: [UInt8]
    var sourcePort: UInt16
    var destination: [UInt8]
    var destinationPort: UInt16
    var addresses: UInt32
    var tcp: UInt32

    /// A frame of the flow, whose payload begins with `number`.
    func frame(_ number: UInt8, isTCP: Bool = true) -> [UInt8] {
      var ip: [UInt8] = [0x45, 0, 0, 46, 0, 1, 0x40, 0, 64, isTCP ? 6 : 253, 0, 0] + source + destination
      var sum = stride(from: 0, to: 20, by: 2).reduce(UInt32(0)) {
        $0 + UInt32(ip[$1]) << 8 + UInt32(ip[$1 + 1])
      }
      while sum > 0xFFFF { sum = sum & 0xFFFF + sum >> 16 }
      (ip[10], ip[11]) = (UInt8(~sum >> 8 & 0xFF), UInt8(~sum & 0xFF))
      func bytes(_ port: UInt16) -> [UInt8] { [UInt8(port >> 8), UInt8(port & 0xFF)] }
      let tcp =
        bytes(sourcePort) + bytes(destinationPort)
        + [0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0x20, 0, 0, 0, 0, 0, number, 0, 0, 0, 0, 0]
      return [0x00, 0x16, 0x3E, 0, 0, 1, 2, 0, 0, 0, 0, 9, 8, 0] + ip + tcp
    }
  }

  static let flows = [
    Flow(
      source: [66, 9, 149, 187], sourcePort: 2794, destination: [161, 142, 100, 80], destinationPort: 1766,
      addresses: 0x323E_8FC2, tcp: 0x51CC_C178),
    Flow(
      source: [199, 92, 111, 2], sourcePort: 14230, destination: [65, 69, 140, 83], destinationPort: 4739,
      addresses: 0xD718_262A, tcp: 0xC626_B0EA),
    Flow(
      source: [24, 19, 198, 95], sourcePort: 12898, destination: [12, 22, 207, 184], destinationPort: 38024,
      addresses: 0xD2D0_A5DE, tcp: 0x5C2B_394A),
    Flow(
      source: [38, 27, 205, 30], sourcePort: 48228, destination: [209, 142, 163, 6], destinationPort: 2217,
      addresses: 0x8298_9176, tcp: 0xAFC7_327F),
    Flow(
      source: [153, 39, 163, 191], sourcePort: 44251, destination: [202, 188, 127, 2], destinationPort: 1303,
      addresses: 0x5D18_09C5, tcp: 0x10E8_28A2),
  ]

  /// Sends every flow once and says where each arrived.
  private func arrivals(
    _ world: NetDeviceWorld, _ frontend: NetFrontend, isTCP: Bool = true
  ) throws -> [NetFrontend.Arrival] {
    for (number, flow) in Self.flows.enumerated() {
      try world.outside.send(flow.frame(UInt8(number), isTCP: isTCP))
    }
    var arrivals: [Int: NetFrontend.Arrival] = [:]
    while arrivals.count < Self.flows.count {
      let arrival = try frontend.nextArrival()
      let number = Int(try #require(arrival.bytes.count > 54 ? arrival.bytes[54] : nil))
      try #require(arrival.bytes == Self.flows[number].frame(UInt8(number), isTCP: isTCP))
      #expect(arrivals.updateValue(arrival, forKey: number) == nil, "flow \(number) came twice")
    }
    return Self.flows.indices.compactMap { arrivals[$0] }
  }

  @Test func trap36_packetsCarryTheirHashAndComeToTheQueueThatTheMappingNames() throws {
    let world = try NetDeviceWorld()
    try world.addInterface()
    let frontend = try world.connected()
    #expect(frontend.queues.count == 2)
    #expect(try arrivals(world, frontend).allSatisfy { $0.packet.hash == nil }, "nobody has set an algorithm")

    try frontend.setHashAlgorithm(1)
    try frontend.setHashKey(Self.key)
    try frontend.setHashFlags(NetHashTypes.all.rawValue)
    // Without a mapping the queue is the hash's remainder.
    for (flow, arrival) in zip(Self.flows, try arrivals(world, frontend)) {
      #expect(arrival.packet.hash == NetHash(type: .ipv4TCP, algorithm: 1, value: flow.tcp))
      #expect(arrival.queue == Int(flow.tcp % 2))
    }
    for mapping: [UInt32] in [[0, 0, 0, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]] {
      try frontend.setHashMappingSize(UInt32(mapping.count))
      try frontend.setHashMapping(mapping)
      for (flow, arrival) in zip(Self.flows, try arrivals(world, frontend)) {
        #expect(arrival.queue == Int(mapping[Int(flow.tcp % 5)]), "\(mapping)")
      }
    }
    // What is no TCP has the hash of its addresses, and none if that was not asked for.
    try frontend.setHashMappingSize(0)
    for (flow, arrival) in zip(Self.flows, try arrivals(world, frontend, isTCP: false)) {
      #expect(arrival.packet.hash == NetHash(type: .ipv4, algorithm: 1, value: flow.addresses))
      #expect(arrival.queue == Int(flow.addresses % 2))
    }
    try frontend.setHashFlags(2)
    for arrival in try arrivals(world, frontend, isTCP: false) {
      #expect(arrival.packet.hash == nil && arrival.queue == 0)
    }
    try frontend.setHashAlgorithm(0)
    #expect(try arrivals(world, frontend).allSatisfy { $0.packet.hash == nil })
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    #expect(world.mappedPageCount == 0)
    try world.daemon.stop()
  }

  /// One queue of two takes nothing: what belongs to the other one arrives, whichever queue of the TAP the
  /// kernel chose for it; the buffers of what waits are given back in the end.
  @Test func aQueueThatTakesNothingDoesNotHoldUpThePacketsOfAnother() throws {
    let world = try NetDeviceWorld()
    try world.addInterface()
    let frontend = try world.connected()
    try frontend.setHashAlgorithm(1)
    try frontend.setHashKey(Self.key)
    try frontend.setHashFlags(NetHashTypes.all.rawValue)
    let stuck = try #require(Self.flows.first { $0.tcp % 2 == 1 })
    let free = Self.flows.filter { $0.tcp % 2 == 0 }
    // More than the ring and the line before it hold.
    for number in 0..<1000 {
      try world.outside.send(stuck.frame(UInt8(number & 0xFF)))
      if number % 100 == 0 {
        try world.wait("the stuck queue's packets are not read") {
          let read = try world.statistics().reduce(0) { $0 + $1.link.receivedPackets }
          return read >= number
        }
      }
    }
    try world.wait("nothing waits") { try world.statistics()[1].parkedCount > 0 }
    for round in 0..<10 {
      for flow in free {
        try world.outside.send(flow.frame(UInt8(round)))
        let arrival = try takeOnQueue0(frontend)
        #expect(arrival == flow.frame(UInt8(round)))
      }
    }
    let numbers = try world.statistics()
    #expect(numbers[1].receive.drops[.backlogFull] > 0, "\(numbers[1])")
    #expect(numbers[0].receive.drops.total == 0, "\(numbers[0])")
    // The stuck queue goes on when it takes something again.
    try frontend.drain()
    try world.wait("what waits does not come") { try world.statistics()[1].parkedCount == 0 }
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    #expect(world.mappedPageCount == 0)
    try world.daemon.stop()
  }

  private func takeOnQueue0(_ frontend: NetFrontend) throws -> [UInt8] {
    let queue = frontend.queues[0]
    let deadline = ContinuousClock.now + .milliseconds(worldMilliseconds)
    while ContinuousClock.now < deadline {
      if try queue.receiver.nextPacket() != nil {
        let bytes = queue.receiver.bytes()
        queue.receiver.release()
        queue.receiver.post()
        try frontend.push(queue)
        if bytes != experimentalFrame(0) { return bytes }
      }
      // Says true at once, because of the other queue's packets.
      _ = try frontend.wait(timeoutMilliseconds: worldMilliseconds)
    }
    throw WorldFailure("no packet comes on queue 0")
  }
}
