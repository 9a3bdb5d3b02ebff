import RingKit

/// A receive ring and the packets that wait before it: offers them in their order, waits for slots by event
/// or by timer, and gives up on a frontend that takes nothing.
///
/// The queue calls ``receive(_:host:)`` for what comes from its link, ``run(host:arms:)`` once afterwards,
/// after each event, and at ``deadline``; and keeps the link's carrier as ``isStalled`` says.
public struct NetRxLine<Host: NetRxHost & ~Copyable>: ~Copyable {
  /// The ring's engine; its configuration may be replaced between turns.
  public var engine: NetRxEngine<Host>
  /// Packets that wait.
  public private(set) var backlog: RxBacklog
  private var stall: RxStall
  /// The segment with which the first packet that waits goes on.
  private var nextSegment = 0
  /// Whether it waits for memory.
  private var lacksMemory = false

  /// Joins an engine and room for packets that wait. `sendsEvents`: whether the frontend wrote
  /// feature-rx-notify.
  public init(engine: consuming NetRxEngine<Host>, backlog: consuming RxBacklog, sendsEvents: Bool) {
    self.engine = engine
    self.backlog = backlog
    stall = RxStall(sendsEvents: sendsEvents)
  }

  /// True while the link's carrier is to be off.
  public var isStalled: Bool { stall.isStalled }

  /// When the queue has to run again at the latest, by the host's clock in nanoseconds; nil if only an event
  /// or a packet can change anything.
  public var deadline: UInt64? { stall.deadline }

  /// Takes a packet from the link, in whatever state the frontend is: sends it, lets it wait, or drops it.
  public mutating func receive(_ packet: NetPacket, host: inout Host) {
    guard !stall.isStalled else { return engine.drop(packet, as: .stalled, host: &host) }
    var progress = 0
    guard backlog.count > 0 || !offer(packet, from: 0, progress: &progress, host: &host) else { return }
    guard backlog.append(packet) else { return engine.drop(packet, as: .backlogFull, host: &host) }
    if backlog.count == 1 { nextSegment = progress }
  }

  /// Takes slots for a packet that comes from another guest's pages; nil if it has to wait, or to come by
  /// ``receive(_:host:)`` for another reason.
  public mutating func reserve(_ packet: NetDirectPacket) -> RxReservation? {
    guard !stall.isStalled, backlog.count == 0, let reservation = engine.reserve(packet) else { return nil }
    stall.moved()
    return reservation
  }

  /// Offers what waits, flushes, and decides what to wait for. At most a ring of slots and the packets that
  /// wait are looked at. With `arms` false it asks the frontend for no event: the caller polls with
  /// ``hasWork()``.
  public mutating func run(host: inout Host, arms: Bool = true) -> NetTurn {
    offerBacklog(host: &host)
    // The flush gives memory back; without one the host runs the queue when there is some.
    let mayFindMemory = lacksMemory && engine.hasUnflushed
    if case .broken(let fault) = engine.flush(host: &host) {
      drain(.brokenRing, host: &host)
      return .broken(fault)
    }
    let posted = stall.awaitedSlotCount > 0 ? engine.postedSlotCount() : 0
    switch stall.judge(postedSlotCount: posted, now: host.now) {
    case .none, .carrierOn: break
    case .drain: drain(.expired, host: &host)
    case .carrierOff: drain(.stalled, host: &host)
    }
    if mayFindMemory && backlog.count > 0 { return .more }
    guard stall.awaitedSlotCount > 0, arms, !stall.pollsForSlots else {
      // Slots that came since the offer bring no event.
      return backlog.count > 0 && engine.hasWork() ? .more : .idle
    }
    let turn = engine.arm(forSlots: stall.awaitedSlotCount, host: &host)
    if case .broken = turn { drain(.brokenRing, host: &host) }
    return turn
  }

  /// Whether a turn would get further, for a thread that polls.
  public mutating func hasWork() -> Bool {
    if stall.isStalled { return engine.postedSlotCount() >= stall.awaitedSlotCount }
    return engine.hasUnflushed || backlog.count > 0 && engine.hasWork()
  }

  /// Takes no more packets, and drops those that wait; a last ``run(host:arms:)`` lets the frontend see those
  /// that were taken.
  public mutating func beginClosing(host: inout Host) {
    engine.beginClosing()
    drain(.closing, host: &host)
  }

  // MARK: The line

  private mutating func offerBacklog(host: inout Host) {
    lacksMemory = false
    while let packet = backlog.first {
      var progress = nextSegment
      let isGone = offer(packet, from: nextSegment, progress: &progress, host: &host)
      nextSegment = progress
      guard isGone else { return }
      nextSegment = 0
      _ = backlog.removeFirst()
    }
    stall.emptied()
  }

  /// Offers a packet; false if it has to wait, from segment `progress` on.
  private mutating func offer(
    _ packet: NetPacket, from segment: Int, progress: inout Int, host: inout Host
  ) -> Bool {
    switch engine.deliver(packet, nextSegment: segment, host: &host) {
    case .taken:
      stall.moved()
      return true
    case .dropped:
      return true
    case .noRoom(let needed, let next):
      if next > segment { stall.moved() }
      progress = next
      stall.lacksSlots(needed, now: host.now)
    case .noMemory(let next):
      if next > segment { stall.moved() }
      progress = next
      stall.waits(now: host.now)
      lacksMemory = true
    }
    return false
  }

  private mutating func drain(_ reason: RxDropReason, host: inout Host) {
    while let packet = backlog.removeFirst() { engine.drop(packet, as: reason, host: &host) }
    nextSegment = 0
    stall.emptied()
  }
}
