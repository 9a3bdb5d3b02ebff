import Netback
import RingKit
import Simulator
import Testing

/// The control ring as a ring: every request answered once, whatever it asks, in bounded turns.
struct ControlRingTests {
  @Test func whatNobodyKnowsIsNotSupported() throws {
    let fixture = try ControlFixture()
    for type: UInt16 in [0, 11, 12, 255, 256, 0x7FFF, 0x8000, 0xFFFF] {
      let response = try fixture.ask(NetControlType(rawValue: type), .max, .max, .max)
      #expect(response.status == 1 && response.data == 0)
    }
    #expect(fixture.host.copyCount == 0 && fixture.host.hashCount == 0)
  }

  /// 1000 requests, with counters that wrap on the way.
  @Test func countersWrap() throws {
    let fixture = try ControlFixture()
    for count: UInt32 in 0..<1000 {
      #expect(try fixture.status(.setHashMappingSize, count % 129) == .success)
      #expect(fixture.host.hash.mapping.count == Int(count % 129))
    }
    #expect(fixture.world.takenCount == 1000)
  }

  @Test func aFullRingTakesSeveralTurns() throws {
    let world = try NetControlWorld()
    #expect(world.slotCount == 128)
    for id in 0..<128 { world.place(NetControlRequest(id: UInt16(id), type: .getHashMappingSize)) }
    world.push()
    var answered: [UInt16] = []
    while world.runIfDue() {
      let responses = try world.takeResponses()
      #expect(responses.count <= 32)
      answered += responses.map(\.id)
    }
    #expect(answered == (0..<128).map { UInt16($0) })
    #expect(world.turnCount >= 4 && world.lastTurn == .idle)
  }

  @Test func aKickForNothingSendsNothing() throws {
    let world = try NetControlWorld()
    for _ in 0..<10 {
      world.kick()
      world.runIfDue()
      #expect(world.lastTurn == .idle)
    }
    #expect(world.host.notifyCount == 0 && world.host.hashCount == 0)
  }

  /// XSA-216: a response is 12 defined bytes; the rest of the slot is what the guest put there itself.
  @Test func responsesHaveDefinedBytesOnly() throws {
    let world = try NetControlWorld()
    world.place(
      NetControlRequest(id: 0x0102, type: .getHashMappingSize, 0x1111_1111, 0x2222_2222, 0x3333_3333))
    world.push()
    #expect(world.settle() == nil)
    let slot = 64 + Int(UInt32(0xFFFF_FFF0) % 128) * 16
    #expect(
      world.ringPages.copyBytes(at: slot, count: 16) == [
        0x02, 0x01, 4, 0, 0, 0, 0, 0, 128, 0, 0, 0, 0x33, 0x33, 0x33, 0x33,
      ])
    // Slots nobody used are untouched.
    #expect(world.ringPages.copyBytes(at: slot + 16, count: 16) == [UInt8](repeating: 0xA5, count: 16))
  }

  /// A producer beyond the ring breaks it once and for all; nothing is read or written afterwards.
  @Test(arguments: [129, 1 << 31, 0xFFFF_FFFF, 0x1234_5678] as [UInt32])
  func aWildProducerBreaksTheRing(ahead: UInt32) throws {
    let fixture = try ControlFixture()
    let world = fixture.world
    #expect(try fixture.status(.getHashMappingSize) == .success)
    let producer = UInt32(0xFFFF_FFF0) &+ 1 &+ ahead
    world.ringPages.setBytes((0..<4).map { UInt8(truncatingIfNeeded: producer >> ($0 * 8)) }, at: 0)
    let before = world.ringPages.copyBytes(at: 4, count: pageByteCount - 4)
    for _ in 0..<3 {
      world.kick()
      world.runIfDue()
      guard case .broken = world.lastTurn else {
        Issue.record("\(world.lastTurn)")
        return
      }
    }
    #expect(world.takenCount == 1)
    #expect(world.ringPages.copyBytes(at: 4, count: pageByteCount - 4) == before)
  }

  /// Hash requests have overtaken others when the engine is to close: once nothing is pending, all that was taken
  /// is answered, so that another backend finds whole requests from the first unanswered one on. Nothing new is
  /// mapped for that.
  @Test(arguments: [1, 2, 3, 5, 8]) func aRingThatClosesAnswersWhatItHasTaken(turns: Int) throws {
    let fixture = try ControlFixture()
    let world = fixture.world
    let list = fixture.list(fixture.pages(1, count: 40).map { NetGrantEntry(reference: $0) })
    for id in 0..<100 {
      let type: NetControlType =
        id % 3 == 0 ? .getHashMappingSize : id % 6 == 1 ? .addGrantMapping : .deleteGrantMapping
      world.place(NetControlRequest(id: UInt16(id), type: type, UInt32(id % 2), list, 40))
    }
    world.push()
    for _ in 0..<turns { world.runIfDue() }
    var responses = try world.takeResponses()
    let (taken, attempts) = (Int(world.takenCount), fixture.host.mapAttemptCount)
    #expect(taken < 100 || turns > 3)
    #expect(responses.count < taken && world.pendingCount == taken - responses.count)
    world.beginClosing()
    world.kick()
    #expect(world.settle() == nil)
    responses += try world.takeResponses()
    #expect(Int(world.takenCount) == taken)
    #expect(responses.map(\.id).sorted() == (0..<taken).map { UInt16($0) })
    #expect(fixture.host.mapAttemptCount - attempts <= 40)
    world.kick()
    #expect(world.settle() == nil)
    #expect(try world.takeResponses().isEmpty)
    world.close()
    #expect(fixture.host.mappedCount == 0 && fixture.host.violations.isEmpty)
  }

  /// The ring breaks while a request about staging grants is under way: it is not answered, and the end of the
  /// connection leaves nothing mapped.
  @Test func aRingThatBreaksUnderWayLeavesNothingMapped() throws {
    let fixture = try ControlFixture()
    let world = fixture.world
    let list = fixture.list(fixture.pages(1, count: 40).map { NetGrantEntry(reference: $0) })
    world.place(NetControlRequest(id: 1, type: .addGrantMapping, 0, list, 40))
    world.push()
    for _ in 0..<3 { world.runIfDue() }
    #expect(fixture.host.mappedCount > 0 && world.pendingCount == 1)
    let attempts = fixture.host.mapAttemptCount
    world.ringPages.setBytes([0, 0, 0, 0x40], at: 0)
    world.kick()
    #expect(world.settle() == nil)
    // Nothing more is done for a frontend that cannot be answered.
    #expect(fixture.host.mapAttemptCount == attempts)
    guard case .broken = world.lastTurn else {
      Issue.record("\(world.lastTurn)")
      return
    }
    world.close()
    #expect(fixture.host.mappedCount == 0 && fixture.host.violations.isEmpty)
  }
}
