public import RingKit

/// One connected queue of a disk, as its data thread runs it.
public final class BlockQueue: DataQueue {
  private var engine: BlockQueueEngine<RingBlockHost>
  private var host: RingBlockHost
  private let statistics: BlockStatistics
  private let reportFault: @Sendable (VbdError) -> Void
  private var onDrained: (() -> Void)?
  private var isBroken = false
  private var wasKicked = false
  private var backoff = KickBackoff()

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

  /// Lets go of the store. Nothing is in flight and nothing follows.
  func dispose() { host.closeChannel() }

  /// The frontend's event came.
  public func kicked() { wasKicked = true }

  /// An I/O of this queue ended.
  public func completed(token: UInt32, result: Int32) {
    if StoreToken.number(token) == nil {
      engine.complete(token: token, result: result, host: &host)
    } else {
      host.channelCompleted(token: token, result: result)
    }
  }

  /// Stops taking requests; `onDrained` is called on the data thread once those taken are finished.
  func close(onDrained: @escaping () -> Void) {
    engine.beginClosing()
    self.onDrained = onDrained
  }

  /// Does a bounded amount of work.
  public func run(now: UInt64) -> QueueTurn {
    let before = engine.counters
    let taken = engine.takenCount
    while let done = host.nextCompletion() {
      engine.complete(token: done.token, result: done.result, host: &host)
    }
    let turn = engine.run(host: &host)
    backoff.note(kicked: wasKicked, tookSomething: engine.takenCount != taken)
    wasKicked = false
    engine.counters.kicks = backoff.kickCount
    engine.counters.spuriousKicks = backoff.spuriousCount
    if engine.counters != before { publishStatistics() }
    if engine.inFlightCount == 0, let onDrained {
      self.onDrained = nil
      publishStatistics()
      onDrained()
      return .idle(unmaskAfterNanoseconds: 0)
    }
    if host.hasCompletions { return .again }
    switch turn {
    case .more: return .again
    case .idle:
      // Only another queue's I/O can free what this one waits for, and nobody tells of that.
      if engine.isStarved { host.runAgain(atNanoseconds: now + 1_000_000) }
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
        persistentPageCount: host.persistentPageCount, mapCount: host.mapCount))
  }
}
