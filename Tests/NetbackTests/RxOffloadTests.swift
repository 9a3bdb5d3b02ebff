import Netback
import RingKit
import Simulator
import Testing

/// A TCP packet as a link brings it: one that is to be cut, or whose checksum is blank.
struct RxSegmentablePacket {
  var isIPv6 = false
  var payload: [UInt8]
  var segmentSize: UInt16 = 0

  /// Bytes before the payload: Ethernet, IP, TCP without options.
  var headerByteCount: Int { isIPv6 ? 74 : 54 }
  private var transportStart: Int { headerByteCount - 20 }

  /// The frame; the checksum's field holds the sum of the pseudo header.
  var bytes: [UInt8] {
    let length = 20 + payload.count
    var network: [UInt8]
    if isIPv6 {
      network = [0x60, 0, 0, 0] + Self.wire(length) + [6, 64]
      network += [UInt8](repeating: 0xFD, count: 16) + [UInt8](repeating: 0xFE, count: 16)
    } else {
      network = [0x45, 0] + Self.wire(20 + length) + [0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]
      network.replaceSubrange(10..<12, with: Self.wire(~Self.sum(network) & 0xFFFF))
    }
    let ethernet: [UInt8] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2] + (isIPv6 ? [0x86, 0xDD] : [8, 0])
    var transport: [UInt8] = [0x30, 0x39, 0x13, 0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x18, 1, 0, 0, 0, 0, 0]
    transport.replaceSubrange(
      16..<18, with: Self.wire(Self.sum(Self.pseudoHeader(of: network, byteCount: length))))
    return ethernet + network + transport + payload
  }

  /// What a link tells of it.
  var offload: PacketOffload {
    var offload = PacketOffload()
    offload.checksum = .partial
    offload.checksumStart = UInt16(transportStart)
    offload.checksumOffset = 16
    offload.headerByteCount = UInt16(headerByteCount)
    if segmentSize > 0 {
      offload.segmentation = isIPv6 ? .tcpIPv6 : .tcpIPv4
      offload.segmentSize = segmentSize
    }
    return offload
  }

  /// Whether the checksum of a frame with headers like these is complete and right.
  func hasGoodChecksum(_ frame: [UInt8]) -> Bool {
    let network = Array(frame[14..<transportStart])
    let segment = Array(frame[transportStart...])
    return Self.sum(Self.pseudoHeader(of: network, byteCount: segment.count) + segment) == 0xFFFF
  }

  private static func pseudoHeader(of network: [UInt8], byteCount: Int) -> [UInt8] {
    (network.count == 40 ? Array(network[8..<40]) : Array(network[12..<20])) + [0, 6] + wire(byteCount)
  }

  private static func wire(_ number: Int) -> [UInt8] { [UInt8(number >> 8 & 0xFF), UInt8(number & 0xFF)] }

  private static func sum(_ bytes: [UInt8]) -> Int {
    var sum = 0
    for (index, byte) in bytes.enumerated() { sum += Int(byte) << (index % 2 == 0 ? 8 : 0) }
    while sum > 0xFFFF { sum = sum >> 16 + sum & 0xFFFF }
    return sum
  }
}

/// Packets of which something is left to be done, by frontends that do all of it, part of it or nothing.
@Suite struct RxOffloadTests {
  static func payload(_ count: Int) -> [UInt8] { RxFrameBytes.frame(42, byteCount: count) }

  static let everything: NetOffloads = [
    .checksumIPv4, .checksumIPv6, .scatterGather, .segmentationIPv4, .segmentationIPv6,
  ]

