public import RingKit

/// One connected queue of a disk, as its data thread runs it.
public final class BlockQueue: DataQueue {
  /// How far a pause has come.
  private enum Pause {
    /// Requests are served.
    case none
    /// Those taken are being finished.
    case draining
    /// What they wrote is being made durable.
    case flushing
    /// The store is let go.
    case paused
  }

  private var engine: BlockQueueEngine<RingBlockHost>
  private var host: RingBlockHost
  private let statistics: BlockStatistics
  private let reportFault: @Sendable (VbdError) -> Void
  private var onDrained: (() -> Void)?
  private var pause = Pause.none
  private var onPaused: ((VbdError?) -> Void)?
  private var flushesWhenPaused = false
  private var pauseFlushCount = 0
  private var isBroken = false
  private var wasKicked = false
  private var backoff = KickBackoff()
  private var starvedCount: UInt64 = 0

  /// The token of the flush before a pause: beyond any ring's slots, and below a channel's own.
  private static let pauseFlushToken = StoreToken.own(0) - 1

  /// Joins an engine and its world. `reportFault` hears once of a frontend that broke the ring's rules.
  init(
    engine: consuming BlockQueueEngine<RingBlockHost>, host: consuming RingBlockHost,
    statistics: BlockStatistics,
    reportFault: @escaping @Sendable (VbdError) -> Void
  ) {
    self.engine = engine
    self.host = host
    self.statistics = statistics
    self.reportFault = reportFault
  }

  /// Tells the queue which port is its own, before its first turn.
  func adopt(port: Port) { host.adopt(port: port) }

  /// Begins without a store, as after a pause. Before the first turn.
  func beginPaused() {
    engine.pause()
    pause = .paused
  }

  /// Lets go of the store. Nothing is in flight and nothing follows.
  func dispose() { host.closeChannel() }

  /// The frontend's event came.
  public func kicked() { wasKicked = true }

  /// An I/O of this queue ended.
  public func completed(token: UInt32, result: Int32) {
    if StoreToken.number(token) == nil {
      deliver(token: token, result: result)
    } else {
      host.channelCompleted(token: token, result: result)
    }
  }

  private func deliver(token: UInt32, result: Int32) {
    if token == Self.pauseFlushToken {
      pauseFlushEnded(result)
    } else {
      engine.complete(token: token, result: result, host: &host)
    }
  }

  // MARK: Control, by messages to the data thread

  /// Stops taking requests; `onDrained` is called on the data thread once those taken are finished.
  func close(onDrained: @escaping () -> Void) {
    engine.beginClosing()
    host.beginClosingChannel()
    self.onDrained = onDrained
  }

  /// Stops taking requests; once those taken are finished, and what they wrote is durable if `flushes`, the
  /// store is let go and `onPaused` called, in a turn. A failure is that of the flush; the queue is paused in
  /// any case.
  func pause(flushes: Bool, onPaused: @escaping (VbdError?) -> Void) {
    engine.pause()
    flushesWhenPaused = flushes
    pauseFlushCount = 0
    self.onPaused = onPaused
    if pause == .none { pause = .draining }
  }

  /// Gives a paused queue a store, which it uses when it is resumed.
  func use(_ channel: any StoreChannel, of store: any BlockStore, limits: BlockLimits, health: DiskHealth) {
    precondition(pause == .paused)
    host.adopt(
      channel: channel, medium: store.geometry, discardSupport: store.discard, health: health)
    engine.validator = RequestValidator(limits: limits)
  }

  /// Takes requests again; a turn has to follow.
  func resume() {
    guard pause == .paused else { return }
    pause = .none
    engine.resume()
    engine.retryHeld(host: &host)
  }

  /// Replaces the rules for requests that come from here on.
  func setLimits(_ limits: BlockLimits) { engine.validator = RequestValidator(limits: limits) }

  /// One step of a pause, when nothing is in flight.
  private func advancePause() {
    switch pause {
    case .none, .flushing:
      return
    case .draining:
      if flushesWhenPaused && !host.isFenced {
        pause = .flushing
        host.flush(token: Self.pauseFlushToken)
        return
      }
      finishPause(nil)
    case .paused:
      finishPause(nil)
    }
  }

  private func pauseFlushEnded(_ result: Int32) {
    pauseFlushCount += 1
    // EINTR and EAGAIN pass.
    if result == -4 || result == -11, pauseFlushCount < 16 {
      host.flush(token: Self.pauseFlushToken)
    } else if result < 0 {
      // As with a guest's flush: what was lost is told once, and nobody may be promised it later.
      host.fence(errno: -result)
      finishPause(VbdError("what the guest wrote could not be made durable (error \(-result))"))
    } else {
      finishPause(nil)
    }
  }

  private func finishPause(_ failure: VbdError?) {
    host.closeChannel()
    pause = .paused
    publishStatistics()
    guard let onPaused else { return }
    self.onPaused = nil
    onPaused(failure)
  }

  // MARK: Turns

  /// The ring's indices tell of work without an event.
  public static var canPoll: Bool { true }

  /// Whether the frontend has put something into the ring.
  public func hasWork() -> Bool { engine.hasWork() }

  /// Does a bounded amount of work, and asks for an event when there is no more.
  public func run(now: UInt64) -> QueueTurn { run(now: now, arms: true) }

  /// Does a bounded amount of work.
  public func run(now: UInt64, arms: Bool) -> QueueTurn {
    host.purgeIdlePages()
    let before = engine.counters
    let taken = engine.takenCount
    while let done = host.nextCompletion() { deliver(token: done.token, result: done.result) }
    let turn = engine.run(host: &host, arms: arms)
    backoff.note(kicked: wasKicked, tookSomething: engine.takenCount != taken)
    wasKicked = false
    engine.counters.kicks = backoff.kickCount
    engine.counters.spuriousKicks = backoff.spuriousCount
    if engine.isStarved { starvedCount += 1 }
    if engine.counters != before || engine.takenCount != taken || statistics.hasNews { publishStatistics() }
    if engine.isDrained {
      if onPaused != nil { advancePause() }
      if let onDrained, pause != .flushing {
        self.onDrained = nil
        publishStatistics()
        onDrained()
        return .idle(unmaskAfterNanoseconds: 0)
      }
    }
    if host.hasCompletions { return .again }
    switch turn {
    case .more: return .again
    case .idle:
      return .idle(unmaskAfterNanoseconds: backoff.unmaskDelayNanoseconds)
    case .broken(let error):
      if !isBroken {
        isBroken = true
        reportFault(VbdError("the frontend broke the ring: \(error); its requests are no longer served"))
      }
      // A broken ring has nothing to say: its port stays masked for as long as the back-off allows.
      return .idle(unmaskAfterNanoseconds: KickBackoff.longestNanoseconds)
    }
  }

  private func publishStatistics() {
    statistics.publish(
      BlockStatistics.Snapshot(
        counters: engine.counters, inFlightCount: engine.inFlightCount,
        persistentPageCount: host.persistentPageCount, mapCount: host.mapCount, starvedCount: starvedCount))
  }
}
