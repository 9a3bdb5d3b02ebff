import Blkback
import RingKit
import Simulator
import Testing

/// Who may take how much and when: pausing, polling, rates, and what the host is told.
struct EngineTurnTests {
  @Test(arguments: [false, true])
  func pausingFinishesWhatWasTaken(_ persistent: Bool) throws {
    let fixture = try EngineFixture { $0.usesPersistentGrants = persistent }
    let world = fixture.world
    for id: UInt64 in 0..<5 { fixture.place(.write, id: id, sector: id * 8) }
    world.push()
    world.runIfDue()
    world.pause()
    #expect(!world.isDrained)
    for id: UInt64 in 5..<10 { fixture.place(.write, id: id, sector: id * 8) }
    #expect(Set(try fixture.settle().keys) == Set(0..<5))
    #expect(world.isDrained && world.takenCount == 5 && !world.hasWork())
    for _ in 0..<3 {
      world.kick()
      world.runIfDue()
      #expect(world.lastTurn == .idle && world.takenCount == 5)
    }
    world.resume()
    #expect(Set(try fixture.settle().keys) == Set(5..<10))
    // The ring asks for events as before.
    fixture.place(.read, id: 10)
    #expect(try fixture.settle().count == 1)
    fixture.expectNothingLeft()
  }

  /// A turn that does not arm leaves req_event alone, so pushes bring no event, and a look finds them.
  @Test func pollingAsksForNoEvents() throws {
    let fixture = try EngineFixture()
    let world = fixture.world
    fixture.place(.read, id: 0)
    #expect(try fixture.settle().count == 1)
    let event = world.ringPages.copyBytes(at: 4, count: 4)
    fixture.place(.read, id: 1)
    world.push()
    // That one had been asked for; from here on the thread polls.
    world.runUnarmed()
    world.complete(upTo: 1)
    world.runUnarmed()
    for id: UInt64 in 2..<50 {
      #expect(!world.hasWork())
      fixture.place(.read, id: id)
      world.push()
      #expect(world.hasWork() && world.hasWork() && world.inFlightCount == 0, "looking takes nothing")
      world.runUnarmed()
      world.complete(upTo: 1)
      world.runUnarmed()
      #expect(world.lastTurn == .idle)
      #expect(try fixture.answers()[id]?.status == .okay)
    }
    #expect(world.ringPages.copyBytes(at: 4, count: 4) == event)
    // The last turn before sleeping arms, and finds what came in between.
    fixture.place(.read, id: 50)
    world.push()
    world.kick()
    #expect(try fixture.settle().count == 1)
    #expect(world.ringPages.copyBytes(at: 4, count: 4) != event)
    fixture.place(.read, id: 51)
    #expect(try fixture.settle().count == 1)
    fixture.expectNothingLeft()
  }

  @Test func pollingFindsABrokenRing() throws {
    let fixture = try EngineFixture()
    fixture.world.ringPages.setBytes([77, 0, 0, 0], at: 0)
    #expect(fixture.world.hasWork())
    fixture.world.runUnarmed()
    guard case .broken = fixture.world.lastTurn else {
      Issue.record("the ring is not broken: \(fixture.world.lastTurn)")
      return
    }
    #expect(!fixture.world.hasWork())
  }

  /// What the host's gate keeps in the ring is found again when the host runs the queue.
  @Test func gatedRequestsStayInTheRing() throws {
    let fixture = try EngineFixture()
    let world = fixture.world
    for id in 0..<UInt64(world.slotCount) { fixture.place(.write, id: id, sector: id * 8, pages: 2) }
    var answers: Set<UInt64> = []
    world.host.takeBudget = 0
    world.push()
    for round in 1...16 {
      world.host.takeBudget = 2
      world.kick()
      #expect(world.settle() == nil && world.lastTurn == .idle)
      #expect(world.takenCount == UInt64(round * 2))
      answers.formUnion(try fixture.answers().keys)
      #expect(answers.count == round * 2)
    }
    #expect(world.host.chargeCount == 32 && world.host.chargedByteCount == 32 * 8192)
    // With nothing kept back the ring asks for an event again.
    world.host.takeBudget = 100
    world.kick()
    world.runIfDue()
    fixture.place(.read, id: 99)
    #expect(try fixture.settle().count == 1)
    fixture.expectNothingLeft()
  }

