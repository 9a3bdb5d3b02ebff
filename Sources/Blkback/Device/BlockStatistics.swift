import Synchronization

/// A queue's counters, published by its thread after each turn and read by anyone.
public final class BlockStatistics: Sendable {
  /// What can be read.
  public struct Snapshot: Sendable, Equatable {
    /// What the queue has done.
    public var counters = BlockCounters()
    /// Requests taken and not answered.
    public var inFlightCount = 0
    /// Guest pages that are mapped persistently now.
    public var persistentPageCount = 0
    /// Guest pages that were mapped since the queue connected.
    public var mapCount: UInt64 = 0
  }

  private let state = Mutex(Snapshot())

  /// Nothing done yet.
  public init() {}

  /// The latest published numbers.
  public var snapshot: Snapshot { state.withLock { $0 } }

  /// Takes note of how a request ended. On the queue's thread, once for each request.
  func note(_ outcome: BlockOutcome) {}

  func publish(_ snapshot: Snapshot) { state.withLock { $0 = snapshot } }
}
