import Netback
import RingKit
import Simulator
import Testing

/// Frontends that post too little, by the clock.
@Suite struct RxStallTests {
  static let second: UInt64 = 1_000_000_000

  // MARK: The state machine alone

  @Test func trap25_drainsAfterTenSecondsAndStallsAfterSixty() {
    var stall = RxStall(sendsEvents: true)
    #expect(stall.deadline == nil && stall.judge(postedSlotCount: 0, now: .max) == .none)
    stall.lacksSlots(4, now: 100)
    stall.lacksSlots(4, now: 200)
    #expect(stall.awaitedSlotCount == 4)
    #expect(stall.deadline == 100 + 10 * Self.second)
    #expect(stall.judge(postedSlotCount: 3, now: 99 + 10 * Self.second) == .none)
    #expect(stall.judge(postedSlotCount: 3, now: 100 + 10 * Self.second) == .drain)
    #expect(stall.deadline == 100 + 60 * Self.second)
    // What comes next waits ten seconds of its own, and does not put the end off.
    stall.lacksSlots(2, now: 15 * Self.second)
    #expect(stall.deadline == 25 * Self.second)
    #expect(stall.judge(postedSlotCount: 1, now: 25 * Self.second) == .drain)
    #expect(stall.judge(postedSlotCount: 1, now: 99 + 60 * Self.second) == .none && !stall.isStalled)
    #expect(stall.judge(postedSlotCount: 1, now: 100 + 60 * Self.second) == .carrierOff && stall.isStalled)
    #expect(stall.deadline == nil && stall.awaitedSlotCount == 2)
    #expect(stall.judge(postedSlotCount: 1, now: 1000 * Self.second) == .none)
    #expect(stall.judge(postedSlotCount: 2, now: 1001 * Self.second) == .carrierOn && !stall.isStalled)
    #expect(stall == RxStall(sendsEvents: true))
  }

  /// Nothing but a packet that was taken, or slots enough, puts the minute off.
  @Test func progressEndsTheWait() {
    var stall = RxStall(sendsEvents: true)
    stall.lacksSlots(2, now: 0)
    stall.moved()
    #expect(stall == RxStall(sendsEvents: true))
    stall.lacksSlots(2, now: 50 * Self.second)
    #expect(stall.judge(postedSlotCount: 0, now: 70 * Self.second) == .drain)
    #expect(stall.judge(postedSlotCount: 2, now: 80 * Self.second) == .none)
    #expect(stall.awaitedSlotCount == 0 && stall.deadline == nil)
    // A wait for memory is no fault of the frontend's: it drains, and never stalls.
    stall.waits(now: 100 * Self.second)
    #expect(stall.judge(postedSlotCount: 0, now: 111 * Self.second) == .drain)
    #expect(stall.judge(postedSlotCount: 0, now: 300 * Self.second) == .none)
  }

  /// A frontend need not be able to post more than the longest packet's slots and one (netif.h and Linux's
  /// netfront): it gets its carrier back with these, whatever it was that it could not take.
  @Test func trap25_aNeedBeyondWhatIsPostedEnds() {
    var stall = RxStall(sendsEvents: true)
    stall.lacksSlots(21, now: 0)
    #expect(stall.judge(postedSlotCount: 20, now: 60 * Self.second) == .carrierOff)
    #expect(stall.awaitedSlotCount == 19)
    #expect(stall.judge(postedSlotCount: 18, now: 61 * Self.second) == .none)
    #expect(stall.judge(postedSlotCount: 19, now: 61 * Self.second) == .carrierOn)
  }

  /// A clock that jumps back does not trap, and one that jumps ahead only ends waits.
  @Test func theClockMayJump() {
    var stall = RxStall(sendsEvents: false)
    stall.lacksSlots(1, now: 100 * Self.second)
    #expect(stall.judge(postedSlotCount: 0, now: 0) == .none)
    #expect(stall.judge(postedSlotCount: 0, now: .max) == .carrierOff)
    #expect(stall.deadline != nil)
    stall.lacksSlots(1, now: 0)
    #expect(stall.judge(postedSlotCount: 1, now: 0) == .carrierOn)
  }

