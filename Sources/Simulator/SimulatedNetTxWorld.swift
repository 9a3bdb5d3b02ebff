public import Netback
public import RingKit

/// The transmit direction of one network queue: the real engine, a guest's end of its ring, and the simulated
/// world around both.
///
/// The engine runs only when it may count on being run: after an event that the ring's rules demand, when
/// the host has what it waited for, or when it asked for it. A lost wake-up therefore shows as a world that
/// stands still.
public final class SimulatedNetTxWorld {
  /// What a world is made of.
  public struct Setup: Sendable {
    /// Names the run.
    public var seed: UInt64 = 1
    /// Where the ring's counters begin; by default just before they wrap.
    public var firstIndex: UInt32 = 0xFFFF_FFF0
    /// The engine's limits.
    public var limits = NetTxLimits()
    /// Bytes of buffers the guest may hold.
    public var bufferByteCount = 4 << 20
    /// Pages of guest memory.
    public var guestPageCount = 64

    /// A world with plenty of everything.
    public init() {}
  }

  /// The world below the engine.
  public private(set) var host: SimulatedNetTxHost
  /// The guest.
  public let guest: SimulatedGuest
  /// The ring's page, for a guest that breaks its rules.
  public let ringPages: MappedPages
  /// What the seed decides.
  public var numbers: SeededNumbers
  /// How the engine's last turn ended.
  public private(set) var lastTurn = NetTurn.idle
  /// Times the engine ran.
  public private(set) var turnCount = 0
  /// What the frontend expects of the backend and did not get, as sentences.
  public private(set) var complaints: [String] = []

  private var engine: NetTxEngine<SimulatedNetTxHost>
  private var front: FrontRing
  private let limits: NetTxLimits
  private var isKicked = false
  private var seenNotifyCount = 0
  /// The frontend went to sleep and is owed an event for the next response.
  private var isAsleep = false

  /// Builds the world. Throws what could not be allocated.
  public init(_ setup: Setup = Setup()) throws {
    guest = try SimulatedGuest(pageCount: setup.guestPageCount)
    ringPages = try MappedPages.anonymous(pageCount: 1)
    ringPages.setBytes([UInt8](repeating: 0xA5, count: ringPages.byteCount), at: 0)
    numbers = SeededNumbers(seed: setup.seed)
    limits = setup.limits
    front = FrontRing(
      pages: ringPages, slotByteCount: NetTxRequest.byteCount, startingAt: setup.firstIndex)
    host = try SimulatedNetTxHost(
      seed: setup.seed ^ 0x7A9, guest: guest, bufferByteCount: setup.bufferByteCount)
    engine = try NetTxEngine(
      ring: BackRing(attaching: ringPages, slotByteCount: NetTxRequest.byteCount), domain: guest.domain,
      limits: setup.limits)
  }

  /// What the engine counted.
  public var counters: NetTxCounters { engine.counters }
  /// True when nothing that was taken awaits its answer.
  public var isDrained: Bool { engine.isDrained }
  /// True when a packet waits for credit or a buffer.
  public var isWaiting: Bool { engine.isWaiting }
  /// Slots free for requests.
  public var freeSlotCount: Int { front.freeSlotCount }
  /// Requests that are not answered.
  public var outstanding: Int { front.outstanding }

  // MARK: The guest's moves

  /// Puts a slot into the ring without telling; there must be a free one.
  public func place(_ slot: SlotCopy) { front.place(slot) }

  /// Lets the backend see what was placed, and sends an event if its rules demand one.
  public func push() { if front.push() { isKicked = true } }

  /// Sends an event nobody asked for.
  public func kick() { isKicked = true }

  /// Takes the responses there are, if the frontend is awake: it sleeps once it found none, until an event.
  public func takeResponses() throws(RingError) -> [NetTxResponse] {
    if isAsleep && host.notifyCount == seenNotifyCount { return [] }
    isAsleep = false
    seenNotifyCount = host.notifyCount
    var responses: [NetTxResponse] = []
    repeat {
      var slot = SlotCopy()
      _ = try front.refreshResponses()
      while front.takeResponse(into: &slot, byteCount: NetTxResponse.byteCount) {
        responses.append(NetTxResponse(slot))
      }
    } while try front.finalCheckResponses()
    isAsleep = true
    return responses
  }

  // MARK: The backend's moves

  /// A polling thread's look at the ring.
  public func hasWork() -> Bool { engine.hasWork() }

  /// Takes nothing more for good.
  public func beginClosing() { engine.beginClosing() }

  /// The backend's process ends, and another one attaches to the ring at `rsp_prod`. The link has sent what it
  /// was given.
  public func restartBackend() throws {
    host.sendHeld(upTo: .max)
    engine = try NetTxEngine(
      ring: BackRing(attaching: ringPages, slotByteCount: NetTxRequest.byteCount), domain: guest.domain,
      limits: limits)
    lastTurn = .idle
    // Binding the port again sets it pending.
    isKicked = true
  }

  /// The frontend connects anew with an empty ring whose counters stand at `index`, to a new engine.
  public func reconnect(at index: UInt32) throws {
    front = FrontRing(pages: ringPages, slotByteCount: NetTxRequest.byteCount, startingAt: index)
    try restartBackend()
    isAsleep = false
  }

  /// True when the engine is owed a turn.
  public var isDue: Bool {
    isKicked || lastTurn == .more || (engine.isWaiting && (host.owesBuffer || host.credit ?? 1 > 0))
  }

  /// Gives the engine a turn whether it is owed one or not.
  public func run(arms: Bool = true) {
    isKicked = false
    host.takeDebt()
    let taken = (packets: engine.counters.packets, batches: host.batches.count)
    lastTurn = engine.run(host: &host, arms: arms)
    turnCount += 1
    if engine.counters.packets - taken.packets > UInt64(limits.packetCount) {
      complaints.append("one turn handed on \(engine.counters.packets - taken.packets) packets")
    }
    if host.batches.count - taken.batches > 1 { complaints.append("one turn made several batches") }
  }

  /// Gives the engine a turn if it is owed one.
  @discardableResult
  public func runIfDue() -> Bool {
    guard isDue else { return false }
    run()
    return true
  }

  /// Goes on until nothing moves by itself: all that was published is answered, or something stands still for
  /// ever. Returns what stands still, nil if nothing does. Needs unbounded credit.
  public func settle() -> String? {
    for _ in 0..<10_000 {
      let moved = runIfDue()
      let held = host.heldCount
      host.sendHeld(upTo: Int.random(in: 1...4, using: &numbers))
      if held == 0 && !moved { return engine.isDrained ? nil : "a packet stands still" }
    }
    return "no end in sight"
  }

  /// What must hold whenever nothing is under way, as sentences about what does not.
  public var leftovers: [String] {
    var found = host.violations + complaints
    if host.liveBufferCount != host.heldCount {
      found.append("\(host.liveBufferCount - host.heldCount) buffers not released")
    }
    return found
  }
}
