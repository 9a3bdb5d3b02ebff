import Netback
import RingKit
import Simulator
import Testing

/// How one packet becomes slots: netif.h's framing, and what Linux's netfront demands beyond it.
@Suite struct RxPacketTests {
  static let sizes = [14, 15, 60, 1514, 3840, 3841, 4095, 4096, 4097, 4109, 8192, 8193, 61440, 65535]
  static let headrooms = [0, 1, 256, 1000]

  /// Every size arrives as it was, in slots that are full but for the last one, at the headroom's offset.
  @Test(arguments: sizes, headrooms)
  func trap27_everySlotFitsItsPage(byteCount: Int, headroom: Int) throws {
    let fixture = try RxFixture(headroom: headroom)
    let bytes = RxFrameBytes.frame(UInt64(byteCount), byteCount: byteCount)
    fixture.post(40)
    let capacity = 4096 - headroom
    let slots = (byteCount + capacity - 1) / capacity
    let delivery = try fixture.deliver(bytes)
    guard slots <= 18 else {
      #expect(delivery == .dropped(.tooManySlots))
      fixture.expectClean()
      return
    }
    #expect(delivery == .taken)
    #expect(fixture.flush() == .idle)
    let frames = try fixture.received()
    let frame = try #require(frames.first)
    #expect(frames.count == 1 && frame.bytes == bytes)
    #expect(frame.slots.count == slots && frame.slots.dropLast().allSatisfy { $0 == capacity })
    #expect(frame.extras.count == (headroom > 0 ? 1 : 0))
    #expect(fixture.engine.counters.slots == UInt64(slots + (headroom > 0 ? 1 : 0)))
    #expect(fixture.engine.counters.bytes == UInt64(byteCount))
    fixture.expectClean()
  }

