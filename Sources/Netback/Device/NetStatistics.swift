import Synchronization

/// A network queue's numbers: gathered by its thread, published after each turn, read by anyone.
public final class NetStatistics: Sendable {
  /// What can be read at any time, cheaply.
  public struct Snapshot: Sendable, Equatable {
    /// Guest to backend.
    public var transmit = NetTxCounters()
    /// Backend to guest.
    public var receive = NetRxCounters()
    /// What became of frames at the link.
    public var link = NetLinkCounters()
    /// Events from the frontend, and of these those that found nothing to do.
    public var kicks: UInt64 = 0
    /// Events that found nothing.
    public var spuriousKicks: UInt64 = 0
    /// Packets that wait for receive slots.
    public var parkedCount = 0
  }

  private let state = Mutex(Snapshot())

  /// Nothing done yet.
  init() {}

  /// The latest published numbers.
  public var snapshot: Snapshot { state.withLock { $0 } }

  /// Makes a turn's numbers public. On the queue's thread.
  func publish(_ snapshot: Snapshot) { state.withLock { $0 = snapshot } }
}

/// What became of frames at a queue's end of a link.
public struct NetLinkCounters: Sendable, Equatable, BitwiseCopyable {
  /// Frames that the link has taken, and their bytes.
  public var sentPackets: UInt64 = 0
  /// Bytes of these.
  public var sentBytes: UInt64 = 0
  /// Frames that came from the link, and their bytes.
  public var receivedPackets: UInt64 = 0
  /// Bytes of these.
  public var receivedBytes: UInt64 = 0
  /// Frames that the link refused because it was down.
  public var droppedDown: UInt64 = 0
  /// Frames that the link refused for another reason.
  public var droppedErrors: UInt64 = 0
  /// Frames that could not be understood, that the frontend does not want, or that no switch passes on.
  public var droppedUnwanted: UInt64 = 0
  /// Frames for all ports of a switch that did not reach all of them, because they were too many.
  public var droppedFlood: UInt64 = 0

  /// None.
  public init() {}

  /// The numbers of both.
  static func + (left: NetLinkCounters, right: NetLinkCounters) -> NetLinkCounters {
    var sum = left
    sum.sentPackets += right.sentPackets
    sum.sentBytes += right.sentBytes
    sum.receivedPackets += right.receivedPackets
    sum.receivedBytes += right.receivedBytes
    sum.droppedDown += right.droppedDown
    sum.droppedErrors += right.droppedErrors
    sum.droppedUnwanted += right.droppedUnwanted
    sum.droppedFlood += right.droppedFlood
    return sum
  }
}
