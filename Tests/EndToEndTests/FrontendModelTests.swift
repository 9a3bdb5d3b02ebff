import Testing

@testable import Frontends

@Suite struct FrontendModelTests {
  private func stamped(_ stamp: SectorStamp) -> SectorBuffer {
    var buffer = SectorBuffer()
    stamp.fill(&buffer)
    return buffer
  }

  @Test func everyWordOfAStampCounts() {
    let stamp = SectorStamp(seed: 7, sector: 12, sequence: 3)
    let good = stamped(stamp)
    #expect(stamp.matches(good))
    for index in 0..<SectorBuffer.wordCount {
      for bit in [0, 31, 63] {
        var bad = good
        bad[index] ^= 1 << UInt64(bit)
        #expect(!stamp.matches(bad), "word \(index) bit \(bit)")
      }
    }
    #expect(!SectorStamp(seed: 8, sector: 12, sequence: 3).matches(good))
    #expect(!SectorStamp(seed: 7, sector: 13, sequence: 3).matches(good))
    #expect(!SectorStamp(seed: 7, sector: 12, sequence: 4).matches(good))
  }

  @Test func aReadMayReturnTheLastCompletedWriteAndLaterOnes() {
    let model = DiskModel(sectorCount: 4, seed: 1, initial: .zero)
    #expect(model.fault(SectorBuffer(), sector: 2, floor: model.floor(2)) == nil)
    let first = stamped(model.beginWrite(2))
    #expect(!model.canWrite(1..<4))
    #expect(model.canWrite(0..<2))
    // In flight: old or new.
    #expect(model.fault(SectorBuffer(), sector: 2, floor: model.floor(2)) == nil)
    #expect(model.fault(first, sector: 2, floor: model.floor(2)) == nil)
    let floorBefore = model.floor(2)
    model.endWrite(2..<3, succeeded: true)
    #expect(model.fault(first, sector: 2, floor: model.floor(2)) == nil)
    // A read submitted before the write's end may still return what was there.
    #expect(model.fault(SectorBuffer(), sector: 2, floor: floorBefore) == nil)
    // One submitted after it may not.
    #expect(model.fault(SectorBuffer(), sector: 2, floor: model.floor(2)) != nil)

    let second = stamped(model.beginWrite(2))
    model.endWrite(2..<3, succeeded: true)
    #expect(model.fault(second, sector: 2, floor: model.floor(2)) == nil)
    #expect(model.fault(first, sector: 2, floor: model.floor(2)) != nil)
  }

  @Test func misplacedAndUnwrittenStampsAreFaults() throws {
    let model = DiskModel(sectorCount: 8, seed: 1, initial: .zero)
    let other = stamped(model.beginWrite(3))
    model.endWrite(3..<4, succeeded: true)
    let fault = try #require(model.fault(other, sector: 4, floor: 0))
    #expect(fault.foundSector == 3)
    // A write that was never made.
    let future = stamped(SectorStamp(seed: 1, sector: 3, sequence: 2))
    #expect(model.fault(future, sector: 3, floor: 0) != nil)
    // Another run's data.
    let foreign = stamped(SectorStamp(seed: 2, sector: 3, sequence: 1))
    #expect(model.fault(foreign, sector: 3, floor: 1) != nil)
  }

