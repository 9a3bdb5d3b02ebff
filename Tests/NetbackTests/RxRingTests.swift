import Netback
import RingKit
import Simulator
import Testing

/// The receive ring's discipline: order, events, broken rings, closing.
@Suite struct RxRingTests {
  /// Packets come in the order in which they were taken, over many rounds of the ring and the counters' wrap,
  /// in whatever batches they are flushed.
  @Test(arguments: 0..<6 as Range<UInt64>)
  func trap30_slotsAreUsedInOrder(seed: UInt64) throws {
    var numbers = SeededNumbers(seed: seed)
    let fixture = try RxFixture()
    var expected: [[UInt8]] = []
    var seen: [[UInt8]] = []
    for number in 0..<300 as Range<UInt64> {
      fixture.post(Int.random(in: 0...6, using: &numbers))
      let bytes = RxFrameBytes.frame(number, byteCount: Int.random(in: 14...12000, using: &numbers))
      let packet = try fixture.packet(bytes)
      if case .noRoom = fixture.engine.deliver(packet, host: &fixture.host) {
        fixture.engine.drop(packet, as: .backlogFull, host: &fixture.host)
      } else {
        expected.append(bytes)
      }
      if numbers.chance(1, in: 4) { fixture.flush() }
      seen += try fixture.received().map(\.bytes)
    }
    fixture.flush()
    seen += try fixture.received().map(\.bytes)
    #expect(seen == expected && expected.count > 50)
    #expect(fixture.engine.counters.packets == UInt64(expected.count))
    fixture.expectClean()
  }

