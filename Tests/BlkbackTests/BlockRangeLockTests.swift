import Blkback
import Simulator
import Synchronization
import Testing

/// The lock that keeps writes to parts of one block apart, over the queues of a disk.
struct BlockRangeLockTests {
  /// A queue that counts its wake-ups.
  final class Sleeper: Sendable {
    let wakeCount = Atomic<Int>(0)
    var wake: @Sendable () -> Void { { self.wakeCount.add(1, ordering: .relaxed) } }
    var woken: Int { wakeCount.load(ordering: .relaxed) }
  }

  @Test(arguments: [false, true], [false, true])
  func onlyPartialWritesExclude(_ first: Bool, _ second: Bool) {
    let lock = BlockRangeLock(capacity: 4)
    let (one, two) = (lock.join {}, lock.join {})
    #expect(lock.lock(one, token: 1, first: 10, end: 20, isExclusive: first))
    // Whole writes do not need each other's blocks as they were; partial ones do.
    #expect(lock.lock(two, token: 1, first: 19, end: 21, isExclusive: second) == !(first || second))
    #expect(lock.lock(two, token: 2, first: 20, end: 21, isExclusive: second), "beside it")
    #expect(lock.lock(two, token: 3, first: 9, end: 10, isExclusive: second), "beside it")
    #expect(
      lock.lock(one, token: 2, first: 15, end: 16, isExclusive: second) == !(first || second), "own queue")
  }

  /// Tokens are the queues' own: the same one on two queues are two writes.
  @Test func whoWaitsIsWokenWhenItsBlocksAreFree() {
    let lock = BlockRangeLock(capacity: 4)
    let (early, late) = (Sleeper(), Sleeper())
    let (one, two) = (lock.join(wake: early.wake), lock.join(wake: late.wake))
    #expect(lock.lock(one, token: 7, first: 0, end: 4, isExclusive: true))
    #expect(lock.lock(one, token: 8, first: 100, end: 104, isExclusive: true))
    #expect(!lock.lock(two, token: 7, first: 3, end: 5, isExclusive: false))
    lock.unlock(one, token: 8)
    #expect(late.woken == 0, "other blocks")
    lock.unlock(two, token: 7)
    #expect(late.woken == 0 && lock.count == 1, "it holds nothing under that token")
    lock.unlock(one, token: 7)
    #expect(late.woken == 1 && early.woken == 0)
    #expect(lock.lock(two, token: 7, first: 3, end: 5, isExclusive: false))
    lock.unlock(two, token: 7)
    #expect(late.woken == 1, "it waits for nothing any more")
    #expect(lock.count == 0)
  }

  @Test func aQueueThatGoesLetsGo() {
    let lock = BlockRangeLock(capacity: 4)
    let late = Sleeper()
    let (one, two) = (lock.join {}, lock.join(wake: late.wake))
    #expect(lock.lock(one, token: 1, first: 0, end: 4, isExclusive: true))
    #expect(!lock.lock(two, token: 1, first: 0, end: 1, isExclusive: true))
    lock.leave(one)
    #expect(late.woken == 1 && lock.count == 0)
    #expect(lock.lock(two, token: 1, first: 0, end: 1, isExclusive: true))
  }

  /// Against a model, with many writes at once: no two that exclude each other, and nobody sleeps for ever.
  @Test(arguments: 1...8 as ClosedRange<UInt64>) func itAgreesWithItsModel(_ seed: UInt64) throws {
    struct Held {
      var queue: Int
      var token: UInt32
      var blocks: Range<UInt64>
      var isExclusive: Bool
    }
    var numbers = SeededNumbers(seed: seed)
    let lock = BlockRangeLock(capacity: 2)
    let sleepers = (0..<3).map { _ in Sleeper() }
    let members = sleepers.map { lock.join(wake: $0.wake) }
    var held: [Held] = []
    var waiting: [Held?] = [nil, nil, nil]
    var wokenBefore = [0, 0, 0]
    for step in 0..<3000 {
      let queue = Int.random(in: 0..<3, using: &numbers)
      let wish =
        waiting[queue]
        ?? Held(
          queue: queue, token: UInt32(step),
          blocks: {
            let first = UInt64.random(in: 0..<40, using: &numbers)
            return first..<first + UInt64.random(in: 1...4, using: &numbers)
          }(), isExclusive: numbers.chance(1, in: 2))
      if numbers.chance(1, in: 2), sleepers[queue].woken > wokenBefore[queue] || waiting[queue] == nil {
        let isFree = held.allSatisfy {
          !$0.blocks.overlaps(wish.blocks) || !($0.isExclusive || wish.isExclusive)
        }
        wokenBefore[queue] = sleepers[queue].woken
        let took = lock.lock(
          members[queue], token: wish.token, first: wish.blocks.lowerBound, end: wish.blocks.upperBound,
          isExclusive: wish.isExclusive)
        #expect(took == isFree, "seed \(seed) step \(step)")
        waiting[queue] = took ? nil : wish
        if took { held.append(wish) }
      } else if !held.isEmpty {
        let ended = held.remove(at: Int.random(in: 0..<held.count, using: &numbers))
        lock.unlock(members[ended.queue], token: ended.token)
      }
      #expect(lock.count == held.count)
    }
    for ended in held { lock.unlock(members[ended.queue], token: ended.token) }
    for queue in 0..<3 where waiting[queue] != nil {
      #expect(sleepers[queue].woken > wokenBefore[queue], "queue \(queue) sleeps for ever")
    }
  }
}
