import Blkback
import RingKit
import Simulator
import Testing

/// Flushes and barriers: what is durable when they are answered, what waits for them, and what becomes of them
/// when data were lost.
struct EngineOrderTests {
  static func fixture(
    seed: UInt64 = 1, persistent: Bool = false, _ change: (inout BlockWorld.Setup) -> Void = { _ in }
  ) throws -> EngineFixture {
    try EngineFixture(offered: [.flush, .barrier, .indirect], segments: 32) {
      $0.seed = seed
      $0.usesPersistentGrants = persistent
      change(&$0)
    }
  }

  // MARK: Barriers

  /// blkif.h, BLKIF_OP_WRITE_BARRIER: all that came before is durable, then its data are; nothing of what
  /// comes after begins before it ends.
  @Test(arguments: [false, true], [0, 1, 3])
  func barriersKeepOrder(_ persistent: Bool, _ pages: Int) throws {
    for seed: UInt64 in 1...40 {
      let fixture = try Self.fixture(seed: seed, persistent: persistent) {
        if seed % 2 == 0 { $0.medium = MediumGeometry(blockByteCount: 4096, memoryAlignment: 512) }
      }
      let world = fixture.world
      world.host.faults.interruption = 100
      world.host.faults.shortTransfer = 200
      for page in 0..<40 { fixture.stamp(page: page, UInt64(page + 1)) }
      for id: UInt64 in 0..<8 { fixture.place(.write, id: id, sector: id * 8, page: Int(id)) }
      let many = (8..<20).map { (world.guest.grant(page: $0), UInt8(0), UInt8(0)) }
      fixture.placeIndirect(.write, id: 8, sector: 64, many, descriptors: 100)
      fixture.place(.writeBarrier, id: 9, sector: 80, page: 30, pages: pages)
      for id: UInt64 in 10..<18 { fixture.place(.write, id: id, sector: id * 16, page: Int(id)) }
      world.push()
      // Step by step, so that the disk can be looked at in the moment of the answer.
      var order: [UInt64] = []
      for _ in 0..<10_000 where !order.contains(9) {
        world.runIfDue()
        for response in try world.takeResponses() {
          #expect(response.status == .okay)
          order.append(response.id)
        }
        if !order.contains(9) {
          #expect(world.host.writesBegun.allSatisfy { $0.bytes.lowerBound < 160 * 512 }, "too early")
          world.complete(upTo: 1)
        }
      }
      #expect(Set(order.prefix(10)) == Set(0...9) && order[9] == 9, "\(order)")
      for sector in 0..<64 + 12 + pages * 8 where sector < 76 || sector >= 80 {
        #expect(world.disk.durableSector(sector) == world.disk.sector(sector))
      }
      #expect(world.disk.durableSector(80).allSatisfy { $0 == 0 } == (pages == 0))
      #expect(world.host.flushCount >= (pages == 0 ? 1 : 2))
      #expect(try fixture.settle().count == 8)
      #expect(world.counters.barriers == 1 && world.host.barrierCount == 1)
      fixture.expectNothingLeft()
    }
  }

  /// Earlier requests may come to wait for memory only after the barrier was taken; it waits for them too.
  @Test(arguments: [false, true])
  func barriersWaitForWhatWaits(_ persistent: Bool) throws {
    for seed: UInt64 in 1...20 {
      let fixture = try Self.fixture(seed: seed, persistent: persistent) { $0.bufferByteCount = 8192 }
      let world = fixture.world
      fixture.place(.flush, id: 1, sector: 0, page: 0, pages: 2)
      fixture.place(.flush, id: 2, sector: 16, page: 2, pages: 2)
      fixture.place(.writeBarrier, id: 3, sector: 32, page: 4, pages: 2)
      fixture.place(.writeBarrier, id: 4, sector: 48, page: 6, pages: 2)
      fixture.place(.read, id: 5, sector: 0)
      world.push()
      world.runIfDue()
      world.host.faults.allocationFailure = 1000
      world.complete(upTo: 2)
      for _ in 0..<5 {
        world.kick()
        world.runIfDue()
      }
      #expect(persistent || world.isStarved)
      world.host.faults = FaultPlan()
      let answers = try fixture.settle()
      #expect(answers.count == 5 && answers.values.allSatisfy { $0.status == .okay })
      fixture.expectNothingLeft()
    }
  }

  @Test func aBarrierAloneNeedsNoCompletionToBegin() throws {
    let fixture = try Self.fixture()
    fixture.place(.writeBarrier, id: 1, pages: 0)
    fixture.place(.writeBarrier, id: 2, sector: 8)
    fixture.place(.writeBarrier, id: 3, pages: 0)
    #expect(try fixture.settle().count == 3)
    #expect(fixture.world.host.flushCount == 4)
    fixture.expectNothingLeft()
  }

  /// A barrier that waits when its ring breaks, or when the disk is closed, keeps nothing back.
  @Test(arguments: [false, true])
  func barriersEndWithTheirRing(_ breaks: Bool) throws {
    let fixture = try Self.fixture()
    fixture.place(.write, id: 1)
    fixture.place(.writeBarrier, id: 2, sector: 8)
    fixture.place(.write, id: 3, sector: 16)
    fixture.world.push()
    fixture.world.runIfDue()
    #expect(fixture.world.inFlightCount == 2 && !fixture.world.hasWork())
    if breaks {
      // Found when the barrier is over and what was seen before it is taken.
      fixture.world.ringPages.setBytes([77, 0, 0, 0], at: 0)
    } else {
      fixture.world.beginClosing()
    }
    #expect(fixture.world.settle() == nil)
    #expect(fixture.world.host.writesBegun.count == (breaks ? 3 : 2))
    fixture.expectNothingLeft()
  }

