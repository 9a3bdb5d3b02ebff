import Synchronization

/// The blocks that writes are at work on, over all queues of a disk, for media whose blocks are larger than
/// 512 bytes: there a write that changes a block in part reads it first, and must have it for itself.
///
/// A queue that was refused is woken once the write that may have been in its way has ended.
public final class BlockRangeLock: Sendable {
  /// One queue's place at the lock.
  public struct Member: Sendable, Hashable {
    let number: Int
  }

  private struct Queue: Sendable {
    let number: Int
    let wake: @Sendable () -> Void
    /// The blocks it was refused last.
    var wanted: Range<UInt64>?
  }

  private struct State {
    var table: BlockRangeTable
    var queues: [Queue] = []
    var nextNumber = 0
  }

  private let state: Mutex<State>

  /// A lock with room for `capacity` writes at once: more make it grow.
  public init(capacity: Int) { state = Mutex(State(table: BlockRangeTable(capacity: capacity))) }

  /// Writes at work.
  public var count: Int { state.withLock { $0.table.count } }

  /// Gives a queue its place. `wake` has the queue try again; it is called from any thread, and must not wait.
  public func join(wake: @escaping @Sendable () -> Void) -> Member {
    state.withLock { state in
      let number = state.nextNumber
      state.nextNumber += 1
      state.queues.append(Queue(number: number, wake: wake))
      return Member(number: number)
    }
  }

  /// Takes a queue's place away, and what it may still hold.
  public func leave(_ member: Member) {
    let woken = state.withLock { state in
      state.queues.removeAll { $0.number == member.number }
      state.table.unlockAll { $0 >> 32 == UInt64(member.number) }
      return Self.takeWaiting(&state) { _ in true }
    }
    for queue in woken { queue.wake() }
  }

  /// Enters a write of blocks `first..<end` under the queue's `token`; false when one is at work there and
  /// either changes blocks only in part.
  public func lock(
    _ member: Member, token: UInt32, first: UInt64, end: UInt64, isExclusive: Bool
  ) -> Bool {
    state.withLock { state in
      let key = Self.key(member, token)
      if state.table.lock(key: key, first: first, end: end, isExclusive: isExclusive) { return true }
      for index in state.queues.indices where state.queues[index].number == member.number {
        state.queues[index].wanted = first..<end
      }
      return false
    }
  }

  /// Strikes a write out and wakes whoever waits for its blocks.
  public func unlock(_ member: Member, token: UInt32) {
    let woken: [Queue] = state.withLock { state in
      guard let freed = state.table.unlock(key: Self.key(member, token)) else { return [] }
      return Self.takeWaiting(&state) { $0.overlaps(freed) }
    }
    for queue in woken { queue.wake() }
  }

  /// The queues whose wanted blocks match; they want nothing until they are refused again.
  private static func takeWaiting(_ state: inout State, _ matches: (Range<UInt64>) -> Bool) -> [Queue] {
    // An empty array is no allocation, and almost always nobody waits.
    var woken: [Queue] = []
    for index in state.queues.indices {
      guard let wanted = state.queues[index].wanted, matches(wanted) else { continue }
      state.queues[index].wanted = nil
      woken.append(state.queues[index])
    }
    return woken
  }

  private static func key(_ member: Member, _ token: UInt32) -> UInt64 {
    UInt64(member.number) << 32 | UInt64(token)
  }
}
