import Blkback
import RingKit
import Simulator
import Testing

/// What the engine answers and moves, request by request.
struct EngineTests {
  @Test(arguments: BlockABI.allCases, [false, true])
  func everyKindIsAnsweredOnce(_ abi: BlockABI, _ persistent: Bool) throws {
    let fixture = try EngineFixture {
      $0.abi = abi
      $0.usesPersistentGrants = persistent
    }
    fixture.stamp(page: 0, 7)
    fixture.place(.write, id: 1, sector: 8, page: 0)
    #expect(try fixture.settle()[1]?.status == .okay)
    fixture.place(.read, id: 2, sector: 8, page: 1)
    fixture.place(.flush, id: 3, pages: 0)
    fixture.place(.flush, id: 4, sector: 16, page: 0)
    fixture.place(.writeBarrier, id: 5, pages: 0)
    fixture.place(.discard, id: 6, pages: 0)
    fixture.place(BlockOperation(rawValue: 0xEE), id: .max)
    fixture.place(.read, id: 8, sector: 1024)
    let answers = try fixture.settle()
    #expect(answers.count == 7)
    #expect(answers[2] == BlockResponse(id: 2, operation: .read, status: .okay))
    #expect(answers[3] == BlockResponse(id: 3, operation: .flush, status: .okay))
    #expect(answers[4] == BlockResponse(id: 4, operation: .flush, status: .okay))
    #expect(answers[5] == BlockResponse(id: 5, operation: .writeBarrier, status: .notSupported))
    #expect(answers[6] == BlockResponse(id: 6, operation: .discard, status: .notSupported))
    let unknown = BlockOperation(rawValue: 0xEE)
    #expect(answers[.max] == BlockResponse(id: .max, operation: unknown, status: .notSupported))
    #expect(answers[8] == BlockResponse(id: 8, operation: .read, status: .error))
    #expect(fixture.world.guest.words(ofPage: 1) == EngineFixture.stamps(7))
    #expect(fixture.diskWords(8, count: 16) == EngineFixture.stamps(7) + EngineFixture.stamps(7))
    #expect(fixture.world.counters.reads == 1 && fixture.world.counters.sectorsRead == 8)
    #expect(fixture.world.counters.writes == 1 && fixture.world.counters.sectorsWritten == 16)
    #expect(fixture.world.counters.flushes == 2)
    fixture.expectNothingLeft()
  }

  /// XSA-216: the bytes of a response are all defined, and the rest of its slot is what the guest wrote.
  @Test(arguments: BlockABI.allCases)
  func responseBytesAreDefined(_ abi: BlockABI) throws {
    let fixture = try EngineFixture {
      $0.abi = abi
      $0.firstIndex = 0
    }
    fixture.place(.read, id: 0x0102_0304_0506_0708, sector: 5000)
    fixture.world.push()
    let slot = 64
    let before = fixture.world.ringPages.copyBytes(at: slot, count: abi.requestByteCount)
    fixture.world.runIfDue()
    let after = fixture.world.ringPages.copyBytes(at: slot, count: abi.requestByteCount)
    var expected: [UInt8] = [8, 7, 6, 5, 4, 3, 2, 1, 0, 0, 0xFF, 0xFF, 0, 0, 0, 0]
    expected.removeLast(16 - abi.responseByteCount)
    #expect(Array(after[..<abi.responseByteCount]) == expected)
    #expect(Array(after[abi.responseByteCount...]) == Array(before[abi.responseByteCount...]))
    let rest = fixture.world.ringPages.copyBytes(at: slot + abi.requestByteCount, count: 3000)
    #expect(rest.allSatisfy { $0 == 0xA5 }, "bytes of other slots changed")
  }

