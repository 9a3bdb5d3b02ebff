public import Netback
public import RingKit

/// One control ring with the real engine, a guest's end of the ring, and the simulated world around both.
///
/// The engine runs only when it may count on being run, as in ``BlockWorld``: a lost wake-up or a lost answer
/// shows as a world that stands still.
public final class NetControlWorld {
  /// What a world is made of.
  public struct Setup: Sendable {
    /// Names the run.
    public var seed: UInt64 = 1
    /// Queues of the interface.
    public var queueCount = 4
    /// Pages that each may have staged.
    public var stagingCapacity = 64
    /// Where the ring's counters begin; by default just before they wrap.
    public var firstIndex: UInt32 = 0xFFFF_FFF0
    /// Pages of guest memory.
    public var guestPageCount = 128

    /// The usual one.
    public init() {}
  }

  /// The world below the engine.
  public private(set) var host: SimulatedNetControlHost
  /// The guest.
  public let guest: SimulatedGuest
  /// The ring's page, for a guest that breaks its rules.
  public let ringPages: MappedPages
  /// What the seed decides.
  public var numbers: SeededNumbers
  /// How the engine's last turn ended.
  public private(set) var lastTurn = NetTurn.idle
  /// Turns of the engine.
  public private(set) var turnCount = 0

  private let queueCount: Int
  private var engine: NetControlEngine<SimulatedNetControlHost>?
  private var front: FrontRing
  private var isKicked = false
  private var hasAnswer = false
  private var seenNotifyCount = 0
  private var isAsleep = false

  /// Builds the world. Throws what could not be allocated.
  public init(_ setup: Setup = Setup()) throws {
    guest = try SimulatedGuest(pageCount: setup.guestPageCount)
    ringPages = try MappedPages.anonymous(pageCount: 1)
    ringPages.setBytes([UInt8](repeating: 0xA5, count: ringPages.byteCount), at: 0)
    numbers = SeededNumbers(seed: setup.seed)
    queueCount = setup.queueCount
    front = FrontRing(
      pages: ringPages, slotByteCount: NetControlRequest.byteCount, startingAt: setup.firstIndex)
    let back = try BackRing(attaching: ringPages, slotByteCount: NetControlRequest.byteCount)
    host = try SimulatedNetControlHost(
      seed: setup.seed ^ 0xC7A1, guest: guest, queueCount: setup.queueCount,
      stagingCapacity: setup.stagingCapacity)
    engine = try NetControlEngine(
      ring: back, domain: guest.domain, queueCount: setup.queueCount,
      stagingCapacity: setup.stagingCapacity)
  }

  /// Slots of the ring.
  public var slotCount: Int { front.slotCount }
  /// Slots free for requests.
  public var freeSlotCount: Int { front.freeSlotCount }
  /// Requests taken and not answered.
  public var pendingCount: Int { engine?.pendingCount ?? 0 }
  /// Requests taken.
  public var takenCount: UInt64 { engine?.takenCount ?? 0 }
  /// What the engine has set about hashes.
  public var hash: NetHashState { engine?.hash ?? NetHashState() }
  /// Pages that the engine has told a queue to have.
  public func stagedCount(onQueue queue: Int) -> Int { engine?.stagedCount(onQueue: queue) ?? 0 }

  // MARK: The guest's moves

  /// Puts a request into the ring without telling; there must be a free slot.
  public func place(_ request: NetControlRequest) { front.place(request.encode()) }

  /// Lets the backend see what was placed, and sends an event if its rules demand one.
  public func push() { if front.push() { isKicked = true } }

  /// Sends an event nobody asked for.
  public func kick() { isKicked = true }

  /// Takes the responses there are, if the frontend is awake: it sleeps once it found none, until an event.
  public func takeResponses() throws(RingError) -> [NetControlResponse] {
    if isAsleep && host.notifyCount == seenNotifyCount { return [] }
    isAsleep = false
    seenNotifyCount = host.notifyCount
    var responses: [NetControlResponse] = []
    repeat {
      var slot = SlotCopy()
      _ = try front.refreshResponses()
      while front.takeResponse(into: &slot, byteCount: NetControlResponse.byteCount) {
        responses.append(NetControlResponse(slot))
      }
    } while try front.finalCheckResponses()
    isAsleep = true
    return responses
  }

  // MARK: The backend's moves

  /// True when the engine is owed a turn.
  public var isDue: Bool { isKicked || hasAnswer || lastTurn == .more }

  /// Gives the engine a turn if it is owed one.
  @discardableResult
  public func runIfDue() -> Bool {
    guard isDue, engine != nil else { return false }
    isKicked = false
    hasAnswer = false
    lastTurn = engine?.run(host: &host) ?? .idle
    turnCount += 1
    return true
  }

  /// Delivers the oldest message on its way to a queue; false if there is none.
  @discardableResult
  public func deliver(toQueue queue: Int) -> Bool {
    let before = host.messageCount
    if let token = host.deliver(toQueue: queue) {
      engine?.unstaged(token: token)
      hasAnswer = true
    }
    return host.messageCount != before
  }

  /// Delivers an answer that no queue gave.
  public func deliverForged(token: UInt32) {
    engine?.unstaged(token: token)
    hasAnswer = true
  }

  /// Goes on until nothing moves by itself. Returns what stands still for ever, nil if nothing does.
  public func settle() -> String? {
    for _ in 0..<100_000 {
      let moved = runIfDue()
      let queue = Int.random(in: 0..<queueCount, using: &numbers)
      if !deliver(toQueue: queue) && !moved && host.messageCount == 0 {
        if case .broken = lastTurn { return nil }
        return pendingCount == 0 ? nil : "\(pendingCount) requests stand still"
      }
    }
    return "no end in sight"
  }

  /// Has the engine take no more requests.
  public func beginClosing() { engine?.beginClosing() }

  /// Drops the engine and the queues' tables, as at the end of a connection.
  public func close() {
    engine = nil
    host.dropQueues()
  }
}
