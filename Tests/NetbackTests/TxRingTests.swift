import Netback
import RingKit
import Simulator
import Testing

/// The transmit direction's manners on the ring (net.md 4.1), all near the end of the counters.
struct TxRingTests {
  /// XSA-155: the guest rewrites every slot as soon as it sees that the backend works.
  @Test func trap1_slotsAreReadOnce() throws {
    let fixture = try TxFixture()
    let world = fixture.world
    let nonsense = [UInt8](repeating: 0xFF, count: 4096 - 64)
    world.host.onGuestRead = { _ in world.ringPages.setBytes(nonsense, at: 64) }
    let first = fixture.place([.init(1, 0, 100), .init(2, 50, 200), .init(3, 0, 4096)])
    let second = fixture.place([.init(4, 7, 60)])
    #expect(try fixture.settle() == [.okay, .okay, .okay, .okay])
    #expect(fixture.frames == [first, second])
    fixture.expectNothingLeft()
  }

  /// XSA-39: a producer that cannot be breaks the ring, once and for good, whatever was done before.
  @Test(arguments: [257, 258, 1 << 31, UInt32.max, UInt32.max - 100], [0, 3])
  func trap2_aWildProducerBreaksTheRing(_ distance: UInt32, _ before: Int) throws {
    let fixture = try TxFixture()
    let world = fixture.world
    for page in 0..<before { fixture.place([.init(page, 0, 100)]) }
    #expect(try fixture.settle() == [NetStatus](repeating: .okay, count: before))
    let consumer = 0xFFFF_FFF0 &+ UInt32(before)
    let producer = consumer &+ distance
    world.ringPages.setBytes((0..<4).map { UInt8(truncatingIfNeeded: producer >> (8 * $0)) }, at: 0)
    let page = world.ringPages.copyBytes(at: 0, count: 4096)
    world.kick()
    world.runIfDue()
    guard case .broken(.ring(let error)) = world.lastTurn else {
      Issue.record("not broken by \(distance): \(world.lastTurn)")
      return
    }
    #expect("\(error)".contains("\(producer)"))
    world.run()
    #expect(world.lastTurn == .broken(.ring(error)) && !world.hasWork())
    #expect(world.ringPages.copyBytes(at: 0, count: 4096) == page)
    #expect(fixture.frames.count == before && world.leftovers.isEmpty)
  }

  /// A thread that polls finds the fault too, and its turn reports it.
  @Test func trap2_pollingFindsABrokenRing() throws {
    let fixture = try TxFixture()
    fixture.world.ringPages.setBytes([77, 77, 0, 0], at: 0)
    #expect(fixture.world.hasWork())
    fixture.world.run(arms: false)
    guard case .broken(.ring) = fixture.world.lastTurn else {
      Issue.record("the ring is not broken: \(fixture.world.lastTurn)")
      return
    }
    #expect(!fixture.world.hasWork())
  }

  /// The engine runs only on events that the ring's rules demand, and none is missing.
  @Test func trap3_noWakeUpIsLost() throws {
    let fixture = try TxFixture()
    for round in 0..<600 {
      let count = round % 5 + 1
      for index in 0..<count { fixture.place([.init(index, round, 60 + round)]) }
      #expect(try fixture.settle().count == count, "round \(round)")
    }
    fixture.expectNothingLeft()
  }

  @Test func trap3_pollingAsksForNoEvents() throws {
    let fixture = try TxFixture()
    let world = fixture.world
    fixture.place(size: 60)
    _ = try fixture.settle()
    let event = world.ringPages.copyBytes(at: 4, count: 4)
    for _ in 0..<40 {
      #expect(!world.hasWork())
      fixture.place(size: 60)
      world.push()
      #expect(world.hasWork() && world.hasWork())
      world.run(arms: false)
      #expect(try world.lastTurn == .idle && world.takeResponses().count == 1)
    }
    #expect(world.ringPages.copyBytes(at: 4, count: 4) == event)
    world.run()
    #expect(world.ringPages.copyBytes(at: 4, count: 4) != event)
    fixture.place(size: 60)
    #expect(try fixture.settle() == [.okay])
    fixture.expectNothingLeft()
  }

  /// What waits lies in the ring as if it had not been looked at, so that a new process finds all of it.
  @Test(arguments: [false, true])
  func trap4_aRestartLosesNothing(_ forBuffers: Bool) throws {
    let fixture = try TxFixture { $0.bufferByteCount = 32768 }
    let world = fixture.world
    if forBuffers { world.host.holdsFrames = true } else { world.host.credit = 4 * 1000 }
    var sent: [[UInt8]] = []
    for index in 0..<5 {
      let extras = [NetExtraInfo(headroom: 0), NetExtraInfo(headroom: 1)]
      sent.append(fixture.place([.init(index, 0, 300), .init(index + 5, 9, 700)], extras: extras))
    }
    world.push()
    world.run()
    #expect(world.isWaiting && world.lastTurn == .idle && !world.hasWork())
    #expect(fixture.frames == Array(sent.prefix(4)))
    #expect(try world.takeResponses().count == 16)
    for _ in 0..<3 {
      try world.restartBackend()
      world.host.holdsFrames = false
    }
    world.host.credit = nil
    #expect(try fixture.settle() == [.okay, .null, .null, .okay])
    #expect(fixture.frames == sent)
    fixture.expectNothingLeft()
  }