  /// A packet that lacks one slot, extra infos included, changes nothing at all; with that slot it goes.
  @Test(arguments: sizes, [(0, false), (256, false), (0, true), (256, true)])
  func trap24_allSlotsOrNone(byteCount: Int, wish: (headroom: Int, tellsHashes: Bool)) throws {
    let (headroom, tellsHashes) = wish
    let fixture = try RxFixture(headroom: headroom, tellsHashes: tellsHashes)
    var offload = PacketOffload()
    offload.hash = NetHash(type: .ipv4TCP, algorithm: 1, value: 0xDEAD_BEEF)
    let bytes = RxFrameBytes.frame(7, byteCount: byteCount)
    let capacity = 4096 - headroom
    let needed =
      (byteCount + capacity - 1) / capacity + (headroom > 0 ? 1 : 0) + (tellsHashes ? 1 : 0)
    let packet = try fixture.packet(bytes, offload: offload)
    for posted in 0..<needed {
      let before = fixture.ringPages.copyBytes(at: 0, count: 4096)
      let delivery = fixture.engine.deliver(packet, host: &fixture.host)
      #expect(delivery == .noRoom(slotsNeeded: needed, nextSegment: 0))
      #expect(!fixture.hasUnflushed && !fixture.hasWork())
      fixture.flush()
      #expect(fixture.ringPages.copyBytes(at: 0, count: 4096) == before, "posted \(posted)")
      fixture.post(1)
    }
    #expect(fixture.hasWork())
    #expect(fixture.engine.deliver(packet, host: &fixture.host) == .taken)
    fixture.flush()
    let frame = try #require(try fixture.received().first)
    #expect(frame.bytes == bytes)
    #expect(
      frame.extras.filter { $0.type == .hash }.compactMap(\.hash)
        == (tellsHashes ? [offload.hash].compactMap { $0 } : []))
    #expect(frame.extras.contains { $0.type == .headroom && $0.headroom == 256 } == (headroom > 0))
    fixture.expectClean()
  }

  /// 18 data slots go, 19 do not (netif.h, XEN_NETIF_NR_SLOTS_MIN), and nothing is consumed for them; extra
  /// infos do not count.
  @Test func trap26_eighteenDataSlots() throws {
    let fixture = try RxFixture(headroom: 512)
    fixture.post(64)
    let most = 18 * (4096 - 512)
    #expect(try fixture.deliver(RxFrameBytes.frame(1, byteCount: most + 1)) == .dropped(.tooManySlots))
    #expect(try fixture.deliver(RxFrameBytes.frame(2, byteCount: most)) == .taken)
    fixture.flush()
    let frames = try fixture.received()
    #expect(frames.map(\.slots.count) == [18] && frames[0].extras.count == 1)
    #expect(fixture.frontend.postedCount == 64 - 19)
    #expect(fixture.engine.counters.drops[.tooManySlots] == 1)
    fixture.expectClean()
  }

  /// Without feature-sg a packet has one slot or is dropped before anything is consumed.
  @Test(arguments: [0, 256])
  func trap26_oneSlotWithoutScatterGather(headroom: Int) throws {
    let fixture = try RxFixture(accepted: [], headroom: headroom)
    fixture.post(8)
    let most = 4096 - headroom
    #expect(try fixture.deliver(RxFrameBytes.frame(1, byteCount: most + 1)) == .dropped(.severalSlots))
    #expect(try fixture.deliver(RxFrameBytes.frame(2, byteCount: most)) == .taken)
    fixture.flush()
    #expect(try fixture.received().map(\.bytes.count) == [most])
    #expect(fixture.engine.counters.drops[.severalSlots] == 1)
    fixture.expectClean()
  }

  /// However much headroom there is, the first slot holds an Ethernet header or the packet is not sent.
  @Test(arguments: [4000, 4081, 4082, 4083, 4095, 4096, 4097, 0x7FFF, 0x8000, .max, -1])
  func xsa522_theFirstSlotHoldsAHeader(headroom: Int) throws {
    for byteCount in [14, 15, 28, 29, 60, 252, 253, 1514] {
      let fixture = try RxFixture(headroom: headroom)
      fixture.post(64)
      let delivery = try fixture.deliver(RxFrameBytes.frame(3, byteCount: byteCount))
      fixture.flush()
      let frames = try fixture.received()
      if headroom > 4082 {
        #expect(delivery == .dropped(.headroom) && frames.isEmpty)
      } else if headroom >= 0 && (byteCount - 1) / (4096 - headroom) >= 18 {
        #expect(delivery == .dropped(.tooManySlots) && frames.isEmpty)
      } else {
        #expect(delivery == .taken && frames.map(\.bytes.count) == [byteCount])
      }
      fixture.expectClean()
    }
  }

  /// Packets that no link should bring.
  @Test func aPacketOfNoPossibleLengthIsDropped() throws {
    let fixture = try RxFixture()
    fixture.post(40)
    for count in [0, 1, 13] {
      #expect(try fixture.deliver([UInt8](repeating: 1, count: count)) == .dropped(.badLength))
    }
    var packet = try fixture.packet(RxFrameBytes.frame(1, byteCount: 60))
    packet.start = 4096 - 59
    #expect(fixture.engine.deliver(packet, host: &fixture.host) == .dropped(.badLength))
    packet = try fixture.packet(RxFrameBytes.frame(1, byteCount: 60))
    packet.start = -1
    #expect(fixture.engine.deliver(packet, host: &fixture.host) == .dropped(.badLength))
    packet = try fixture.packet(RxFrameBytes.frame(1, byteCount: 60))
    packet.start = .max
    #expect(fixture.engine.deliver(packet, host: &fixture.host) == .dropped(.badLength))
    packet = try fixture.packet(RxFrameBytes.frame(1, byteCount: 65536 - 16))
    packet.byteCount = 65536
    #expect(fixture.engine.deliver(packet, host: &fixture.host) == .dropped(.badLength))
    #expect(fixture.engine.counters.drops[.badLength] == 7 && fixture.engine.counters.drops.total == 7)
    fixture.expectClean()
  }

  /// Every byte of a response and of an extra info is defined: nothing of ours shows in the slots (XSA-216).
  @Test func xsa216_slotsHoldOnlyWhatIsTold() throws {
    let fixture = try RxFixture(headroom: 256, tellsHashes: true)
    fixture.post(3)
    var offload = PacketOffload()
    offload.hash = NetHash(type: .ipv6, algorithm: 1, value: 0x0403_0201)
    #expect(try fixture.deliver(RxFrameBytes.frame(1, byteCount: 100), offload: offload) == .taken)
    fixture.flush()
    // The ring's counters began 16 before the wrap: slots 240...242 of 256.
    let slots = fixture.ringPages.copyBytes(at: 64 + 240 * 8, count: 24)
    let id = UInt16(truncatingIfNeeded: RxFixture.start &* 7 &+ 3)
    #expect(
      slots == [
        UInt8(id & 0xFF), UInt8(id >> 8), 0, 1, 8, 0, 100, 0,
        4, 1, 2, 1, 1, 2, 3, 4,
        5, 0, 0, 1, 0, 0, 0, 0,
      ])
    _ = try fixture.received()
    fixture.expectClean()
  }

  /// A new headroom holds for the packets after it, flushed together with those before it.
  @Test func theHeadroomChangesBetweenPackets() throws {
    let fixture = try RxFixture()
    fixture.post(20)
    let bytes = RxFrameBytes.frame(1, byteCount: 5000)
    for headroom in [0, 256, 0, 700] {
      fixture.engine.configuration = NetRxConfiguration(accepted: [.scatterGather], headroom: headroom)
      #expect(try fixture.deliver(bytes) == .taken)
    }
    fixture.flush()
    let frames = try fixture.received()
    #expect(frames.map(\.bytes) == [bytes, bytes, bytes, bytes])
    #expect(frames.map(\.extras.count) == [0, 1, 0, 1])
    fixture.expectClean()
  }
}
