import Blkback
import RingKit
import Simulator
import Testing

/// What the engine does when the guest, the disk or the memory behaves badly.
struct EngineTroubleTests {
  // MARK: Lost data

  /// Another queue may latch the loss at any moment of a write or flush of this one: from then on none
  /// succeeds.
  @Test(arguments: [false, true], 0..<10)
  func aLossReachesWhatIsUnderWay(_ persistent: Bool, _ steps: Int) throws {
    for seed: UInt64 in 1...20 {
      let fixture = try EngineFixture {
        $0.seed = seed
        $0.usesPersistentGrants = persistent
        $0.medium = MediumGeometry(blockByteCount: 4096, memoryAlignment: 512)
      }
      let world = fixture.world
      world.host.faults.interruption = 300
      let reference = world.guest.grant(page: 0)
      fixture.place(.write, id: 1, sector: 3, [(reference, 0, 0)])
      fixture.place(.flush, id: 2, sector: 9, [(reference, 0, 0)])
      fixture.place(.flush, id: 3, pages: 0)
      fixture.place(.write, id: 4, sector: 16, [(reference, 0, 7)])
      world.push()
      for step in 0..<steps { _ = step % 2 == 0 ? world.runIfDue() : world.complete(upTo: 2) > 0 }
      let before = world.counters
      world.host.isFenced = true
      #expect(world.settle() == nil)
      #expect(world.counters.writes == before.writes && world.counters.flushes == before.flushes)
      // The empty flush is held, unless it was over before.
      #expect(world.heldCount <= 1)
      #expect(try fixture.answers().count == 4 - world.heldCount)
      fixture.expectNothingLeft()
    }
  }

  // MARK: A hostile ring

  @Test(arguments: [41, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF] as [UInt32])
  func anImpossibleProducerBreaksTheRingForGood(_ jump: UInt32) throws {
    let fixture = try EngineFixture { $0.bufferByteCount = 4096 }
    for id: UInt64 in 0..<8 { fixture.place(.read, id: id, sector: id * 8) }
    fixture.world.push()
    fixture.world.runIfDue()
    #expect(fixture.world.inFlightCount == 2, "one has the buffer, one waits for it")
    fixture.world.ringPages.setBytes(littleEndian(0xFFFF_FFF0 &+ jump), at: 0)
    // The request that waits keeps the engine from looking; the ring is found broken once it has the buffer.
    for _ in 0..<100 {
      fixture.world.kick()
      fixture.world.complete(upTo: 1)
      fixture.world.runIfDue()
    }
    guard case .broken = fixture.world.lastTurn else {
      Issue.record("the ring is not broken: \(fixture.world.lastTurn)")
      return
    }
    let notifications = fixture.world.host.notifyCount
    fixture.world.ringPages.setBytes(littleEndian(0xFFFF_FFF0 &+ 8), at: 0)
    let forged = fixture.world.ringPages.copyBytes(at: 0, count: 4096)
    for _ in 0..<10 {
      fixture.world.kick()
      fixture.world.runIfDue()
    }
    #expect(fixture.world.ringPages.copyBytes(at: 0, count: 4096) == forged, "a broken ring was touched")
    #expect(fixture.world.host.notifyCount == notifications)
    fixture.expectNothingLeft()
  }

  /// A request that waits for memory when its ring breaks is let go, though no memory ever comes.
  @Test func aBrokenRingHoldsNothingBack() throws {
    let fixture = try EngineFixture()
    fixture.place(.flush, id: 1, sector: 0)
    fixture.place(.flush, id: 2, sector: 8)
    fixture.world.push()
    fixture.world.runIfDue()
    fixture.world.ringPages.setBytes(littleEndian(77), at: 0)
    fixture.world.kick()
    fixture.world.runIfDue()
    // Both flushes end only now, and their data find no buffer.
    fixture.world.host.faults.allocationFailure = 1000
    fixture.world.complete(upTo: 2)
    fixture.world.runIfDue()
    fixture.expectNothingLeft()
  }

