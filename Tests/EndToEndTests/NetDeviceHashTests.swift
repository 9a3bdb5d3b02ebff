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

    /// What is hashed of a TCP packet.
    var tuple: [UInt8] { source + destination + [sourcePort, destinationPort].flatMap(Self.bytes) }

    private static func bytes(_ port: UInt16) -> [UInt8] { [UInt8(port >> 8), UInt8(port & 0xFF)] }

    /// A frame of the flow, whose payload begins with `number`.
    func frame(_ number: UInt8, isTCP: Bool = true, payloadByteCount: Int = 6) -> [UInt8] {
      let protocolNumber: UInt8 = isTCP ? 6 : 253
      var ip = [0x45, 0] + Self.bytes(UInt16(40 + payloadByteCount))
      ip += [0, 1, 0x40, 0, 64, protocolNumber, 0, 0] + source + destination
      var sum = stride(from: 0, to: 20, by: 2).reduce(UInt32(0)) {
        $0 + UInt32(ip[$1]) << 8 + UInt32(ip[$1 + 1])
      }
      while sum > 0xFFFF { sum = sum & 0xFFFF + sum >> 16 }
      (ip[10], ip[11]) = (UInt8(~sum >> 8 & 0xFF), UInt8(~sum & 0xFF))
      var tcp = Self.bytes(sourcePort) + Self.bytes(destinationPort)
      tcp += [0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0x20, 0, 0, 0, 0, 0, number]
      tcp += [UInt8](repeating: 0, count: payloadByteCount - 1)
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

    try frontend.hashAll(with: Self.key)
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

  /// The rule of netif.h, bit by bit.
  private static func toeplitz(_ input: [UInt8], key: [UInt8]) -> UInt32 {
    func bit(_ bytes: [UInt8], _ number: Int) -> UInt32 {
      number / 8 < bytes.count ? UInt32(bytes[number / 8] >> (7 - number % 8) & 1) : 0
    }
    return (0..<input.count * 8).reduce(0) { sum, position in
      guard bit(input, position) == 1 else { return sum }
      return sum ^ (0..<32).reduce(0) { $0 << 1 | bit(key, position + $1) }
    }
  }

  private func next(_ world: NetDeviceWorld, _ frontend: NetFrontend, _ flow: Flow) throws
    -> NetFrontend.Arrival
  {
    try world.outside.send(flow.frame(1))
    let arrival = try frontend.nextArrival()
    try #require(arrival.bytes == flow.frame(1))
    return arrival
  }

  /// A key replaces the one before whole: bytes that it does not have are zero, and without any every hash is.
  @Test func trap37_aShorterKeyIsFollowedByZeros() throws {
    let world = try NetDeviceWorld()
    try world.addInterface()
    let frontend = try world.connected()
    try frontend.setHashAlgorithm(1)
    try frontend.setHashFlags(NetHashTypes.all.rawValue)
    for count in [40, 16, 7, 1, 0, 39] {
      let key = Array(Self.key[0..<count])
      try frontend.setHashKey(key)
      for flow in Self.flows {
        let value = Self.toeplitz(flow.tuple, key: key)
        let arrival = try next(world, frontend, flow)
        #expect(arrival.packet.hash == NetHash(type: .ipv4TCP, algorithm: 1, value: value))
        #expect(arrival.queue == Int(value % 2))
      }
    }
    try world.daemon.stop()
  }

  /// What is refused leaves what is set as it was, and the table also where only one of its entries is wrong.
  @Test func trap36_whatIsRefusedChangesNothing() throws {
    let world = try NetDeviceWorld()
    try world.addInterface()
    let frontend = try world.connected()
    try frontend.hashAll(with: Self.key)
    try frontend.setHashMappingSize(5)
    let mapping: [UInt32] = [1, 0, 1, 1, 0]
    try frontend.setHashMapping(mapping)
    let control = try #require(frontend.control)
    let page = control.dataReference.rawValue
    for (type, table, first, second, third) in [
      (.setHashMapping, [0, 1, 0, 0, 2], page, 5, 0), (.setHashMapping, [.max], page, 1, 0),
      (.setHashMapping, [0, 0], page, 2, 4), (.setHashMapping, [0], page, 1, .max),
      (.setHashMappingSize, [], 129, 0, 0), (.setHashKey, [1, 2, 3], page, 41, 0),
      (.setHashKey, [], .max, 40, 0), (.setHashFlags, [], 0x10, 0, 0), (.setHashAlgorithm, [], 2, 0, 0),
    ] as [(NetControlType, [UInt32], UInt32, UInt32, UInt32)] {
      for (index, entry) in table.enumerated() {
        control.dataPages.pages.setBytes((0..<4).map { UInt8(entry >> ($0 * 8) & 0xFF) }, at: index * 4)
      }
      #expect(
        try frontend.ask(type, first, second, third).status >= NetControlStatus.invalidParameter.rawValue)
      for flow in Self.flows {
        let arrival = try next(world, frontend, flow)
        #expect(arrival.packet.hash == NetHash(type: .ipv4TCP, algorithm: 1, value: flow.tcp))
        #expect(arrival.queue == Int(mapping[Int(flow.tcp % 5)]))
      }
    }
    // A part of the table leaves the others as they are.
    try frontend.setHashMapping([0, 1], from: 2)
    for flow in Self.flows {
      #expect(try next(world, frontend, flow).queue == [1, 0, 0, 1, 0][Int(flow.tcp % 5)])
    }
    try world.daemon.stop()
  }

  /// Hashes of IPv6, of packets with a VLAN tag, and beside the extra info of segmentation.
  @Test func hashesAreToldOfEveryKindOfPacket() throws {
    let world = try NetDeviceWorld()
    try world.addInterface()
    let frontend = try world.connected()
    try frontend.hashAll(with: Self.key)
    func arrive(_ frame: [UInt8], header: VirtioNetHeader? = nil) throws -> NetFrontend.Arrival {
      if let header {
        try world.outside.send(frame, header: header.bytes)
      } else {
        try world.outside.send(frame)
      }
      return try frontend.nextArrival()
    }
    let flow = Self.flows[0]
    let tcp = NetHash(type: .ipv4TCP, algorithm: 1, value: flow.tcp)
    var tagged = flow.frame(9)
    tagged.insert(contentsOf: [0x81, 0, 0, 5], at: 12)
    #expect(try arrive(tagged).packet.hash == tcp)

    // IPv6, from Microsoft's list too: 3ffe:2501:200:1fff::7 port 2794 to 3ffe:2501:200:3::1 port 1766.
    let source: [UInt8] = [0x3F, 0xFE, 0x25, 1, 2, 0, 0x1F, 0xFF, 0, 0, 0, 0, 0, 0, 0, 7]
    let destination: [UInt8] = [0x3F, 0xFE, 0x25, 1, 2, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1]
    for (next, hash) in [
      (6, NetHash(type: .ipv6TCP, algorithm: 1, value: 0x4020_7D3D)),
      (253, NetHash(type: .ipv6, algorithm: 1, value: 0x2CC1_8CD5)),
    ] {
      let ip: [UInt8] = [0x60, 0, 0, 0, 0, 26, UInt8(next), 64] + source + destination
      let frame = Array(flow.frame(1)[0..<12]) + [0x86, 0xDD] + ip + Array(flow.frame(1)[34..<60])
      let arrival = try arrive(frame)
      #expect(arrival.bytes == frame && arrival.packet.hash == hash && arrival.queue == Int(hash.value % 2))
    }

    // 3000 bytes of TCP that the guest is to see in segments of 1000.
    var header = VirtioNetHeader()
    (header.flags, header.segmentationType, header.headerByteCount) = (1, 1, 54)
    (header.segmentSize, header.checksumStart, header.checksumOffset) = (1000, 34, 16)
    let arrival = try arrive(flow.frame(3, payloadByteCount: 3000), header: header)
    #expect(arrival.packet.hash == tcp && arrival.packet.byteCount == 3054)
    let segmentation = try #require(arrival.packet.segmentation)
    #expect(segmentation.segmentationType == .tcpIPv4 && segmentation.segmentSize == 1000)

    // Each type is told only when it was asked for, and the longest one that was.
    try frontend.setHashFlags(NetHashTypes(.ipv4).rawValue)
    #expect(
      try next(world, frontend, flow).packet.hash == NetHash(type: .ipv4, algorithm: 1, value: flow.addresses)
    )
    try frontend.setHashFlags(0)
    #expect(try next(world, frontend, flow).packet.hash == nil)
    try world.daemon.stop()
  }

  /// One queue of two takes nothing: what belongs to the other one arrives, whichever queue of the TAP the
  /// kernel chose for it; the buffers of what waits are given back in the end.
  @Test func aQueueThatTakesNothingDoesNotHoldUpThePacketsOfAnother() throws {
    let world = try NetDeviceWorld()
    try world.addInterface()
    let frontend = try world.connected()
    try frontend.hashAll(with: Self.key)
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

extension VirtioNetHeader {
  /// The header's bytes before a frame of a TAP.
  fileprivate var bytes: [UInt8] {
    var bytes = [flags, segmentationType]
    for word in [headerByteCount, segmentSize, checksumStart, checksumOffset] {
      bytes += [UInt8(word & 0xFF), UInt8(word >> 8)]
    }
    return bytes + [UInt8](repeating: 0, count: TapQueue.headerByteCount - bytes.count)
  }
}

extension NetFrontend {
  /// Has packets of all types hashed by Toeplitz with a key.
  func hashAll(with key: [UInt8]) throws {
    try setHashAlgorithm(1)
    try setHashKey(key)
    try setHashFlags(NetHashTypes.all.rawValue)
  }
}