  @Test func trap31_aTimerTakesTheEventsPlace() {
    var stall = RxStall(sendsEvents: false)
    #expect(stall.pollsForSlots && stall.deadline == nil)
    stall.lacksSlots(1, now: 1000)
    #expect(stall.deadline == 1000 + 30_000_000)
    // Whatever else is looked at meanwhile does not put it off.
    stall.lacksSlots(1, now: 5000)
    #expect(stall.deadline == 1000 + 30_000_000)
    #expect(stall.judge(postedSlotCount: 0, now: 40_000_000) == .none)
    #expect(stall.deadline == 70_000_000)
    #expect(stall.judge(postedSlotCount: 0, now: 61 * Self.second) == .carrierOff)
    #expect(stall.deadline == 61 * Self.second + 30_000_000)
  }

  // MARK: A queue

  /// A guest that posts nothing, or one slot too few for ever: a bounded number of bytes waits, the rest is
  /// dropped and counted, the carrier goes after a minute and comes back with the slots (XSA-392).
  @Test(arguments: [0, 1])
  func xsa392_aGuestThatPostsTooLittle(posted: Int) throws {
    var setup = SimulatedNetRxWorld.Setup()
    setup.backlogByteLimit = 256 << 10
    setup.backlogCapacity = 1000
    let world = try SimulatedNetRxWorld(setup)
    world.post(posted)
    var brought: UInt64 = 0
    for step in 0..<600 {
      for _ in 0..<20 {
        if !world.bring(RxFrameBytes.frame(brought, byteCount: 5000)) { Issue.record("no buffer") }
        brought += 1
      }
      world.run()
      #expect(world.host.liveByteCount <= 256 << 10 && world.waitingByteCount <= 256 << 10)
      #expect(world.settle() && !world.isStalled, "step \(step)")
      // 59.9 s in all.
      if step < 599 { world.pass(100_000_000) }
    }
    #expect(world.counters.drops[.backlogFull] > 11_000)
    #expect(world.counters.drops[.expired] >= 32 * 5 && world.counters.drops[.stalled] == 0)
    world.pass(200_000_000)
    #expect(world.isStalled && world.waitingCount == 0 && world.host.liveByteCount == 0)
    for _ in 0..<10 {
      world.bring(RxFrameBytes.frame(brought, byteCount: 60))
      brought += 1
    }
    #expect(world.counters.drops[.stalled] >= 10)
    #expect(world.counters.drops.total == brought && world.counters.packets == 0)
    // It takes no time, and little work, while nothing changes.
    let turns = world.turnCount
    world.pass(3600 * Self.second)
    #expect(world.turnCount == turns)
    // The slots come: their event brings the carrier back, and packets flow.
    world.post(2)
    #expect(world.isKicked)
    #expect(world.settle() && !world.isStalled)
    world.bring(RxFrameBytes.frame(brought, byteCount: 5000))
    world.run()
    try world.frontend.collect()
    #expect(world.frontend.frames.map { RxFrameBytes.number(of: $0.bytes) } == [brought])
    #expect(world.frontend.violations.isEmpty && world.host.violations.isEmpty)
  }

  /// Slots before the ten seconds are over: everything that waits arrives, on the event alone.
  @Test func trap25_aSlowGuestLosesNothing() throws {
    let world = try SimulatedNetRxWorld()
    for number in 0..<30 as Range<UInt64> { world.bring(RxFrameBytes.frame(number, byteCount: 5000)) }
    world.run()
    var seen: [UInt64] = []
    while seen.count < 30 {
      world.pass(9 * Self.second)
      world.post(3)
      #expect(world.isKicked && world.settle())
      try world.frontend.collect()
      seen += world.frontend.frames.map { RxFrameBytes.number(of: $0.bytes) }
      world.frontend.frames = []
      guard seen.count > 0 else { break }
    }
    #expect(seen == Array(0..<30) && world.counters.drops.total == 0)
    #expect(world.frontend.violations.isEmpty && world.host.violations.isEmpty)
  }