  /// Slots full of noise: each is answered once under its own id, and nothing else happens.
  @Test(arguments: BlockABI.allCases, [false, true])
  func noiseIsAnswered(_ abi: BlockABI, _ persistent: Bool) throws {
    let fixture = try EngineFixture(offered: everything, segments: 600) {
      $0.abi = abi
      $0.usesPersistentGrants = persistent
      $0.ringPageCount = 4
      $0.seed = 0xBAD
      $0.discardSupport = DiscardSupport(unitByteCount: 1024, chunkByteCount: 8192)
    }
    let world = fixture.world
    world.host.faults = .everything
    for page in 0..<64 {
      _ = world.guest.grant(page: page, readOnly: page % 7 == 0)
      // Descriptors that are half sound.
      world.guest.write(
        (0..<512).map { _ in
          let last = UInt8.random(in: 0...(world.numbers.chance(1, in: 500) ? 255 : 7), using: &world.numbers)
          return BlockSegment(
            reference: GrantReference(rawValue: .random(in: 0...80, using: &world.numbers)), firstSector: 0,
            lastSector: last
          ).word
        }, toPage: page)
    }
    var asked: [UInt64: BlockOperation] = [:]
    var answeredCount = 0
    for round: UInt64 in 0..<1500 {
      while world.freeSlotCount > 0 && world.numbers.chance(9, in: 10) {
        let id = round << 32 | UInt64(asked.count)
        let slot = noise(id: id, abi: abi, &world.numbers)
        asked[id] = BlockRequest(slot, abi: abi).responseOperation
        world.place(slot)
      }
      world.push()
      world.complete(upTo: Int.random(in: 0...20, using: &world.numbers))
      world.runIfDue()
      for response in try world.takeResponses() {
        answeredCount += 1
        if asked.removeValue(forKey: response.id) != response.operation {
          Issue.record("response to nothing: \(response)")
        }
      }
    }
    #expect(world.settle() == nil)
    for response in try world.takeResponses()
    where asked.removeValue(forKey: response.id) != response.operation {
      Issue.record("response to nothing: \(response)")
    }
    #expect(asked.isEmpty && answeredCount > 3000)
    #expect(world.counters.writes > 50 && world.counters.reads > 50, "\(world.counters)")
    #expect(world.counters.discards > 50 && world.counters.barriers > 50, "\(world.counters)")
    #expect(world.counters.indirectRequests > 20, "\(world.counters)")
    fixture.expectNothingLeft()
  }

  private func noise(id: UInt64, abi: BlockABI, _ numbers: inout SeededNumbers) -> SlotCopy {
    var slot = SlotCopy()
    for place in stride(from: 0, to: SlotCopy.capacity, by: 8) { slot.setUInt64(numbers.next(), at: place) }
    slot.setUInt64(id, at: abi.idOffset)
    if numbers.chance(1, in: 5) { return slot }
    slot.setUInt8(.random(in: 0...6, using: &numbers), at: 0)
    slot.setUInt8(.random(in: 0...11, using: &numbers), at: 1)
    slot.setUInt64(.random(in: 0...1030, using: &numbers), at: abi.sectorNumberOffset)
    if slot.uint8(at: 0) == 5 {
      slot.setUInt64(.random(in: 0...1030, using: &numbers), at: abi.discardSectorCountOffset)
      return slot
    }
    if slot.uint8(at: 0) == 6 {
      slot.setUInt8(.random(in: 0...1, using: &numbers), at: 1)
      slot.setUInt16(.random(in: 0...(numbers.chance(1, in: 9) ? 700 : 5), using: &numbers), at: 2)
      for page in 0..<8 {
        let reference = UInt32.random(in: 6...72, using: &numbers)
        slot.setUInt32(reference, at: abi.indirectReferencesOffset + page * 4)
      }
      return slot
    }
    for index in 0..<11 {
      let place = abi.segmentsOffset + index * 8
      slot.setUInt32(.random(in: 0...80, using: &numbers), at: place)
      let first = UInt8.random(in: 0...7, using: &numbers)
      slot.setUInt8(first, at: place + 4)
      slot.setUInt8(
        .random(in: first...(numbers.chance(1, in: 50) ? 255 : 7), using: &numbers), at: place + 5)
    }
    return slot
  }

  // MARK: Wake-ups and memory