  @Test func aFailedWriteMayHaveHappenedOrNot() {
    let model = DiskModel(sectorCount: 1, seed: 1, initial: .zero)
    let first = stamped(model.beginWrite(0))
    model.endWrite(0..<1, succeeded: true)
    let failed = stamped(model.beginWrite(0))
    model.endWrite(0..<1, succeeded: false)
    for buffer in [first, failed] { #expect(model.fault(buffer, sector: 0, floor: model.floor(0)) == nil) }
    let last = stamped(model.beginWrite(0))
    model.endWrite(0..<1, succeeded: true)
    for buffer in [first, failed] { #expect(model.fault(buffer, sector: 0, floor: model.floor(0)) != nil) }
    #expect(model.fault(last, sector: 0, floor: model.floor(0)) == nil)
  }

  @Test func unknownContentsAreNotJudgedUntilWritten() {
    let model = DiskModel(sectorCount: 2, seed: 1)
    var noise = SectorBuffer()
    noise[9] = 99
    #expect(model.fault(noise, sector: 0, floor: model.floor(0)) == nil)
    _ = model.beginWrite(0)
    model.abandonWrites()
    #expect(model.canWrite(0..<2))
    #expect(model.fault(noise, sector: 0, floor: model.floor(0)) == nil)
    _ = model.beginWrite(0)
    model.endWrite(0..<1, succeeded: true)
    #expect(model.fault(noise, sector: 0, floor: model.floor(0)) != nil)
  }

  @Test func aDiscardedSectorHoldsZeroesOrWhatItEverHeld() {
    let model = DiskModel(sectorCount: 4, seed: 1, initial: .zero)
    let first = stamped(model.beginWrite(1))
    model.endWrite(1..<2, succeeded: true)
    let second = stamped(model.beginWrite(1))
    model.endWrite(1..<2, succeeded: true)
    let other = stamped(model.beginWrite(2))
    model.endWrite(2..<3, succeeded: true)
    #expect(model.fault(SectorBuffer(), sector: 1, floor: model.floor(1)) != nil)
    #expect(model.fault(first, sector: 1, floor: model.floor(1)) != nil)
    let floorBefore = model.floor(1)
    model.beginDiscard(0..<2)
    #expect(!model.canWrite(0..<1) && !model.canWrite(1..<2) && model.canWrite(2..<4))
    model.endWrite(0..<2, succeeded: true)
    for floor in [floorBefore, model.floor(1)] {
      for buffer in [SectorBuffer(), first, second] {
        #expect(model.fault(buffer, sector: 1, floor: floor) == nil)
      }
      // But never what belongs elsewhere, or was never written.
      #expect(model.fault(other, sector: 1, floor: floor) != nil)
      let future = stamped(SectorStamp(seed: 1, sector: 1, sequence: 9))
      #expect(model.fault(future, sector: 1, floor: floor) != nil)
    }
    let third = stamped(model.beginWrite(1))
    model.endWrite(1..<2, succeeded: true)
    #expect(model.fault(third, sector: 1, floor: model.floor(1)) == nil)
    for buffer in [SectorBuffer(), first, second] {
      #expect(model.fault(buffer, sector: 1, floor: model.floor(1)) != nil)
    }
  }

  @Test func aReadThatMeetsAWriteMayFindBytesOfBoth() {
    let model = DiskModel(sectorCount: 4, seed: 1, initial: .zero)
    func mixed(_ left: SectorBuffer, _ right: SectorBuffer) -> SectorBuffer {
      var buffer = left
      for index in 30..<SectorBuffer.wordCount { buffer[index] = right[index] }
      return buffer
    }
    let first = stamped(model.beginWrite(1))
    let empty = mixed(first, SectorBuffer())
    #expect(model.fault(empty, sector: 1, floor: 0) == nil)
    model.endWrite(1..<2, succeeded: true)
    // A read that began before the write's end may have met it, one that began later has not.
    #expect(model.fault(empty, sector: 1, floor: 0) == nil)
    #expect(model.fault(empty, sector: 1, floor: model.floor(1)) != nil)
    let floor = model.floor(1)
    let second = stamped(model.beginWrite(1))
    #expect(model.fault(mixed(first, second), sector: 1, floor: floor) == nil)
    #expect(model.fault(mixed(second, first), sector: 1, floor: floor) == nil)
    var foreign = mixed(first, second)
    foreign[40] ^= 1
    #expect(model.fault(foreign, sector: 1, floor: floor) != nil)
    #expect(model.fault(mixed(second, SectorBuffer()), sector: 1, floor: floor) != nil)
    let other = stamped(model.beginWrite(2))
    #expect(model.fault(mixed(second, other), sector: 1, floor: floor) != nil)
    // Not even a word need be whole: one half of it zeroed by a discard, the other not yet.
    model.endWrite(1..<2, succeeded: true)
    let floorBeforeDiscard = model.floor(1)
    model.beginDiscard(1..<2)
    var torn = mixed(SectorBuffer(), second)
    torn[29] = second[29] & 0xFFFF_FFFF_0000_0000
    #expect(model.fault(torn, sector: 1, floor: floorBeforeDiscard) == nil)
    torn[29] ^= 1 &<< 33
    #expect(model.fault(torn, sector: 1, floor: floorBeforeDiscard) != nil)
  }

  @Test func whatAFlushCoveredSurvivesACut() throws {
    let model = DiskModel(sectorCount: 4, seed: 1, initial: .zero, tracksFlushes: true)
    let early = stamped(model.beginWrite(0))
    model.endWrite(0..<1, succeeded: true)
    let running = stamped(model.beginWrite(1))
    let promise = try #require(model.beginFlush())
    // Both end before the flush does, but only one had ended when it began.
    model.endWrite(1..<2, succeeded: true)
    let late = stamped(model.beginWrite(0))
    model.endWrite(0..<1, succeeded: true)
    model.endFlush(promise)
    let barrier = stamped(model.beginWrite(2))
    model.endWrite(2..<3, succeeded: true)
    model.endDurableWrite(2..<3)
    #expect(model.durability == (2, 2))
    let unfinished = stamped(model.beginWrite(3))
    model.cutPower()
    #expect(model.canWrite(0..<4))
    for (sector, allowed, isEmptyAllowed) in [
      (0, [early, late], false), (1, [running], true), (2, [barrier], false), (3, [unfinished], true),
    ] {
      for buffer in allowed {
        #expect(model.fault(buffer, sector: sector, floor: model.floor(sector)) == nil)
      }
      let empty = model.fault(SectorBuffer(), sector: sector, floor: model.floor(sector))
      #expect((empty == nil) == isEmptyAllowed, "sector \(sector)")
    }
  }
}