  /// All that the ring has can be taken before a flush, and not one slot more.
  @Test func theWholeRingFitsIntoOneFlush() throws {
    let fixture = try RxFixture()
    fixture.post(256)
    for number in 0..<256 as Range<UInt64> {
      #expect(try fixture.deliver(RxFrameBytes.frame(number, byteCount: 60)) == .taken)
    }
    let packet = try fixture.packet(RxFrameBytes.frame(256, byteCount: 60))
    #expect(
      fixture.engine.deliver(packet, host: &fixture.host) == .noRoom(slotsNeeded: 1, nextSegment: 0))
    fixture.engine.drop(packet, as: .expired, host: &fixture.host)
    fixture.flush()
    #expect(try fixture.received().map { RxFrameBytes.number(of: $0.bytes) } == Array(0..<256))
    fixture.expectClean()
  }

  /// The event comes with the slot that completes what is waited for: slots that are there already, and those
  /// before it, bring none.
  @Test(arguments: 0..<5)
  func trap24_theEventIsForTheLastSlot(posted: Int) throws {
    let fixture = try RxFixture()
    fixture.post(posted)
    let packet = try fixture.packet(RxFrameBytes.frame(1, byteCount: 5 * 4096))
    #expect(
      fixture.engine.deliver(packet, host: &fixture.host) == .noRoom(slotsNeeded: 5, nextSegment: 0))
    #expect(fixture.engine.arm(forSlots: 5, host: &fixture.host) == .idle)
    #expect(fixture.requestEvent == RxFixture.start &+ 5)
    for slot in (posted + 1)...7 {
      fixture.frontend.post(1)
      #expect(fixture.frontend.push() == (slot == 5), "slot \(slot)")
    }
    #expect(fixture.engine.arm(forSlots: 5, host: &fixture.host) == .more)
    #expect(fixture.engine.deliver(packet, host: &fixture.host) == .taken)
    fixture.flush()
    #expect(try fixture.received().count == 1)
    fixture.expectClean()
  }

  /// Waiting shows the frontend what was taken before: only then can it post again.
  @Test func armingFlushes() throws {
    let fixture = try RxFixture()
    fixture.post(1)
    #expect(try fixture.deliver(RxFrameBytes.frame(1, byteCount: 60)) == .taken)
    #expect(fixture.engine.arm(forSlots: 1, host: &fixture.host) == .idle)
    #expect(try fixture.received().count == 1)
    // More than the ring can hold waits for all of it; fewer than one for one.
    #expect(fixture.engine.arm(forSlots: .max, host: &fixture.host) == .idle)
    #expect(fixture.requestEvent == RxFixture.start &+ 257)
    #expect(fixture.engine.arm(forSlots: 0, host: &fixture.host) == .idle)
    #expect(fixture.requestEvent == RxFixture.start &+ 2)
    fixture.expectClean()
  }

  /// The frontend gets one event for a flush, and none when it asked for none (XSA-391); by then every buffer
  /// is free (net.md 6).
  @Test func trap7_oneEventForEachFlush() throws {
    let fixture = try RxFixture()
    fixture.post(64)
    let host = fixture.host
    var heldAtNotify: [Int] = []
    host.onNotify = { heldAtNotify.append(host.liveByteCount) }
    for number in 0..<10 as Range<UInt64> {
      #expect(try fixture.deliver(RxFrameBytes.frame(number, byteCount: 6000)) == .taken)
    }
    #expect(host.liveByteCount > 0)
    fixture.flush()
    #expect(host.notifyCount == 1 && heldAtNotify == [0])
    // It has not looked yet, and wants no further one.
    #expect(try fixture.deliver(RxFrameBytes.frame(10, byteCount: 60)) == .taken)
    fixture.flush()
    fixture.flush()
    #expect(host.notifyCount == 1)
    #expect(try fixture.received().count == 11)
    #expect(try fixture.deliver(RxFrameBytes.frame(11, byteCount: 60)) == .taken)
    fixture.flush()
    #expect(host.notifyCount == 2 && fixture.engine.counters.notifications == 2)
    #expect(try fixture.received().count == 1)
    fixture.expectClean()
  }

  /// An impossible producer breaks the ring once and for all, whenever it comes: nothing of the page is
  /// touched again, all memory is given back, and every later packet is counted.
  @Test(arguments: [257, -1, 1 << 31, 5000], [false, true])
  func trap2_aWildProducerBreaksTheRing(offset: Int, hasTaken: Bool) throws {
    let fixture = try RxFixture()
    fixture.post(2)
    var drops: UInt64 = 0
    if hasTaken {
      #expect(try fixture.deliver(RxFrameBytes.frame(1, byteCount: 5000)) == .taken)
      drops += 1
    }
    let producer = RxFixture.start &+ UInt32(truncatingIfNeeded: offset)
    fixture.setRingWord(producer, at: 0)
    let page = fixture.ringPages.copyBytes(at: 0, count: 4096)
    let memory = fixture.host.guest.memory.copyBytes(at: 0, count: 3 * 4096)
    for number in 2..<5 as Range<UInt64> {
      #expect(try fixture.deliver(RxFrameBytes.frame(number, byteCount: 9000)) == .dropped(.brokenRing))
      drops += 1
    }
    let fault = fixture.flush()
    guard case .broken(.ring) = fault else {
      Issue.record("the ring is not broken")
      return
    }
    // The frontend mends its page; that is too late.
    fixture.setRingWord(RxFixture.start &+ 2, at: 0)
    #expect(fixture.flush() == fault && fixture.engine.arm(forSlots: 1, host: &fixture.host) == fault)
    #expect(try fixture.deliver(RxFrameBytes.frame(9, byteCount: 60)) == .dropped(.brokenRing))
    #expect(fixture.postedSlotCount() == 0 && !fixture.hasWork())
    fixture.setRingWord(producer, at: 0)
    #expect(fixture.ringPages.copyBytes(at: 0, count: 4096) == page)
    #expect(fixture.host.guest.memory.copyBytes(at: 0, count: 3 * 4096) == memory)
    #expect(fixture.host.copyCallCount == 0 && fixture.host.notifyCount == 0)
    #expect(fixture.engine.counters.drops[.brokenRing] == drops + 1)
    #expect(fixture.host.liveByteCount == 0 && fixture.host.violations.isEmpty)
  }

  /// A producer that goes wild while slots are waited for is met by the check before the wait.
  @Test func trap2_theCheckBeforeTheWaitJudgesToo() throws {
    let fixture = try RxFixture()
    fixture.setRingWord(RxFixture.start &+ 300, at: 0)
    let turn = fixture.engine.arm(forSlots: 3, host: &fixture.host)
    let fault = RingError.producerOverflow(
      producer: RxFixture.start &+ 300, consumer: RxFixture.start, slots: 256)
    #expect(turn == .broken(.ring(fault)))
    #expect(fixture.flush() == turn)
  }

  /// A thread that polls learns of a broken ring too.
  @Test func pollingFindsABrokenRing() throws {
    let fixture = try RxFixture()
    let packet = try fixture.packet(RxFrameBytes.frame(1, byteCount: 60))
    #expect(!fixture.hasWork())
    #expect(
      fixture.engine.deliver(packet, host: &fixture.host) == .noRoom(slotsNeeded: 1, nextSegment: 0))
    #expect(!fixture.hasWork())
    fixture.setRingWord(RxFixture.start &- 1, at: 0)
    #expect(fixture.hasWork() && !fixture.hasWork())
    guard case .broken = fixture.flush() else {
      Issue.record("the ring is not broken")
      return
    }
    fixture.engine.drop(packet, as: .brokenRing, host: &fixture.host)
    #expect(fixture.host.liveByteCount == 0)
  }

  /// Another backend goes on where the first one stopped, on the same ring (ring.h, BACK_RING_ATTACH).
  @Test func trap4_anotherBackendAttaches() throws {
    let fixture = try RxFixture()
    fixture.post(30)
    for number in 0..<3 as Range<UInt64> {
      #expect(try fixture.deliver(RxFrameBytes.frame(number, byteCount: 5000)) == .taken)
    }
    fixture.flush()
    // Taken and not flushed when the first one ends: nobody has seen them, their slots are still requests.
    let lost = try fixture.packet(RxFrameBytes.frame(3, byteCount: 5000))
    #expect(fixture.engine.deliver(lost, host: &fixture.host) == .taken)
    fixture.host.releaseBuffer(lost.buffer)
    fixture.engine = NetRxEngine(
      ring: try BackRing(attaching: fixture.ringPages, slotByteCount: NetRxRequest.byteCount),
      domain: fixture.host.guest.domain,
      configuration: NetRxConfiguration(accepted: [.scatterGather]))
    for number in 4..<7 as Range<UInt64> {
      #expect(try fixture.deliver(RxFrameBytes.frame(number, byteCount: 5000)) == .taken)
    }
    fixture.flush()
    #expect(
      try fixture.received().map { RxFrameBytes.number(of: $0.bytes) } == [0, 1, 2, 4, 5, 6])
    fixture.expectClean()
  }

  /// A queue that closes shows what it has, and takes nothing more.
  @Test func closingFlushesWhatWasTaken() throws {
    let fixture = try RxFixture()
    fixture.post(10)
    #expect(try fixture.deliver(RxFrameBytes.frame(1, byteCount: 60)) == .taken)
    fixture.engine.beginClosing()
    #expect(try fixture.deliver(RxFrameBytes.frame(2, byteCount: 60)) == .dropped(.closing))
    #expect(fixture.flush() == .idle)
    #expect(try fixture.received().count == 1)
    #expect(fixture.engine.counters.drops[.closing] == 1)
    fixture.expectClean()
  }
}