  @Test func kicksWithoutRequestsCostNothing() throws {
    let fixture = try EngineFixture()
    for _ in 0..<1000 {
      fixture.world.kick()
      fixture.world.runIfDue()
      #expect(fixture.world.lastTurn == .idle)
    }
    #expect(fixture.world.host.notifyCount == 0 && fixture.world.counters == BlockCounters())
    fixture.place(.read, id: 1)
    #expect(try fixture.settle()[1]?.status == .okay)
  }

  /// Without memory requests stay in their ring, and go on as it comes back.
  @Test func requestsWaitInTheRingForBuffers() throws {
    let fixture = try EngineFixture { $0.bufferByteCount = 16384 }
    for id in 0..<fixture.world.slotCount { fixture.place(.read, id: UInt64(id), pages: 2) }
    fixture.world.push()
    var most = 0
    for _ in 0..<10_000 where fixture.world.runIfDue() || fixture.world.complete(upTo: 1) > 0 {
      most = max(most, fixture.world.inFlightCount)
    }
    #expect(most == 3, "two have buffers of 8 KiB, and one waits")
    #expect(try fixture.answers().count == fixture.world.slotCount)
    fixture.expectNothingLeft()
  }

  @Test func aStarvedQueueGoesOnWhenANeighbourReleases() throws {
    let fixture = try EngineFixture()
    fixture.world.host.faults.allocationFailure = 1000
    fixture.place(.read, id: 1)
    fixture.place(.read, id: 2)
    fixture.world.push()
    for _ in 0..<5 {
      fixture.world.runIfDue()
      #expect(fixture.world.isStarved && fixture.world.inFlightCount == 1 && fixture.world.lastTurn == .idle)
    }
    fixture.world.host.faults = FaultPlan()
    #expect(try fixture.settle().count == 2)
    fixture.expectNothingLeft()
  }

  @Test func completionsOfNobodyAreIgnored() throws {
    let fixture = try EngineFixture()
    fixture.place(.read, id: 1)
    fixture.world.push()
    fixture.world.runIfDue()
    for token: UInt32 in [0, 31, 32, 0xFFFF, 0x0002_0000, 0xFFFF_0000, .max] {
      fixture.world.deliverForged(token: token, result: 4096)
    }
    #expect(fixture.world.inFlightCount == 1)
    #expect(try fixture.settle()[1]?.status == .okay)
    fixture.expectNothingLeft()
  }

  // MARK: Coming and going

  /// What was taken is finished and answered; nothing more is taken.
  @Test(arguments: [false, true])
  func closingDrains(_ persistent: Bool) throws {
    let fixture = try EngineFixture { $0.usesPersistentGrants = persistent }
    for id: UInt64 in 0..<10 { fixture.place(.write, id: id, sector: id * 8, page: Int(id)) }
    fixture.world.push()
    fixture.world.runIfDue()
    fixture.world.beginClosing()
    for id: UInt64 in 10..<20 { fixture.place(.write, id: id, sector: id * 8, page: Int(id)) }
    let answers = try fixture.settle()
    #expect(Set(answers.keys) == Set(0..<10) && answers.values.allSatisfy { $0.status == .okay })
    fixture.world.kick()
    fixture.world.runIfDue()
    #expect(try fixture.answers().isEmpty)
    fixture.expectNothingLeft()
  }

  /// Connect, work, close in the middle of it, and again: nothing piles up.
  @Test(arguments: [false, true])
  func reconnecting(_ persistent: Bool) throws {
    let fixture = try EngineFixture { $0.usesPersistentGrants = persistent }
    fixture.world.host.faults = .everything
    for round in 0..<60 {
      for id: UInt64 in 0..<30 {
        fixture.place(id % 3 == 0 ? .read : .write, id: id, sector: id * 8, page: Int(id))
      }
      fixture.world.push()
      fixture.world.runIfDue()
      fixture.world.complete(upTo: round % 20)
      fixture.world.beginClosing()
      #expect(fixture.world.settle() == nil)
      fixture.expectNothingLeft()
      try fixture.world.reconnect()
    }
    fixture.world.host.faults = FaultPlan()
    fixture.place(.read, id: 1)
    #expect(try fixture.settle()[1]?.status == .okay)
  }

  private func littleEndian(_ value: UInt32) -> [UInt8] {
    (0..<4).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
  }
}
