public import Blkback
public import RingKit

/// One block queue with the real engine, a guest's end of its ring, and the simulated world around both.
///
/// The engine runs only when it may count on being run: after an event that the ring's rules demand, after
/// completions, or when it asked for it. A lost wake-up therefore shows as a world that stands still.
public final class BlockWorld {
  /// What a world is made of.
  public struct Setup: Sendable {
    /// Names the run.
    public var seed: UInt64 = 1
    /// The frontend's layout.
    public var abi = BlockABI.x86_64
    /// What the disk offers; its size is the disk's.
    public var limits: BlockLimits
    /// True to negotiate persistent grants.
    public var usesPersistentGrants = false
    /// 4 KiB pages of the ring.
    public var ringPageCount = 1
    /// Where the ring's counters begin; by default just before they wrap.
    public var firstIndex: UInt32 = 0xFFFF_FFF0
    /// What the medium demands.
    public var medium = MediumGeometry(blockByteCount: 512, memoryAlignment: 1)
    /// How the medium takes discards.
    public var discardSupport: DiscardSupport?
    /// Bytes of buffers the guest may hold.
    public var bufferByteCount = 4 << 20
    /// Pages of guest memory.
    public var guestPageCount = 512

    /// A world whose disk has `limits`.
    public init(limits: BlockLimits) { self.limits = limits }
  }

  /// The world below the engine.
  public private(set) var host: SimulatedBlockHost
  /// The guest.
  public let guest: SimulatedGuest
  /// The disk.
  public let disk: SimulatedDisk
  /// The ring's pages, for a guest that breaks its rules.
  public let ringPages: MappedPages
  /// The frontend's layout.
  public let abi: BlockABI
  /// What the seed decides.
  public var numbers: SeededNumbers
  /// How the engine's last turn ended.
  public private(set) var lastTurn = EngineTurn.idle
  /// Times the engine ran.
  public private(set) var turnCount = 0

  private let usesPersistentGrants: Bool
  private let firstIndex: UInt32
  private var engine: BlockQueueEngine<SimulatedBlockHost>
  private var front: FrontRing
  private var isKicked = false
  private var hasCompletions = false
  private var seenNotifyCount = 0
  /// The frontend went to sleep and is owed an event for the next response.
  private var isAsleep = false

  /// Builds the world. Throws what could not be allocated.
  /// With `shared` it is one queue of several on a disk.
  public init(_ setup: Setup, sharing shared: SharedDisk? = nil) throws {
    let diskByteCount = max(4096, (Int(setup.limits.sectorCount) * 512 + 4095) / 4096 * 4096)
    guest = try SimulatedGuest(pageCount: setup.guestPageCount)
    disk = try shared?.disk ?? SimulatedDisk(byteCount: diskByteCount)
    ringPages = try MappedPages.anonymous(pageCount: setup.ringPageCount)
    ringPages.setBytes([UInt8](repeating: 0xA5, count: ringPages.byteCount), at: 0)
    abi = setup.abi
    usesPersistentGrants = setup.usesPersistentGrants
    firstIndex = setup.firstIndex
    numbers = SeededNumbers(seed: setup.seed)
    front = FrontRing(
      pages: ringPages, slotByteCount: setup.abi.requestByteCount, startingAt: setup.firstIndex)
    let back = try BackRing(attaching: ringPages, slotByteCount: setup.abi.requestByteCount)
    let segments = max(maximumDirectSegments, setup.limits.maximumIndirectSegments)
    host = try SimulatedBlockHost(
      seed: setup.seed ^ 0xD15C, guest: guest, disk: disk, medium: setup.medium,
      vectorCapacity: BlockQueueEngine<SimulatedBlockHost>.vectorCapacity(
        slots: back.slotCount, segments: segments),
      bufferByteCount: setup.bufferByteCount, sharing: shared)
    host.discardSupport = setup.discardSupport
    engine = try BlockQueueEngine(
      ring: back, abi: setup.abi, domain: guest.domain, usesPersistentGrants: setup.usesPersistentGrants,
      validator: RequestValidator(limits: setup.limits))
  }

  /// What the engine counted.
  public var counters: BlockCounters { engine.counters }
  /// Requests taken and not answered.
  public var inFlightCount: Int { engine.inFlightCount }
  /// True when nothing that was taken still moves.
  public var isDrained: Bool { engine.isDrained }
  /// Flushes that are not answered while the connection lasts.
  public var heldCount: Int { engine.heldCount }
  /// Requests taken.
  public var takenCount: UInt64 { engine.takenCount }
  /// True when the engine waits for memory that others hold.
  public var isStarved: Bool { engine.isStarved }
  /// Slots of the ring.
  public var slotCount: Int { front.slotCount }
  /// Slots free for requests.
  public var freeSlotCount: Int { front.freeSlotCount }