  /// A frontend that takes segmentation gets the packet as it is, with the flags without which Windows'
  /// driver crawls.
  @Test(arguments: [false, true])
  func trap33_segmentationGoesWithBothFlags(isIPv6: Bool) throws {
    let packet = RxSegmentablePacket(isIPv6: isIPv6, payload: Self.payload(20_000), segmentSize: 1448)
    let fixture = try RxFixture(accepted: Self.everything, headroom: 256, tellsHashes: true)
    fixture.post(30)
    var offload = packet.offload
    offload.hash = NetHash(type: .ipv4TCP, algorithm: 1, value: 7)
    #expect(try fixture.deliver(packet.bytes, offload: offload) == .taken)
    fixture.flush()
    let frame = try #require(try fixture.received().first)
    #expect(frame.bytes == packet.bytes && frame.flags == [.checksumBlank, .dataValidated])
    #expect(frame.extras.map(\.type) == [.segmentation, .hash, .headroom])
    #expect(frame.extras[0].segmentSize == 1448)
    #expect(frame.extras[0].segmentationType == (isIPv6 ? .tcpIPv6 : .tcpIPv4))
    fixture.expectClean()
  }

  /// All other frontends never see such a packet, wherever it comes from: they get segments.
  @Test(
    arguments: [
      [], .scatterGather, [.checksumIPv4, .checksumIPv6],
      [.scatterGather, .checksumIPv4, .checksumIPv6],
      [.checksumIPv4, .checksumIPv6, .segmentationIPv4, .segmentationIPv6],
      [.scatterGather, .segmentationIPv4, .segmentationIPv6],
    ] as [NetOffloads], [false, true])
  func trap32_othersGetSegments(accepted: NetOffloads, isIPv6: Bool) throws {
    let packet = RxSegmentablePacket(isIPv6: isIPv6, payload: Self.payload(20_000), segmentSize: 1448)
    let fixture = try RxFixture(accepted: accepted)
    fixture.post(30)
    #expect(try fixture.deliver(packet.bytes, offload: packet.offload) == .taken)
    fixture.flush()
    let frames = try fixture.received()
    #expect(frames.count == 14 && frames.allSatisfy { $0.extras.isEmpty && $0.slots.count == 1 })
    #expect(frames.flatMap { $0.bytes.dropFirst(packet.headerByteCount) } == packet.payload)
    #expect(
      frames.allSatisfy { $0.flags.contains(.checksumBlank) || packet.hasGoodChecksum($0.bytes) })
    #expect(fixture.engine.counters.segments == 14 && fixture.engine.counters.packets == 14)
    fixture.expectClean()
  }

  /// Segmentation for the other protocol is no segmentation for this one.
  @Test func trap32_theProtocolCounts() throws {
    let packet = RxSegmentablePacket(isIPv6: true, payload: Self.payload(5000), segmentSize: 1000)
    let fixture = try RxFixture(accepted: Self.everything.subtracting(.segmentationIPv6))
    fixture.post(30)
    #expect(try fixture.deliver(packet.bytes, offload: packet.offload) == .taken)
    fixture.flush()
    #expect(try fixture.received().map(\.bytes.count) == [Int](repeating: 1074, count: 5))
    fixture.expectClean()
  }

  /// As many segments go as there are slots for; the next ones follow as slots come, none twice.
  @Test func segmentsGoOnWhereTheyStopped() throws {
    let source = RxSegmentablePacket(payload: Self.payload(60_000), segmentSize: 1448)
    let fixture = try RxFixture(accepted: [])
    let packet = try fixture.packet(source.bytes, offload: source.offload)
    var next = 0
    var payload: [UInt8] = []
    for posted in [0, 1, 0, 7, 20, 5, 20] {
      fixture.post(posted)
      let delivery = fixture.engine.deliver(packet, nextSegment: next, host: &fixture.host)
      if next + posted >= 42 {
        #expect(delivery == .taken)
      } else {
        #expect(delivery == .noRoom(slotsNeeded: 1, nextSegment: next + posted))
      }
      next += posted
      fixture.flush()
      payload += try fixture.received().flatMap { $0.bytes.dropFirst(54) }
    }
    #expect(payload == source.payload && fixture.engine.counters.segments == 42)
    fixture.expectClean()
  }

  /// Segments need memory: without any the packet waits, and a flush gives some back.
  @Test func segmentsWaitForMemory() throws {
    let source = RxSegmentablePacket(payload: Self.payload(20_000), segmentSize: 1448)
    // The packet takes eight pages, and leaves three.
    let fixture = try RxFixture(accepted: [], bufferByteCount: 11 * 4096)
    fixture.post(64)
    let packet = try fixture.packet(source.bytes, offload: source.offload)
    for next in [3, 6, 9, 12] {
      let delivery = fixture.engine.deliver(packet, nextSegment: next - 3, host: &fixture.host)
      #expect(delivery == .noMemory(nextSegment: next))
      fixture.flush()
    }
    #expect(fixture.engine.deliver(packet, nextSegment: 12, host: &fixture.host) == .taken)
    fixture.flush()
    #expect(try fixture.received().flatMap { $0.bytes.dropFirst(54) } == source.payload)
    fixture.expectClean()
  }

  /// The same in a queue: turns follow one another without an event while a flush gives memory back.
  @Test func aQueueSendsAllSegments() throws {
    var setup = SimulatedNetRxWorld.Setup()
    setup.accepted = []
    setup.bufferByteCount = 27 * 4096
    let world = try SimulatedNetRxWorld(setup)
    let sources = (0..<3).map {
      RxSegmentablePacket(payload: RxFrameBytes.frame($0, byteCount: 20_000), segmentSize: 1000)
    }
    for source in sources {
      let isThere = world.bring(source.bytes, offload: source.offload)
      #expect(isThere)
    }
    world.run()
    for _ in 0..<20 {
      world.post(4)
      #expect(world.settle())
      try world.frontend.collect()
      world.pass(1_000_000_000)
    }
    #expect(world.frontend.frames.flatMap { $0.bytes.dropFirst(54) } == sources.flatMap(\.payload))
    #expect(world.waitingCount == 0 && world.host.liveByteCount == 0)
    #expect(world.frontend.violations.isEmpty && world.host.violations.isEmpty)
  }

  /// A blank checksum stays blank for a frontend that takes it; for others it is completed, once, however
  /// long the packet waits.
  @Test(arguments: [false, true], [false, true])
  func checksumsAreCompletedOnce(isIPv6: Bool, isTaken: Bool) throws {
    let source = RxSegmentablePacket(isIPv6: isIPv6, payload: Self.payload(6000))
    let fixture = try RxFixture(
      accepted: isTaken ? Self.everything : [.scatterGather], tellsHashes: true)
    var offload = source.offload
    offload.hash = NetHash(type: .ipv6, algorithm: 1, value: 9)
    let packet = try fixture.packet(source.bytes, offload: offload)
    for _ in 0..<3 {
      let delivery = fixture.engine.deliver(packet, host: &fixture.host)
      #expect(delivery == .noRoom(slotsNeeded: 3, nextSegment: 0))
      if fixture.frontend.postedCount < 2 { fixture.post(1) }
    }
    fixture.post(1)
    #expect(fixture.engine.deliver(packet, host: &fixture.host) == .taken)
    fixture.flush()
    let frame = try #require(try fixture.received().first)
    #expect(frame.flags == (isTaken ? [.checksumBlank, .dataValidated] : [.dataValidated]))
    #expect(source.hasGoodChecksum(frame.bytes) != isTaken)
    #expect((frame.bytes == source.bytes) == isTaken)
    #expect(fixture.engine.counters.checksums == (isTaken ? 0 : 1))
    fixture.expectClean()
  }

  /// What can be done neither here nor there is dropped before anything is consumed.
  @Test func whatCannotBeCutIsDropped() throws {
    let fixture = try RxFixture(accepted: Self.everything)
    fixture.post(30)
    // No TCP at all, and no bytes in each segment.
    var offload = RxSegmentablePacket(payload: [], segmentSize: 1000).offload
    #expect(
      try fixture.deliver(RxFrameBytes.frame(1, byteCount: 3000), offload: offload) == .dropped(.offload))
    offload.segmentSize = 0
    let source = RxSegmentablePacket(payload: Self.payload(3000), segmentSize: 1000)
    #expect(try fixture.deliver(source.bytes, offload: offload) == .dropped(.offload))
    #expect(fixture.frontend.postedCount == 30 && fixture.engine.counters.drops[.offload] == 2)
    #expect(!fixture.hasUnflushed)
    fixture.expectClean()
  }
}
