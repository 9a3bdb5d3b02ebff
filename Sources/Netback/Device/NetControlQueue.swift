import RingKit

/// The control ring of a connected interface, as a data thread runs it: the thread of all the interface's
/// queues, but with turns of its own.
final class NetControlQueue {
  /// Pages that each queue may have staged: as many as both of its rings have slots.
  static let stagingCapacity = 2 * NetLimits.ringSlotCount

  private var engine: NetControlEngine<NetControlQueueHost>
  private var host: NetControlQueueHost
  private let report: @Sendable (NetConnectionNews) -> Void
  private var isBroken = false

  /// Puts the ring's engine together on the thread that owns the queues of `group`.
  init(
    loop: DataLoop<NetQueue>, ring: consuming BackRing, plan: NetConnectionPlan, group: NetQueueGroup,
    report: @escaping @Sendable (NetConnectionNews) -> Void
  ) throws(SystemError) {
    engine = try NetControlEngine(
      ring: ring, domain: plan.domain, queueCount: plan.parameters.queues.count,
      stagingCapacity: Self.stagingCapacity)
    host = NetControlQueueHost(loop: loop, domain: plan.domain, group: group)
    self.report = report
  }

  /// Tells the ring where the frontend is signalled, before its first turn.
  func adopt(port: Port) { host.port = port }

  /// Requests taken since the ring was connected.
  var takenCount: UInt64 { engine.takenCount }

  /// Takes no more requests.
  func beginClosing() { engine.beginClosing() }

  /// True when nobody waits for an answer that is to come.
  var isDrained: Bool { isBroken || engine.pendingCount == 0 }

  /// A bounded amount of work.
  func run() -> NetQueue.Turn {
    guard !isBroken else { return .broken }
    let turn = engine.run(host: &host)
    let unstaged = host.unstagedToken.take()
    if let unstaged { engine.unstaged(token: unstaged) }
    switch turn {
    case .more: return .busy
    case .idle: return unstaged == nil ? .idle : .busy
    case .broken(let error):
      isBroken = true
      report(.fault(VifError("control ring: \(error)")))
      return .broken
    }
  }
}

/// The real world of a control ring: its thread's grants and events, and the queues beside it.
struct NetControlQueueHost: NetControlHost, ~Copyable {
  private let loop: DataLoop<NetQueue>
  private let domain: DomainID
  private let group: NetQueueGroup
  /// Where the frontend is signalled.
  var port: Port?
  /// What the engine is still to be told of: no two removals are under way at once.
  var unstagedToken: UInt32?

  init(loop: DataLoop<NetQueue>, domain: DomainID, group: NetQueueGroup) {
    self.loop = loop
    self.domain = domain
    self.group = group
  }

  mutating func copy(_ batch: inout GrantCopyBatch) { loop.grants.copy(&batch) }

  mutating func map(_ reference: GrantReference, access: GrantAccess) -> MappedPages? {
    try? loop.grants.map([reference], of: domain, access: access)
  }

  mutating func stage(_ pages: [StagedPage], onQueue queue: Int) { group[queue]?.stage(pages) }

  // The queue has no turn now, so that nothing uses the pages when this returns.
  mutating func unstage(_ references: [GrantReference], onQueue queue: Int, token: UInt32) {
    group[queue]?.unstage(references)
    unstagedToken = token
  }

  mutating func setHash(_ state: NetHashState) { group.setHash(state) }

  mutating func notifyControl() {
    guard let port else { return }
    do throws(EventChannelError) {
      try loop.events.notify(port)
    } catch {
      // The frontend's end is gone: its state in xenstore ends the connection.
    }
  }
}