  /// Without feature-rx-notify the frontend sends no event, and is asked for none.
  @Test func trap31_slotsAreFoundWithoutEvents() throws {
    var setup = SimulatedNetRxWorld.Setup()
    setup.sendsEvents = false
    let world = try SimulatedNetRxWorld(setup)
    world.frontend.post(1)
    _ = world.frontend.push()
    for number in 0..<10 as Range<UInt64> { world.bring(RxFrameBytes.frame(number, byteCount: 5000)) }
    world.run()
    world.frontend.post(40)
    _ = world.frontend.push()
    world.pass(29_000_000)
    try world.frontend.collect()
    #expect(world.frontend.frames.isEmpty)
    world.pass(2_000_000)
    try world.frontend.collect()
    #expect(world.frontend.frames.count == 10)
    // Then there is nothing to look for.
    let turns = world.turnCount
    world.pass(100 * Self.second)
    #expect(world.turnCount == turns)
    #expect(world.frontend.violations.isEmpty && world.host.violations.isEmpty)
  }

  /// A stalled frontend that sends no events is found by the timer as well.
  @Test func trap31_theCarrierComesBackWithoutEvents() throws {
    var setup = SimulatedNetRxWorld.Setup()
    setup.sendsEvents = false
    let world = try SimulatedNetRxWorld(setup)
    world.bring(RxFrameBytes.frame(1, byteCount: 60))
    world.run()
    world.pass(61 * Self.second)
    #expect(world.isStalled)
    world.frontend.post(1)
    _ = world.frontend.push()
    world.pass(30_000_000)
    #expect(!world.isStalled)
  }

  /// A thread that polls asks for no event, and makes a turn only when one gets further.
  @Test func aPollingThreadFindsSlots() throws {
    let world = try SimulatedNetRxWorld()
    // The first event is due as the ring was formatted.
    world.post(1)
    world.run(arms: false)
    #expect(!world.hasWork())
    world.bring(RxFrameBytes.frame(1, byteCount: 5000))
    #expect(world.run(arms: false) == .idle && !world.hasWork())
    world.frontend.post(3)
    #expect(!world.frontend.push() && world.hasWork())
    #expect(world.run(arms: false) == .idle && !world.hasWork())
    try world.frontend.collect()
    #expect(world.frontend.frames.count == 1)
    world.bring(RxFrameBytes.frame(2, byteCount: 60_000))
    world.run(arms: false)
    world.pass(11 * Self.second)
    #expect(world.counters.drops[.expired] == 1)
    // Slots come, and nobody needs them.
    world.frontend.post(20)
    _ = world.frontend.push()
    #expect(!world.hasWork())
    // What was taken is to be flushed.
    world.bring(RxFrameBytes.frame(3, byteCount: 1_000))
    #expect(world.hasWork())
    world.run(arms: false)
    #expect(!world.hasWork())
    #expect(world.frontend.violations.isEmpty && world.host.violations.isEmpty)
  }

  /// A closing queue, and one whose ring is broken, let go of all that waits.
  @Test(arguments: [false, true])
  func nothingWaitsAtTheEnd(breaks: Bool) throws {
    let world = try SimulatedNetRxWorld()
    for number in 0..<5 as Range<UInt64> { world.bring(RxFrameBytes.frame(number, byteCount: 5000)) }
    if breaks {
      RxFixture.setWord(0x7777_7777, at: 0, of: world.ringPages)
    } else {
      world.line.beginClosing(host: &world.host)
    }
    let turn = world.run()
    if case .broken = turn { #expect(breaks) } else { #expect(!breaks) }
    #expect(world.host.liveByteCount == 0)
    #expect(world.counters.drops[breaks ? .brokenRing : .closing] == 5)
    world.bring(RxFrameBytes.frame(9, byteCount: 60))
    #expect(world.host.liveByteCount == 0 && world.counters.drops.total == 6)
  }
}