  /// A read gives the disk's bytes or an error, never what a buffer held before.
  @Test(arguments: ["end of medium", "transfer", "copy"])
  func failedReadsLeakNothing(_ fault: String) throws {
    let fixture = try EngineFixture()
    fixture.world.host.faults.endOfMedium = fault == "end of medium" ? 1000 : 0
    fixture.world.host.faults.transferError = fault == "transfer" ? 1000 : 0
    fixture.world.host.faults.copyFailure = fault == "copy" ? 1000 : 0
    for page in 0..<4 { fixture.stamp(page: page, 1) }
    fixture.place(.read, id: 1, page: 0, pages: 4)
    #expect(try fixture.settle()[1]?.status == .error)
    for page in 0..<4 { #expect(fixture.world.guest.words(ofPage: page) == EngineFixture.stamps(1)) }
    fixture.expectNothingLeft()
  }

  @Test(arguments: [false, true])
  func shortTransfersAreContinued(_ persistent: Bool) throws {
    let fixture = try EngineFixture { $0.usesPersistentGrants = persistent }
    fixture.world.host.faults.shortTransfer = 900
    for page in 0..<11 { fixture.stamp(page: page, UInt64(page)) }
    fixture.place(.write, id: 1, sector: 40, page: 0, pages: 11)
    #expect(try fixture.settle()[1]?.status == .okay)
    fixture.place(.read, id: 2, sector: 40, page: 100, pages: 11)
    #expect(try fixture.settle()[2]?.status == .okay)
    for page in 0..<11 {
      #expect(fixture.world.guest.words(ofPage: 100 + page) == EngineFixture.stamps(UInt64(page)))
    }
    fixture.expectNothingLeft()
  }

  /// EINTR and EAGAIN are tried again, but not for ever.
  @Test(arguments: [BlockOperation.read, .write, .flush, .writeBarrier, .discard])
  func endlessInterruptionsEndInAnError(_ operation: BlockOperation) throws {
    let fixture = try EngineFixture(offered: [.flush, .barrier, .discard]) {
      $0.discardSupport = DiscardSupport(unitByteCount: 512)
    }
    fixture.world.host.faults.interruption = 1000
    if operation == .discard {
      fixture.placeDiscard(id: 1, sector: 0, count: 8)
    } else {
      fixture.place(operation, id: 1)
    }
    #expect(try fixture.settle()[1]?.status == .error)
    #expect(fixture.world.turnCount < 100)
    fixture.expectNothingLeft()
  }

  /// Each segment of a copy has a status of its own: one bad grant fails the request, whatever came after it.
  @Test(arguments: [false, true], 0..<4)
  func oneBadGrantFailsTheRequest(_ persistent: Bool, _ place: Int) throws {
    let fixture = try EngineFixture { $0.usesPersistentGrants = persistent }
    for operation in [BlockOperation.read, .write] {
      var segments = (0..<4).map { (fixture.world.guest.grant(page: $0), UInt8(0), UInt8(7)) }
      segments[place].0 = GrantReference(rawValue: 0xFFFF_FFFF)
      for page in 0..<4 { fixture.stamp(page: page, 9) }
      fixture.place(operation, id: 1, sector: 8, segments)
      #expect(try fixture.settle()[1] == BlockResponse(id: 1, operation: operation, status: .error))
      #expect(fixture.diskWords(8, count: 32).allSatisfy { $0 == 0 }, "a failed write reached the disk")
    }
    fixture.expectNothingLeft()
  }

  @Test(arguments: [false, true])
  func readOnlyGrantsAreOnlyRead(_ persistent: Bool) throws {
    let fixture = try EngineFixture { $0.usesPersistentGrants = persistent }
    fixture.stamp(page: 0, 3)
    fixture.place(.write, id: 1, sector: 8, page: 0, readOnly: true)
    fixture.place(.read, id: 2, sector: 64, page: 0, readOnly: true)
    let answers = try fixture.settle()
    #expect(answers[1]?.status == .okay && answers[2]?.status == .error)
    #expect(fixture.diskWords(8, count: 8) == EngineFixture.stamps(3))
    #expect(fixture.world.guest.words(ofPage: 0) == EngineFixture.stamps(3))
    fixture.expectNothingLeft()
  }

  /// The same reference many times, in one request and in several at once, is legal.
  @Test(arguments: [false, true])
  func oneGrantManyTimes(_ persistent: Bool) throws {
    let fixture = try EngineFixture { $0.usesPersistentGrants = persistent }
    fixture.stamp(page: 0, 5)
    let reference = fixture.world.guest.grant(page: 0)
    for id: UInt64 in 1...20 {
      fixture.place(.write, id: id, sector: id * 8, (0..<8).map { (reference, $0, $0) })
    }
    let answers = try fixture.settle()
    #expect(answers.count == 20 && answers.values.allSatisfy { $0.status == .okay })
    for sector in 1...20 { #expect(fixture.diskWords(sector * 8, count: 8) == EngineFixture.stamps(5)) }
    fixture.expectNothingLeft()
  }

  /// An id is the guest's own affair: equal ones in flight are answered as often as they were asked.
  @Test func equalIDsAreAnsweredEach() throws {
    let fixture = try EngineFixture()
    for _ in 0..<10 { fixture.place(.read, id: 42) }
    fixture.world.push()
    #expect(fixture.world.settle() == nil)
    let answers = try fixture.world.takeResponses()
    #expect(answers == Array(repeating: BlockResponse(id: 42, operation: .read, status: .okay), count: 10))
  }

  /// Writes of single sectors to one 4096-byte block all arrive, and leave the rest of the block alone.
  @Test(arguments: [512, 4096], [false, true])
  func partsOfOneBlockDoNotUndoEachOther(_ alignment: Int, _ persistent: Bool) throws {
    for seed: UInt64 in 1...20 {
      let fixture = try EngineFixture {
        $0.seed = seed
        $0.usesPersistentGrants = persistent
        $0.medium = MediumGeometry(blockByteCount: 4096, memoryAlignment: alignment)
      }
      for sector in 0..<32 { fixture.world.disk.setSector(sector, Array(repeating: 0xD15C, count: 64)) }
      fixture.stamp(page: 0, 5)
      let reference = fixture.world.guest.grant(page: 0)
      // Odd sectors of four blocks, and one write across the middle two.
      for sector in stride(from: 1, to: 32, by: 2) where !(15...17).contains(sector) {
        fixture.place(.write, id: UInt64(sector), sector: UInt64(sector), [(reference, 0, 0)])
      }
      fixture.place(.write, id: 100, sector: 15, [(reference, 0, 2)])
      let answers = try fixture.settle()
      #expect(answers.count == 15 && answers.values.allSatisfy { $0.status == .okay })
      for sector in 0..<32 {
        let stamped = (15...17).contains(sector) ? sector - 15 : sector % 2 == 1 ? 0 : nil
        let expected = stamped.map { Array(EngineFixture.stamps(5)[$0 * 64..<$0 * 64 + 64]) }
        #expect(fixture.world.disk.sector(sector) == expected ?? Array(repeating: 0xD15C, count: 64))
      }
      fixture.expectNothingLeft()
    }
  }

  @Test func aShrunkDiskRefusesWhatItLost() throws {
    let fixture = try EngineFixture()
    fixture.world.setLimits(try fixture.limits.resized(to: 64))
    fixture.place(.read, id: 1, sector: 56)
    fixture.place(.read, id: 2, sector: 64)
    let answers = try fixture.settle()
    #expect(answers[1]?.status == .okay && answers[2]?.status == .error)
  }
}
