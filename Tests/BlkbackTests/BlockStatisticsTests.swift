import RingKit
import Testing

@testable import Blkback

@Suite struct BlockStatisticsTests {
  @Test func outcomesAreCountedByKindAndAnswer() {
    let statistics = BlockStatistics()
    for kind in BlockRequestKind.allCases {
      for index in 1...10 {
        statistics.note(
          BlockOutcome(
            kind: kind, status: .okay, isIndirect: index == 1, sectorCount: 8,
            nanoseconds: UInt64(index) * 1000))
      }
      statistics.note(BlockOutcome(kind: kind, status: .error, sectorCount: 8, nanoseconds: 50_000))
      statistics.note(
        BlockOutcome(kind: kind, status: .notSupported, rejection: .notOffered, sectorCount: 8))
    }
    statistics.publish(BlockStatistics.Snapshot())
    let tally = statistics.tally
    for kind in BlockRequestKind.allCases {
      let numbers = tally[kind]
      #expect(numbers.completed == 10 && numbers.failed == 1 && numbers.unsupported == 1, "\(kind)")
      #expect(numbers.answered == 12)
      #expect(numbers.sectors == 80 && numbers.byteCount == 40_960)
      // What was refused took no time; what failed did.
      #expect(numbers.latency.count == 11 && numbers.latency.maximum == 50_000)
    }
    let kinds = UInt64(BlockRequestKind.allCases.count)
    #expect(tally.indirectCount == kinds)
    #expect(tally.refusalCount == kinds && tally.refusals(for: .notOffered) == kinds)
    #expect(tally.errorCount == kinds && tally.completedCount == 10 * kinds)
  }

  @Test func everyRefusalHasItsOwnCount() {
    let statistics = BlockStatistics()
    for (index, reason) in RejectReason.allCases.enumerated() {
      for _ in 0...index {
        statistics.note(BlockOutcome(kind: .other, status: .error, rejection: reason))
      }
    }
    statistics.publish(BlockStatistics.Snapshot())
    let tally = statistics.tally
    for (index, reason) in RejectReason.allCases.enumerated() {
      #expect(tally.refusals(for: reason) == UInt64(index + 1), "\(reason)")
    }
    #expect(tally[.other].latency.count == 0)
  }

  /// More outcomes than are kept back: they show without a turn's end, and none is lost or counted twice.
  @Test func manyOutcomesOfOneTurn() {
    let statistics = BlockStatistics()
    let count = BlockStatistics.pendingCapacity * 3 + 5
    for _ in 0..<count { statistics.note(BlockOutcome(kind: .read, status: .okay, sectorCount: 1)) }
    #expect(statistics.tally[.read].completed == UInt64(BlockStatistics.pendingCapacity * 3))
    statistics.publish(BlockStatistics.Snapshot())
    statistics.publish(BlockStatistics.Snapshot())
    #expect(statistics.tally[.read].completed == UInt64(count))
  }

  @Test func talliesAddUp() {
    let (first, second) = (BlockStatistics(), BlockStatistics())
    first.note(BlockOutcome(kind: .write, status: .okay, sectorCount: 4, nanoseconds: 10))
    second.note(BlockOutcome(kind: .write, status: .okay, sectorCount: 6, nanoseconds: 30))
    second.note(BlockOutcome(kind: .discard, status: .okay, sectorCount: .max, nanoseconds: 30))
    second.note(BlockOutcome(kind: .discard, status: .okay, sectorCount: .max, nanoseconds: 30))
    [first, second].forEach { $0.publish(BlockStatistics.Snapshot()) }
    var total = BlockTally()
    first.add(to: &total)
    second.add(to: &total)
    #expect(total[.write].sectors == 10 && total[.write].latency.total == 40)
    #expect(total[.discard].completed == 2 && total[.discard].byteCount == .max)
    // Reading takes nothing away.
    #expect(first.tally[.write].completed == 1)
  }
}