  /// Ids come back bit for bit, each once and in order, duplicates and all.
  @Test func trap5_everySlotIsAnsweredOnceAndInOrder() throws {
    let fixture = try TxFixture()
    let world = fixture.world
    let ids: [UInt16] = [7, 7, 0xFFFF, 0, 0x8000, 7, 255, 256]
    for (index, id) in ids.enumerated() {
      // Every third one is too short, every third one's grant is bad.
      let request = NetTxRequest(
        reference: index % 3 == 2 ? GrantReference(rawValue: 5) : world.guest.grant(page: 0), offset: 0,
        flags: [], id: id, size: index % 3 == 1 ? 13 : 60)
      world.place(request.encode())
    }
    world.push()
    #expect(world.settle() == nil)
    let responses = try world.takeResponses()
    #expect(responses.map(\.id) == ids)
    #expect(responses.map(\.status) == ids.indices.map { $0 % 3 == 0 ? .okay : .error })
    fixture.expectNothingLeft()
  }

  /// XSA-216: only the response's four bytes change in a slot.
  @Test func trap5_responsesWriteTheirBytesOnly() throws {
    let fixture = try TxFixture()
    let world = fixture.world
    fixture.place([.init(1, 0, 100), .init(2, 0, 50)], extras: [NetExtraInfo(headroom: 0x1234)])
    let before = world.ringPages.copyBytes(at: 64, count: 4032)
    #expect(try fixture.settle() == [.okay, .null, .okay])
    let after = world.ringPages.copyBytes(at: 64, count: 4032)
    // The counters began at a multiple of 256 minus 16.
    let base = 240 * 12
    for index in before.indices where before[index] != after[index] {
      let place = index - base
      #expect(place >= 0 && place < 36 && place % 12 < 4, "byte \(index)")
    }
  }

  /// One turn, one batch of copies, one event; a kick that finds nothing costs the guest no event.
  @Test func trap7_aTurnNotifiesOnce() throws {
    let fixture = try TxFixture()
    let world = fixture.world
    for _ in 0..<60 { fixture.place(size: 60) }
    #expect(try fixture.settle().count == 60)
    #expect(world.host.notifyCount == 1 && world.host.batches == [60])
    for _ in 0..<5 {
      world.kick()
      world.runIfDue()
      #expect(world.lastTurn == .idle && world.host.notifyCount == 1)
    }
    #expect(world.counters.notifications == 1 && world.counters.slots == 60)
  }

  /// XSA-39 and XSA-216 again: a full ring is worked off in turns of bounded size.
  @Test func trap47_workOfATurnIsBounded() throws {
    let fixture = try TxFixture()
    let world = fixture.world
    for _ in 0..<256 { fixture.place(size: 60) }
    world.push()
    for turn in 1...4 {
      world.run()
      #expect(fixture.frames.count == turn * 64)
      #expect(world.lastTurn == (turn < 4 ? .more : .idle))
    }
    #expect(try world.takeResponses().count == 256)
    // Requests that cost nothing are in the budget as well.
    for _ in 0..<128 {
      fixture.place(size: 0, flags: .extraInfo)
      fixture.place(NetExtraInfo(multicast: .broadcast, isAdded: true))
    }
    world.push()
    world.run()
    #expect(try world.lastTurn == .more && world.takeResponses().count == 128)
    #expect(try fixture.settle().count == 128)
    fixture.expectNothingLeft()
  }

  /// A packet of as many slots as the ring has is one that the engine survives.
  @Test func trap47_aPacketFillsTheRing() throws {
    let fixture = try TxFixture {
      $0.limits = NetTxLimits(packetCount: 1, acceptedSlotCount: 256, toleratedSlotCount: 256)
    }
    let bytes = fixture.place((0..<256).map { .init($0 % 64, $0, 255) })
    #expect(try fixture.settle() == [NetStatus](repeating: .okay, count: 256))
    #expect(fixture.frames == [bytes])
    fixture.expectNothingLeft()
  }

  /// After closing nothing is taken, and nothing is owed.
  @Test func closingLeavesTheRestInTheRing() throws {
    let fixture = try TxFixture()
    let world = fixture.world
    world.host.credit = 100
    fixture.place(size: 60)
    fixture.place(size: 60)
    world.push()
    world.run()
    #expect(world.isWaiting && !world.isDrained)
    world.beginClosing()
    #expect(world.isDrained && !world.hasWork())
    world.host.credit = nil
    world.run()
    #expect(try world.lastTurn == .idle && fixture.frames.count == 1 && world.takeResponses().count == 1)
    #expect(world.outstanding == 1 && world.leftovers.isEmpty)
  }
}