  /// A flush with data makes durable what came before, not its own data (as Linux' REQ_PREFLUSH).
  @Test func aFlushWithDataFlushesFirst() throws {
    let fixture = try Self.fixture()
    fixture.stamp(page: 0, 1)
    fixture.place(.write, id: 1, sector: 0, page: 0)
    #expect(try fixture.settle()[1]?.status == .okay)
    fixture.place(.flush, id: 2, sector: 8, page: 0)
    #expect(try fixture.settle()[2]?.status == .okay)
    #expect(fixture.world.disk.durableSector(0) == fixture.world.disk.sector(0))
    #expect(fixture.world.disk.durableSector(8) != fixture.world.disk.sector(8))
    #expect(fixture.world.host.flushCount == 1)
  }

  // MARK: Held flushes

  /// Decision 7, and block.md 1.10: a failed fsync is latched, though the next one would succeed; and an empty
  /// flush is held, because Linux takes its failure for a success.
  @Test(arguments: [BlockOperation.flush, .writeBarrier])
  func aFailedFlushIsNeverForgotten(_ operation: BlockOperation) throws {
    let fixture = try Self.fixture()
    let world = fixture.world
    fixture.place(.write, id: 1)
    #expect(try fixture.settle()[1]?.status == .okay)
    world.host.faults.flushError = 1000
    fixture.place(operation, id: 2, pages: 0)
    #expect(try fixture.settle().isEmpty, "a failed flush was answered")
    #expect(world.host.fenceErrno == 5 && world.heldCount == 1 && world.isDrained)
    world.host.faults = FaultPlan()
    let flushes = world.host.flushCount
    fixture.place(operation, id: 3, pages: 0)
    fixture.place(.flush, id: 4, sector: 8)
    fixture.place(.write, id: 5, sector: 16)
    fixture.place(.read, id: 6)
    fixture.place(.writeBarrier, id: 7, sector: 24)
    fixture.place(.writeBarrier, id: 8, pages: 0)
    fixture.place(.read, id: 9)
    let answers = try fixture.settle()
    #expect(Set(answers.keys) == [4, 5, 6, 7, 9], "\(answers)")
    for id: UInt64 in [4, 5, 7] { #expect(answers[id]?.status == .error) }
    for id: UInt64 in [6, 9] { #expect(answers[id]?.status == .okay, "the disk can still be read") }
    #expect(world.host.flushCount == flushes, "the disk was asked again")
    #expect(world.heldCount == 3 && world.counters.heldFlushes == 3 && world.inFlightCount == 3)
    #expect(!world.isStarved)
    fixture.expectNothingLeft()
    world.beginClosing()
    world.runIfDue()
    #expect(world.heldCount == 0 && world.inFlightCount == 0)
    #expect(try fixture.answers().isEmpty)
    try world.reconnect()
  }

  /// A barrier fails at its second flush as well: its data are an error, and the disk has lost data.
  @Test func aBarrierIsFencedAtItsEnd() throws {
    let fixture = try Self.fixture()
    fixture.place(.writeBarrier, id: 1, sector: 8)
    fixture.world.push()
    fixture.world.runIfDue()
    fixture.world.complete(upTo: 2)
    fixture.world.host.faults.flushError = 1000
    #expect(try fixture.settle()[1]?.status == .error)
    #expect(fixture.world.host.isFenced && fixture.world.host.flushCount == 2)
    fixture.expectNothingLeft()
  }

  /// Held requests keep their slots: with all of them held nothing more is taken, and closing still works.
  @Test func everySlotHeld() throws {
    let fixture = try Self.fixture()
    fixture.world.host.isFenced = true
    for id in 0..<fixture.world.slotCount { fixture.place(.flush, id: UInt64(id), pages: 0) }
    #expect(try fixture.settle().isEmpty)
    #expect(fixture.world.heldCount == fixture.world.slotCount && fixture.world.freeSlotCount == 0)
    for _ in 0..<10 {
      fixture.world.kick()
      fixture.world.runIfDue()
      #expect(fixture.world.lastTurn == .idle)
    }
    fixture.world.beginClosing()
    fixture.world.runIfDue()
    #expect(fixture.world.inFlightCount == 0)
    fixture.expectNothingLeft()
  }

  @Test func aBrokenRingHoldsNoFlushes() throws {
    let fixture = try Self.fixture()
    fixture.world.host.isFenced = true
    fixture.place(.flush, id: 1, pages: 0)
    fixture.world.push()
    fixture.world.runIfDue()
    #expect(fixture.world.heldCount == 1)
    fixture.world.ringPages.setBytes([77, 0, 0, 0], at: 0)
    fixture.world.kick()
    fixture.world.runIfDue()
    #expect(fixture.world.heldCount == 0 && fixture.world.inFlightCount == 0)
    guard case .broken = fixture.world.lastTurn else {
      Issue.record("the ring is not broken: \(fixture.world.lastTurn)")
      return
    }
  }
}