  /// Each answer is told once, with what it was and how long it took.
  @Test(arguments: BlockABI.allCases)
  func outcomesAreTold(_ abi: BlockABI) throws {
    let fixture = try EngineFixture(offered: everything, segments: 8) {
      $0.abi = abi
      $0.discardSupport = DiscardSupport(unitByteCount: 512)
    }
    let world = fixture.world
    let page = world.guest.grant(page: 0)
    let segments = [(page, UInt8(0), UInt8(7)), (page, UInt8(3), UInt8(3))]
    let kinds: [(BlockOperation, BlockRequestKind)] = [
      (.read, .read), (.write, .write), (.flush, .flush), (.writeBarrier, .barrier),
    ]
    for (operation, kind) in kinds {
      world.host.outcomes = []
      fixture.place(operation, id: 1, sector: 8, segments)
      _ = try fixture.settle()
      #expect(world.host.outcomes.map(\.kind) == [kind] && world.host.outcomes[0].sectorCount == 9)
      #expect(world.host.outcomes[0].nanoseconds > 0 && !world.host.outcomes[0].isIndirect)
    }
    world.host.outcomes = []
    fixture.placeIndirect(.write, id: 1, sector: 8, segments, descriptors: 9)
    _ = try fixture.settle()
    fixture.placeDiscard(id: 1, sector: 8, count: 100)
    _ = try fixture.settle()
    fixture.place(.read, id: 1, sector: 1024)
    fixture.placeIndirect(.read, id: 1, sector: 1024, segments, descriptors: 9)
    fixture.place(BlockOperation(rawValue: 99), id: 1)
    fixture.placeDiscard(id: 1, sector: 0, count: 0)
    world.push()
    #expect(world.settle() == nil)
    let told = world.host.outcomes
    #expect(told.count == 6)
    #expect(told[0].kind == .write && told[0].isIndirect && told[0].sectorCount == 9)
    #expect(told[1].kind == .discard && told[1].sectorCount == 100 && told[1].status == .okay)
    let refused = told.filter { $0.rejection == .outsideDisk }
    #expect(refused.map(\.isIndirect).sorted { !$0 && $1 } == [false, true])
    #expect(refused.allSatisfy { $0.kind == .read && $0.status == .error && $0.nanoseconds == 0 })
    #expect(told.contains { $0.kind == .other && $0.rejection == .unknownOperation })
    #expect(told.contains { $0.kind == .discard && $0.sectorCount == 0 && $0.status == .okay })
    #expect(world.host.chargeCount == 10)
    fixture.expectNothingLeft()
  }

  /// Locks of blocks exclude what they must and nothing else.
  @Test func blockRanges() {
    var table = BlockRangeTable(capacity: 4)
    for first: UInt64 in 0..<6 {
      for end in first + 1...6 {
        for (held, asked) in [(false, false), (false, true), (true, false), (true, true)] {
          let isFirst = table.lock(key: 1, first: 2, end: 4, isExclusive: held)
          let overlaps = first < 4 && end > 2
          let isGiven = table.lock(key: 2, first: first, end: end, isExclusive: asked)
          #expect(isFirst && isGiven == !(overlaps && (held || asked)))
          if isGiven { table.unlock(key: 2) }
          table.unlock(key: 9)
          #expect(table.count == 1)
          table.unlock(key: 1)
          #expect(table.count == 0)
        }
      }
    }
  }

  /// A write that another queue's lock keeps waiting goes on when the host runs the queue again.
  @Test func aNeighboursWriteKeepsThisOneWaiting() throws {
    let fixture = try EngineFixture { $0.medium = MediumGeometry(blockByteCount: 4096, memoryAlignment: 512) }
    let world = fixture.world
    let neighbour: UInt32 = 0xFFFF_0000
    #expect(world.host.lockBlocks(token: neighbour, first: 1, end: 2, isExclusive: true))
    fixture.stamp(page: 0, 1)
    let page = world.guest.grant(page: 0)
    fixture.place(.write, id: 1, sector: 9, [(page, 0, 0)])
    fixture.place(.read, id: 2)
    world.push()
    world.runIfDue()
    #expect(world.isStarved && world.host.pendingCount == 0 && world.takenCount == 1)
    world.host.unlockBlocks(token: neighbour)
    world.kick()
    #expect(try fixture.settle().count == 2)
    fixture.expectNothingLeft()
  }
}
