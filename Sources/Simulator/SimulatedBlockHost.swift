public import Blkback
public import RingKit

/// The world below a block queue, in one thread and without a clock: storage calls end when the driver says
/// so, in an order and with faults that the seed decides.
///
/// It also watches the engine: whatever an engine must never do is written to ``violations``.
public final class SimulatedBlockHost: BlockHost {
  /// What the medium demands.
  public let medium: MediumGeometry
  /// How the medium takes discards.
  public var discardSupport: DiscardSupport?
  /// Requests that may still be taken; nil for any number.
  public var takeBudget: Int?
  /// Bytes charged so far.
  public private(set) var chargedByteCount = 0
  /// Requests charged so far.
  public private(set) var chargeCount = 0
  /// True once data was lost, or when a test says so.
  public var isFenced: Bool {
    get { isFencedHere || shared?.fenceErrno != nil }
    set { isFencedHere = newValue }
  }
  /// The errno of the first loss.
  public internal(set) var fenceErrno: Int32?
  /// How often things fail.
  public var faults = FaultPlan()
  /// What the engine did that it must not do.
  public internal(set) var violations: [String] = []
  /// Events sent to the frontend.
  public internal(set) var notifyCount = 0
  /// Flushes begun.
  public internal(set) var flushCount = 0
  /// Every write begun: where, and how many barriers had been answered by then. A test empties it.
  public var writesBegun: [(bytes: Range<UInt64>, barriersBefore: Int)] = []
  /// Every discard begun, in bytes. A test empties it.
  public var discardsBegun: [Range<UInt64>] = []
  /// Pieces begun of secure discards.
  public internal(set) var secureDiscardCount = 0
  /// How requests ended that were answered. A test empties it.
  public var outcomes: [BlockOutcome] = []
  /// Barriers answered, whatever the answer.
  public internal(set) var barrierCount = 0
  /// Called after each read of a guest's page by copy, with its number: a guest may change it just then.
  public var onGuestRead: ((Int) -> Void)?
  /// The errno with which discards fail, if they do; else the faults decide.
  public var discardErrno: Int32?
  /// Storage calls ended so far, in nanoseconds: all the time there is.
  public internal(set) var now: UInt64 = 1
  /// Buffers given back so far.
  public private(set) var releaseCount = 0
  /// True if the last buffer was refused because of a neighbour, who will release some.
  public private(set) var wasRefusedByNeighbour = false
  /// The disk.
  public let disk: SimulatedDisk
  /// The guest whose pages are moved.
  public let guest: SimulatedGuest

  enum Kind { case read, write, flush, discard }

  struct Operation {
    var kind: Kind
    var token: UInt32
    var vectors = 0..<0
    var offset: UInt64 = 0
    var keeps: Set<Int> = []
    var byteCount: UInt64 = 0
  }

  struct Mapping {
    var reference: GrantReference
    var page: Int
    var pinCount: Int
  }

  var numbers: SeededNumbers
  let pool: BufferPool
  var share: BufferShare
  private let poison: MappedPages
  var liveBuffers: [UInt: UInt] = [:]
  private var mappings: [Mapping] = []
  var pinCounts: [Int]
  var vectors: [IOSegment]
  var operations: [Operation] = []
  private var isFencedHere = false
  private var ranges = BlockRangeTable(capacity: 32)
  /// What it has in common with the disk's other queues, if it has any.
  let shared: SharedDisk?
  /// Left when blocks that it waited for are free.
  let wakeNote = WakeNote()
  private let member: BlockRangeLock.Member?
  private var sharedLockCount = 0

  /// The byte that fills every buffer when it is taken, so that old contents show where they come out.
  public static let poisonByte: UInt8 = 0xA5

  /// A world around `guest` and `disk` in which the guest may hold `bufferByteCount` bytes of buffers.
  public init(
    seed: UInt64, guest: SimulatedGuest, disk: SimulatedDisk, medium: MediumGeometry, vectorCapacity: Int,
    bufferByteCount: Int, sharing shared: SharedDisk? = nil
  ) throws(SystemError) {
    self.guest = guest
    self.shared = shared
    member = shared?.ranges.join { [wakeNote] in wakeNote.leave() }
    self.disk = disk
    self.medium = medium
    numbers = SeededNumbers(seed: seed)
    pinCounts = [Int](repeating: 0, count: guest.memory.pageCount)
    pool = try BufferPool(byteCount: max(bufferByteCount, 1 << 20))
    share = BufferShare(limitByteCount: bufferByteCount)
    poison = try MappedPages.anonymous(pageCount: 1)
    poison.setBytes([UInt8](repeating: Self.poisonByte, count: pageByteCount), at: 0)
    vectors = [IOSegment](repeating: IOSegment(address: 0, length: 0), count: vectorCapacity)
  }

  /// Storage calls begun and not ended.
  public var pendingCount: Int { operations.count }
  /// Buffers in use.
  public var liveBufferCount: Int { liveBuffers.count }
  /// Uses of mapped pages that did not end.
  public var livePinCount: Int { mappings.reduce(0) { $0 + $1.pinCount } }

  // MARK: Rates and locks

  /// Whether the budget that a test set lets another request through.
  public func mayTake() -> Bool {
    guard let takeBudget else { return true }
    self.takeBudget = max(0, takeBudget - 1)
    return takeBudget > 0
  }

