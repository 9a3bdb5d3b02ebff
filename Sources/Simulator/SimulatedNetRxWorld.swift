public import Netback
public import RingKit

/// A receive queue, its guest and its link in one deterministic place. The queue runs only when an event, a
/// packet or a deadline calls for it, as on a data thread.
public final class SimulatedNetRxWorld {
  /// The choices of a world.
  public struct Setup: Sendable {
    /// Seed of the faults.
    public var seed: UInt64 = 1
    /// Where the ring's counters start.
    public var index: UInt32 = 0xFFFF_FFF0
    /// What the frontend takes.
    public var accepted: NetOffloads = [.checksumIPv4, .checksumIPv6, .scatterGather]
    /// Bytes before the data.
    public var headroom = 0
    /// Whether it is told hashes.
    public var tellsHashes = false
    /// Whether it wrote feature-rx-notify.
    public var sendsEvents = true
    /// Bytes of buffers that the queue may hold.
    public var bufferByteCount = 4 << 20
    /// Packets that may wait.
    public var backlogCapacity = 64
    /// Bytes that may wait.
    public var backlogByteLimit = RxBacklog.defaultByteLimit

    /// The usual ones.
    public init() {}
  }

  /// The queue's world.
  public var host: SimulatedNetRxHost
  /// The frontend.
  public let frontend: SimulatedNetRxFrontend
  /// The ring's page, for a frontend that breaks the rules.
  public let ringPages: MappedPages
  /// The queue.
  public var line: NetRxLine<SimulatedNetRxHost>
  /// What its frontend wants.
  public private(set) var configuration: NetRxConfiguration
  /// True when an event came that no turn has followed.
  public private(set) var isKicked = false
  /// Events that the frontend sent.
  public private(set) var kickCount = 0
  /// Turns.
  public private(set) var turnCount = 0
  /// How the last turn ended.
  public private(set) var lastTurn = NetTurn.idle
  /// Packets that the link brought.
  public private(set) var broughtCount: UInt64 = 0

  /// Builds it, connected and with nothing posted.
  public init(_ setup: Setup = Setup()) throws {
    let guest = try SimulatedGuest(pageCount: NetLimits.ringSlotCount)
    ringPages = try MappedPages.anonymous(pageCount: 1)
    frontend = SimulatedNetRxFrontend(guest: guest, pages: ringPages, startingAt: setup.index)
    frontend.accepted = setup.accepted
    frontend.wantsHashes = setup.tellsHashes
    host = try SimulatedNetRxHost(
      seed: setup.seed, guest: guest, bufferByteCount: setup.bufferByteCount)
    configuration = NetRxConfiguration(
      accepted: setup.accepted, headroom: setup.headroom, tellsHashes: setup.tellsHashes)
    let ring = try BackRing(attaching: ringPages, slotByteCount: NetRxRequest.byteCount)
    line = NetRxLine(
      engine: NetRxEngine(ring: ring, domain: guest.domain, configuration: configuration),
      backlog: RxBacklog(capacity: setup.backlogCapacity, byteLimit: setup.backlogByteLimit),
      sendsEvents: setup.sendsEvents)
  }

  /// What the receive direction has done.
  public var counters: NetRxCounters { line.engine.counters }

  /// Whether the link's carrier is to be off.
  public var isStalled: Bool { line.isStalled }
  /// Packets that wait.
  public var waitingCount: Int { line.backlog.count }
  /// Bytes of the buffers that they hold.
  public var waitingByteCount: Int { line.backlog.byteCount }

  /// Changes what the frontend wants.
  public func reconfigure(_ configuration: NetRxConfiguration) {
    self.configuration = configuration
    line.engine.configuration = configuration
  }

  /// Posts pages and shows them, with an event if it is due.
  public func post(_ count: Int, _ kind: SimulatedNetRxFrontend.Page = .granted) {
    frontend.post(count, kind)
    push()
  }

  /// Shows what was posted.
  public func push() {
    if frontend.push() { kick() }
  }

  /// Sends an event, due or not.
  public func kick() {
    kickCount += 1
    isKicked = true
  }

  /// A packet comes from the link; false when there was no buffer for it.
  @discardableResult
  public func bring(
    _ bytes: [UInt8], offload: PacketOffload = PacketOffload(), start: Int = NetPacket.headroomByteCount
  ) -> Bool {
    guard let packet = host.packet(bytes, offload: offload, start: start) else { return false }
    broughtCount += 1
    line.receive(packet, host: &host)
    return true
  }

  /// Whether a thread that polls would make a turn.
  public func hasWork() -> Bool { line.hasWork() }

  /// One turn.
  @discardableResult
  public func run(arms: Bool = true) -> NetTurn {
    isKicked = false
    turnCount += 1
    lastTurn = line.run(host: &host, arms: arms)
    return lastTurn
  }

  /// Turns for as long as there is a cause: an event, or a turn that wants another one. False
  /// if that goes on for longer than it may.
  @discardableResult
  public func settle() -> Bool {
    var turns = 0
    while isKicked || lastTurn == .more {
      run()
      turns += 1
      if turns > 1000 { return false }
      if case .broken = lastTurn { return true }
    }
    return true
  }

  /// Lets time pass in steps, running the queue at its deadlines.
  public func pass(_ nanoseconds: UInt64) {
    let end = host.now + nanoseconds
    while let deadline = line.deadline, deadline <= end {
      host.now = max(deadline, host.now)
      run()
      settle()
    }
    host.now = end
  }
}
