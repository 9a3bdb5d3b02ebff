import Synchronization

/// A queue's numbers: gathered by its thread, published after each turn, read by anyone.
public final class BlockStatistics: @unchecked Sendable {
  // Sound: `pending` belongs to the queue's thread alone; everything else is behind the mutex.

  /// What can be read at any time, cheaply.
  public struct Snapshot: Sendable, Equatable {
    /// What the queue has done.
    public var counters = BlockCounters()
    /// Requests taken and not answered.
    public var inFlightCount = 0
    /// Guest pages that are mapped persistently now.
    public var persistentPageCount = 0
    /// Guest pages that were mapped since the queue connected.
    public var mapCount: UInt64 = 0
    /// Turns that ended with a request that waits for memory.
    public var starvedCount: UInt64 = 0
  }

  private struct State {
    var snapshot = Snapshot()
    var tally = BlockTally()
  }

  /// Outcomes that are kept back before they are counted, so that a turn takes the lock once.
  static let pendingCapacity = 64

  private let state = Mutex(State())
  private var pending: [BlockOutcome] = []

  /// Nothing done yet.
  public init() { pending.reserveCapacity(Self.pendingCapacity) }

  /// The latest published numbers.
  public var snapshot: Snapshot { state.withLock { $0.snapshot } }

  /// Adds the requests counted so far to `total`. The lock is held for as long as it takes to add.
  public func add(to total: inout BlockTally) {
    // Added, not copied: a copy would share its storage, and the queue's thread would have to allocate.
    state.withLock { total.add($0.tally) }
  }

  /// The requests counted so far, by kind.
  public var tally: BlockTally {
    var total = BlockTally()
    add(to: &total)
    return total
  }

  /// Takes note of how a request ended. On the queue's thread, once for each request.
  func note(_ outcome: BlockOutcome) {
    pending.append(outcome)
    if pending.count == Self.pendingCapacity { state.withLock { merge(into: &$0) } }
  }

  /// True when outcomes were noted since the last ``publish(_:)``. On the queue's thread.
  var hasNews: Bool { !pending.isEmpty }

  /// Makes a turn's numbers public. On the queue's thread.
  func publish(_ snapshot: Snapshot) {
    state.withLock { state in
      merge(into: &state)
      state.snapshot = snapshot
    }
  }

  private func merge(into state: inout State) {
    for outcome in pending { state.tally.note(outcome) }
    pending.removeAll(keepingCapacity: true)
  }
}
