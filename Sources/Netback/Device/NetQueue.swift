public import RingKit

/// One connected queue of an interface, both directions, as its data thread runs it.
public final class NetQueue: DataQueue {
  private var transmit: NetTxEngine<NetQueueHost>
  private var receive: NetRxLine<NetQueueHost>
  private var host: NetQueueHost
  private let statistics: NetStatistics
  private let report: @Sendable (NetConnectionNews) -> Void
  private var backoff = KickBackoff()
  private var wasKicked = false
  private var isBroken = false
  private var isStalled = false
  private var isClosing = false
  private var onDrained: (() -> Void)?
  private var published = NetStatistics.Snapshot()

  /// Puts a queue together on the thread that will own it.
  init(
    loop: DataLoop<NetQueue>, key: QueueKey, transmit: consuming BackRing, receive: consuming BackRing,
    index: Int, plan: NetConnectionPlan, statistics: NetStatistics,
    report: @escaping @Sendable (NetConnectionNews) -> Void
  ) throws(SystemError) {
    self.transmit = try NetTxEngine(ring: transmit, domain: plan.domain)
    let configuration = NetRxConfiguration(
      accepted: plan.parameters.offloads, headroom: plan.parameters.headroom)
    self.receive = NetRxLine(
      engine: NetRxEngine(ring: receive, domain: plan.domain, configuration: configuration),
      backlog: RxBacklog(capacity: TapChannel.largestBatch * 2, byteLimit: plan.bufferShareByteCount / 2),
      sendsEvents: plan.parameters.notifiesReceive)
    host = NetQueueHost(loop: loop, key: key, index: index, plan: plan)
    self.statistics = statistics
    self.report = report
  }

  /// Tells the queue which ports are its own, before its first turn.
  func adopt(port: Port, receivePort: Port) { host.adopt(port: port, receivePort: receivePort) }

  // MARK: Control, by messages to the data thread

  /// Stops taking packets; `onDrained` is called on the data thread once nothing is under way.
  func close(onDrained: @escaping () -> Void) {
    isClosing = true
    self.onDrained = onDrained
    transmit.beginClosing()
    receive.beginClosing(host: &host)
    host.beginClosing()
  }

  /// Has received data begin `byteCount` bytes into its pages from here on.
  func setHeadroom(_ byteCount: Int) {
    let old = receive.engine.configuration
    receive.engine.configuration = NetRxConfiguration(
      accepted: old.accepted, headroom: byteCount, tellsHashes: old.tellsHashes)
  }

  /// Lets packets pass, or drops them all.
  func setLinkUp(_ isUp: Bool) { host.isLinkUp = isUp }

  /// The link's largest frame is another one.
  func setFrameByteCount(_ byteCount: Int) { host.setFrameByteCount(byteCount) }

  // MARK: Events

  /// The frontend's event came.
  public func kicked() { wasKicked = true }

  /// An I/O of this queue ended.
  public func completed(token: UInt32, result: Int32) { host.completed(token: token, result: result) }

  /// The rings' indices tell of work without an event.
  public static var canPoll: Bool { true }

  /// Whether the frontend has put something into a ring that can be used.
  public func hasWork() -> Bool { !isBroken && (transmit.hasWork() || receive.hasWork()) }

  /// Does a bounded amount of work, and asks for events when there is no more.
  public func run(now: UInt64) -> QueueTurn { run(now: now, arms: true) }

  /// Does a bounded amount of work.
  public func run(now: UInt64, arms: Bool) -> QueueTurn {
    let taken = transmit.counters.slots &+ receive.engine.counters.slots
    var isBusy = false
    if !isBroken { isBusy = runBoth(arms: arms) }
    let tookSomething = transmit.counters.slots &+ receive.engine.counters.slots != taken
    backoff.note(kicked: wasKicked, tookSomething: tookSomething)
    wasKicked = false
    publishStatistics()
    if isClosing {
      guard host.isDrained, let onDrained else { return .idle(unmaskAfterNanoseconds: 0) }
      self.onDrained = nil
      host.dispose()
      onDrained()
      return .idle(unmaskAfterNanoseconds: 0)
    }
    if isBroken { return .idle(unmaskAfterNanoseconds: KickBackoff.longestNanoseconds) }
    if isBusy { return .again }
    if let due = receive.deadline { host.runAgain(atNanoseconds: due) }
    return .idle(unmaskAfterNanoseconds: backoff.unmaskDelayNanoseconds)
  }

  /// A turn of each direction; true when there is more to do.
  private func runBoth(arms: Bool) -> Bool {
    var isBusy = false
    switch transmit.run(host: &host, arms: arms) {
    case .more: isBusy = true
    case .idle: break
    case .broken(let fault): return fail(fault)
    }
    while let packet = host.nextPacket() { receive.receive(packet, host: &host) }
    switch receive.run(host: &host, arms: arms) {
    case .more: isBusy = true
    case .idle: break
    case .broken(let fault): return fail(fault)
    }
    if receive.isStalled != isStalled {
      isStalled = receive.isStalled
      report(.stalled(isStalled))
    }
    // What the frontend cannot take yet waits in the link, which drops what is too much.
    if receive.backlog.count == 0, !isStalled { host.read() }
    return isBusy
  }

  private func fail(_ fault: NetFault) -> Bool {
    isBroken = true
    report(.fault(VifError("\(fault)")))
    return false
  }

  private func publishStatistics() {
    let snapshot = NetStatistics.Snapshot(
      transmit: transmit.counters, receive: receive.engine.counters, link: host.linkCounters,
      kicks: backoff.kickCount, spuriousKicks: backoff.spuriousCount, parkedCount: receive.backlog.count)
    guard snapshot != published else { return }
    published = snapshot
    statistics.publish(snapshot)
  }
}