  /// Replaces the limits, as a resize does.
  public func setLimits(_ limits: BlockLimits) { engine.validator = RequestValidator(limits: limits) }

  // MARK: The guest's moves

  /// Puts a request into the ring without telling; there must be a free slot.
  public func place(_ slot: SlotCopy) { front.place(slot) }

  /// Lets the backend see what was placed, and sends an event if its rules demand one.
  public func push() { if front.push() { isKicked = true } }

  /// Sends an event nobody asked for.
  public func kick() { isKicked = true }

  /// Takes the responses there are, if the frontend is awake: it sleeps once it found none, until an event.
  public func takeResponses() throws(RingError) -> [BlockResponse] {
    if isAsleep && host.notifyCount == seenNotifyCount { return [] }
    isAsleep = false
    seenNotifyCount = host.notifyCount
    var responses: [BlockResponse] = []
    repeat {
      var slot = SlotCopy()
      _ = try front.refreshResponses()
      while front.takeResponse(into: &slot, byteCount: abi.responseByteCount) {
        responses.append(BlockResponse(slot))
      }
    } while try front.finalCheckResponses()
    isAsleep = true
    return responses
  }

  // MARK: The backend's moves

  /// Stops taking requests for a while.
  public func pause() { engine.pause() }

  /// Goes on taking them.
  public func resume() {
    engine.resume()
    // Control work runs the queue once more.
    isKicked = true
  }

  /// A polling thread's look at the ring.
  public func hasWork() -> Bool { engine.hasWork() }

  /// A turn that does not ask for an event.
  public func runUnarmed() {
    lastTurn = engine.run(host: &host, arms: false)
    turnCount += 1
  }

  /// Stops taking requests for good.
  public func beginClosing() {
    engine.beginClosing()
    // Control work runs the queue once more.
    isKicked = true
  }

  /// Ends up to `count` storage calls; returns how many ended.
  @discardableResult
  public func complete(upTo count: Int) -> Int {
    var ended = 0
    while ended < count, let (token, result) = host.completeOne() {
      engine.complete(token: token, result: result, host: &host)
      hasCompletions = true
      ended += 1
    }
    return ended
  }

  /// Connects anew, with an empty ring and a new engine, as after a reboot of the guest. Nothing may be in
  /// flight.
  public func reconnect() throws {
    precondition(engine.inFlightCount == 0 && host.pendingCount == 0)
    front = FrontRing(pages: ringPages, slotByteCount: abi.requestByteCount, startingAt: firstIndex)
    let back = try BackRing(attaching: ringPages, slotByteCount: abi.requestByteCount)
    engine = try BlockQueueEngine(
      ring: back, abi: abi, domain: guest.domain, usesPersistentGrants: usesPersistentGrants,
      validator: engine.validator)
    (isKicked, hasCompletions, isAsleep, lastTurn) = (false, false, false, .idle)
  }

  /// Delivers a completion that storage never made.
  public func deliverForged(token: UInt32, result: Int32) {
    engine.complete(token: token, result: result, host: &host)
    hasCompletions = true
  }

  /// True when the engine is owed a turn.
  public var isDue: Bool {
    isKicked || hasCompletions || host.wakeNote.isThere || lastTurn == .more
      || (engine.isStarved && host.wasRefusedByNeighbour)
  }

  /// Gives the engine a turn if it is owed one.
  @discardableResult
  public func runIfDue() -> Bool {
    guard isDue else { return false }
    isKicked = false
    hasCompletions = false
    host.wakeNote.take()
    lastTurn = engine.run(host: &host)
    turnCount += 1
    return true
  }

  /// Goes on until nothing moves by itself: every request taken is answered, or something stands still for
  /// ever. Returns what stands still, nil if nothing does.
  public func settle() -> String? {
    for _ in 0..<100_000 {
      let moved = runIfDue()
      if complete(upTo: Int.random(in: 1...4, using: &numbers)) == 0 && !moved {
        return engine.isDrained ? nil : "\(engine.inFlightCount) requests stand still"
      }
    }
    return "no end in sight"
  }

  /// What must hold whenever nothing is in flight, as sentences about what does not.
  public var leftovers: [String] {
    var found = host.violations
    if host.liveBufferCount != 0 { found.append("\(host.liveBufferCount) buffers not released") }
    if host.livePinCount != 0 { found.append("\(host.livePinCount) pages still pinned") }
    if host.lockCount != 0 { found.append("\(host.lockCount) blocks still locked") }
    if host.pendingCount != 0 { found.append("\(host.pendingCount) I/Os pending") }
    return found
  }
}
