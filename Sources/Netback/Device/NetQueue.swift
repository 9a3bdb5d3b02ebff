public import RingKit

/// What data threads of interfaces run: the two rings of a queue, or the control ring of an interface. Each has
/// ports and turns of its own, so that a control ring never waits for a queue (net.md 38).
public final class NetQueue: DataQueue {
  enum Role {
    case data(NetDataQueue)
    case control(NetControlQueue)
  }

  /// How a turn ended.
  enum Turn {
    /// There is more to do.
    case busy
    /// Nothing to do until an event.
    case idle
    /// The frontend broke the rules; nothing of it is touched any more.
    case broken
  }

  private let role: Role
  private var backoff = KickBackoff()
  private var wasKicked = false
  private var isClosing = false
  private var onDrained: (() -> Void)?

  /// Has a thread run this.
  init(_ role: Role) { self.role = role }

  // However it ends: drained, not opened after all, or with a thread that was stopped.
  deinit { data?.leave() }

  /// The queue, if it is one.
  var data: NetDataQueue? {
    guard case .data(let queue) = role else { return nil }
    return queue
  }

  /// Stops taking packets or requests; `onDrained` is called on the data thread once nothing is under way.
  func close(onDrained: @escaping () -> Void) {
    isClosing = true
    self.onDrained = onDrained
    switch role {
    case .data(let queue): queue.beginClosing()
    case .control(let ring): ring.beginClosing()
    }
  }

  // MARK: Events

  /// The frontend's event came.
  public func kicked() { wasKicked = true }

  /// An I/O of this queue ended.
  public func completed(token: UInt32, result: Int32) { data?.completed(token: token, result: result) }

  /// The rings' indices tell of work without an event.
  public static var canPoll: Bool { true }

  /// Whether the frontend has put something into a ring that can be used. Control rings always ask for events.
  public func hasWork() -> Bool { data?.hasWork() ?? false }

  /// Does a bounded amount of work, and asks for events when there is no more.
  public func run(now: UInt64) -> QueueTurn { run(now: now, arms: true) }

  /// Does a bounded amount of work.
  public func run(now: UInt64, arms: Bool) -> QueueTurn {
    let turn: Turn
    var isDrained = true
    switch role {
    case .data(let queue):
      let taken = queue.takenCount
      turn = queue.run(arms: arms)
      noteTurn(tookSomething: queue.takenCount != taken)
      queue.publishStatistics(backoff)
      isDrained = queue.isDrained
    case .control(let ring):
      let taken = ring.takenCount
      turn = ring.run()
      noteTurn(tookSomething: ring.takenCount != taken)
      isDrained = ring.isDrained
    }
    guard !isClosing else {
      // Nothing comes that would wake a control ring for the rest of what it has taken.
      if !isDrained, data == nil { return .again }
      if isDrained { drained() }
      return .idle(unmaskAfterNanoseconds: 0)
    }
    return switch turn {
    case .busy: .again
    case .idle: .idle(unmaskAfterNanoseconds: backoff.unmaskDelayNanoseconds)
    case .broken: .idle(unmaskAfterNanoseconds: KickBackoff.longestNanoseconds)
    }
  }

  private func noteTurn(tookSomething: Bool) {
    backoff.note(kicked: wasKicked, tookSomething: tookSomething)
    wasKicked = false
  }

  private func drained() {
    guard let onDrained else { return }
    self.onDrained = nil
    data?.dispose()
    onDrained()
  }
}
