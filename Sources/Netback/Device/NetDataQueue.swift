import RingKit

/// Both rings of one connected queue of an interface, as their data thread runs them.
final class NetDataQueue {
  /// Which of the interface's queues.
  let index: Int
  private var transmit: NetTxEngine<NetQueueHost>
  var receive: NetRxLine<NetQueueHost>
  var host: NetQueueHost
  let group: NetQueueGroup?
  private let port: SwitchPort?
  private let statistics: NetStatistics
  private let report: @Sendable (NetConnectionNews) -> Void
  private(set) var isBroken = false
  private var isStalled = false
  private var published = NetStatistics.Snapshot()

  /// Puts a queue together on the thread that will own it.
  init(
    loop: DataLoop<NetQueue>, key: QueueKey, transmit: consuming BackRing, receive: consuming BackRing,
    index: Int, plan: NetConnectionPlan, group: NetQueueGroup?, statistics: NetStatistics,
    report: @escaping @Sendable (NetConnectionNews) -> Void
  ) throws(SystemError) {
    self.index = index
    self.group = group
    port = plan.links[index].port
    self.transmit = try NetTxEngine(ring: transmit, domain: plan.domain)
    let configuration = NetRxConfiguration(
      accepted: plan.parameters.offloads, headroom: plan.parameters.headroom)
    // Queues with a common share leave each other half of it, however many of them wait.
    let waitingByteCount = plan.bufferShareByteCount / 2 / (group == nil ? 1 : plan.links.count)
    self.receive = NetRxLine(
      engine: NetRxEngine(ring: receive, domain: plan.domain, configuration: configuration),
      // Nothing holds packets before a port of a switch.
      backlog: RxBacklog(
        capacity: port == nil ? TapChannel.largestBatch * 2 : NetLimits.ringSlotCount,
        byteLimit: waitingByteCount),
      sendsEvents: plan.parameters.notifiesReceive)
    host = NetQueueHost(loop: loop, key: key, index: index, plan: plan, group: group)
    self.statistics = statistics
    self.report = report
    group?.join(self)
  }

  /// Tells the queue which ports are its own, before its first turn.
  func adopt(port: Port, receivePort: Port) {
    host.adopt(port: port, receivePort: receivePort)
    // From here on others find it.
    self.port?.fabric.join(self)
  }

  /// Its place at a switch, if it has one.
  var switchPort: SwitchPort? { port }

  // MARK: Control, by messages to the data thread

  /// Takes no more packets, and asks the link for none.
  func beginClosing() {
    transmit.beginClosing()
    receive.beginClosing(host: &host)
    host.beginClosing()
  }

  /// True when nothing is under way at the link.
  var isDrained: Bool { host.isDrained }

  /// Lets go of everything. Nothing is under way, and nothing follows.
  func dispose() { host.dispose() }

  /// Leaves the other queues of the interface and of the switch, which hold this one until then.
  func leave() {
    group?.leave(self)
    port?.fabric.leave(self)
  }

  /// Has received data begin `byteCount` bytes into its pages from here on.
  func setHeadroom(_ byteCount: Int) {
    let old = receive.engine.configuration
    receive.engine.configuration = NetRxConfiguration(
      accepted: old.accepted, headroom: byteCount, tellsHashes: old.tellsHashes)
  }

  /// Lets packets pass, or drops them all.
  func setLinkUp(_ isUp: Bool) { host.isLinkUp = isUp }

  /// From here on these watch the queue's frames.
  func setCaptures(_ captures: [FrameCapture]) { host.captures = captures }

  /// The link's largest frame is another one.
  func setFrameByteCount(_ byteCount: Int) { host.setFrameByteCount(byteCount) }

  // MARK: The control ring's doing, on the same thread

  /// Whether the frontend is told hashes from here on.
  func tellHashes(_ tells: Bool) { receive.engine.configuration.tellsHashes = tells }

  /// Adds pages to those that are found mapped.
  func stage(_ pages: [StagedPage]) { host.staging.insert(pages) }

  /// Lets go of pages.
  func unstage(_ references: [GrantReference]) { host.staging.remove(references) }

  // MARK: Turns

  /// Slots taken of both rings since they were connected.
  var takenCount: UInt64 { transmit.counters.slots &+ receive.engine.counters.slots }

  /// An I/O of this queue ended.
  func completed(token: UInt32, result: Int32) { host.completed(token: token, result: result) }

  /// Whether the frontend has put something into a ring that can be used.
  func hasWork() -> Bool { !isBroken && (transmit.hasWork() || receive.hasWork()) }

  /// A turn of each direction.
  func run(arms: Bool) -> NetQueue.Turn {
    guard !isBroken else { return .broken }
    var isBusy = false
    switch transmit.run(host: &host, arms: arms) {
    case .more: isBusy = true
    case .idle: break
    case .broken(let fault): return fail(fault)
    }
    while let packet = host.nextPacket() { deliver(packet) }
    switch receive.run(host: &host, arms: arms) {
    case .more: isBusy = true
    case .idle: break
    case .broken(let fault): return fail(fault)
    }
    if receive.isStalled != isStalled {
      isStalled = receive.isStalled
      report(.stalled(isStalled))
    }
    // What the frontend cannot take yet waits in the link, which drops what is too much. Where packets are
    // steered, those for other queues must not wait behind them.
    if group?.isSteering == true || receive.backlog.count == 0 && !isStalled { host.read() }
    guard !isBusy else { return .busy }
    if let due = receive.deadline { host.runAgain(atNanoseconds: due) }
    return .idle
  }

  /// Gives a packet of this queue's link to the queue that the frontend wants it on.
  func deliver(_ packet: NetPacket) {
    host.capture(packet, .outbound)
    guard let group, group.isHashing else { return receive.receive(packet, host: &host) }
    var packet = packet
    let target = group.target(of: &packet, frame: host.frame(of: packet)) ?? self
    if target === self { receive.receive(packet, host: &host) } else { target.accept(packet) }
  }

  /// Receives a packet that another queue of the group has read.
  private func accept(_ packet: NetPacket) {
    // A broken queue has no turn any more that would give the buffer back.
    guard !isBroken else { return receive.engine.drop(packet, as: .brokenRing, host: &host) }
    receive.receive(packet, host: &host)
    host.wake()
  }

  private func fail(_ fault: NetFault) -> NetQueue.Turn {
    isBroken = true
    report(.fault(VifError("queue \(index): \(fault)")))
    return .broken
  }

  /// Makes the queue's numbers public, where they have changed.
  func publishStatistics(_ backoff: KickBackoff) {
    let snapshot = NetStatistics.Snapshot(
      transmit: transmit.counters, receive: receive.engine.counters, link: host.linkCounters,
      kicks: backoff.kickCount, spuriousKicks: backoff.spuriousCount, parkedCount: receive.backlog.count)
    guard snapshot != published else { return }
    published = snapshot
    statistics.publish(snapshot)
  }
}