  /// Counts what is charged.
  public func charge(byteCount: Int) {
    chargeCount += 1
    chargedByteCount += byteCount
  }

  /// Keeps other writes off blocks.
  public func lockBlocks(token: UInt32, first: UInt64, end: UInt64, isExclusive: Bool) -> Bool {
    guard let shared, let member else {
      return ranges.lock(key: UInt64(token), first: first, end: end, isExclusive: isExclusive)
    }
    let took = shared.ranges.lock(member, token: token, first: first, end: end, isExclusive: isExclusive)
    if took { sharedLockCount += 1 }
    return took
  }

  /// Lets go of them.
  public func unlockBlocks(token: UInt32) {
    guard let shared, let member else {
      ranges.unlock(key: UInt64(token))
      return
    }
    sharedLockCount -= 1
    shared.ranges.unlock(member, token: token)
  }

  /// Writes that hold blocks.
  public var lockCount: Int { shared == nil ? ranges.count : sharedLockCount }

  // MARK: Memory

  /// What the pool and the guest's share can give at most.
  public var largestBufferByteCount: Int {
    min(pool.largestRunByteCount, BufferPool.wholeRunByteCount(within: share.limitByteCount))
  }

  /// A word of private memory.
  public func word(at index: Int, in buffer: IOBuffer) -> UInt64 {
    if !isLive(buffer.segment) { violate("looked at memory that is in no buffer") }
    return pool.word(at: index, in: buffer)
  }

  /// Copies bytes of a pinned page to private memory.
  public func copy(from page: IOSegment, to memory: IOSegment) {
    if !isLive(page) { violate("copy from a page that is not pinned") }
    if !isLive(memory) { violate("copy to memory that is in no buffer") }
    pool.copy(from: page, to: memory)
    if let number = guest.page(at: page.address) { onGuestRead?(number) }
  }

  /// A buffer full of poison.
  public func allocateBuffer(byteCount: Int) -> IOBuffer? {
    wasRefusedByNeighbour = happens(faults.allocationFailure)
    guard !wasRefusedByNeighbour, let buffer = pool.allocate(byteCount: byteCount, share: &share) else {
      return nil
    }
    var offset: UInt = 0
    while offset < buffer.segment.length {
      pool.copy(
        from: poison.segment(offset: 0, length: pageByteCount),
        to: buffer.segment.slice(offset: offset, count: UInt(pageByteCount)))
      offset += UInt(pageByteCount)
    }
    liveBuffers[buffer.segment.address] = buffer.segment.length
    return buffer
  }

  /// Takes a buffer back; one that storage still uses is a violation.
  public func releaseBuffer(_ buffer: IOBuffer) {
    for operation in operations where uses(operation, buffer.segment) {
      violate("buffer released under the I/O of token \(operation.token)")
    }
    liveBuffers[buffer.segment.address] = nil
    releaseCount += 1
    pool.release(buffer, share: &share)
  }

  /// Pins a granted page.
  public func pin(_ reference: GrantReference) -> PinnedPage? {
    var index = mappings.firstIndex { $0.reference == reference }
    if index == nil {
      // A persistent mapping is always writable (blkif.h, note 8), so a read-only grant cannot be mapped.
      guard !happens(faults.pinFailure), let page = guest.page(of: reference, forWriting: true)
      else { return nil }
      index = mappings.count
      mappings.append(Mapping(reference: reference, page: page, pinCount: 0))
    }
    guard let index else { return nil }
    mappings[index].pinCount += 1
    pinCounts[mappings[index].page] += 1
    return PinnedPage(handle: UInt32(index), segment: guest.segment(ofPage: mappings[index].page))
  }

  /// Unpins it; a page that storage still uses is a violation.
  public func unpin(_ handle: UInt32) {
    let index = Int(handle)
    guard index < mappings.count, mappings[index].pinCount > 0
    else { return violate("unpinned \(handle) twice") }
    mappings[index].pinCount -= 1
    pinCounts[mappings[index].page] -= 1
    guard pinCounts[mappings[index].page] == 0 else { return }
    let page = guest.segment(ofPage: mappings[index].page)
    for operation in operations where uses(operation, page) {
      violate("page unpinned under the I/O of token \(operation.token)")
    }
  }

  /// Copies between private buffers and granted pages, as the hypervisor would.
  public func copy(_ batch: inout GrantCopyBatch) {
    for index in 0..<batch.count {
      let segment = batch[index]
      if segment.domain != guest.domain { violate("copy with \(segment.domain)") }
      if !isLive(segment.local) { violate("copy with memory that is in no buffer") }
      guard let page = guest.page(of: segment.reference, forWriting: segment.toGuest) else {
        batch.setStatus(-3, at: index)
        continue
      }
      guard !happens(faults.copyFailure) else {
        batch.setStatus(-12, at: index)
        continue
      }
      let remote = guest.segment(ofPage: page).slice(
        offset: UInt(segment.pageOffset), count: segment.local.length)
      pool.copy(
        from: segment.toGuest ? segment.local : remote, to: segment.toGuest ? remote : segment.local)
      batch.setStatus(0, at: index)
      if !segment.toGuest { onGuestRead?(page) }
    }
  }
}
