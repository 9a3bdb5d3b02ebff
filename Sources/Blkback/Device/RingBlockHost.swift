public import RingKit

/// The real world of one block queue: a data thread's io_uring, grants, events and buffers, and a store.
public struct RingBlockHost: BlockHost, ~Copyable {
  private let loop: DataLoop<BlockQueue>
  private let key: QueueKey
  private var port: Port?
  private var share: BufferShare
  private var persistent: PersistentGrants
  private var vectors: IOVectorTable
  private var channel: any StoreChannel
  private var health: DiskHealth
  private let limiter: RateLimiter
  private let member: RateLimiter.Member
  /// Writes at work on this queue, where it is the disk's only one.
  private var ranges: BlockRangeTable
  /// Writes at work on all queues, where there are several.
  private let rangeLock: BlockRangeLock?
  private let rangeMember: BlockRangeLock.Member?
  /// When the loop was told to run the queue; past when it has.
  private var wakeTime: UInt64 = 0
  private let statistics: BlockStatistics
  /// What the medium demands.
  public private(set) var medium: MediumGeometry
  /// How the medium takes discards.
  public private(set) var discardSupport: DiscardSupport?

  /// Gathers what a queue needs on the thread that owns it.
  init(
    loop: DataLoop<BlockQueue>, key: QueueKey, share: BufferShare, persistent: consuming PersistentGrants,
    vectorCapacity: Int, channel: any StoreChannel, medium: MediumGeometry,
    discardSupport: DiscardSupport?, health: DiskHealth, limiter: RateLimiter,
    ranges rangeLock: BlockRangeLock?, wake: @escaping @Sendable () -> Void, statistics: BlockStatistics
  ) {
    self.loop = loop
    self.key = key
    self.share = share
    self.persistent = persistent
    vectors = IOVectorTable(capacity: vectorCapacity)
    self.channel = channel
    self.medium = medium
    self.discardSupport = discardSupport
    ranges = BlockRangeTable(capacity: 64)
    self.rangeLock = rangeLock
    rangeMember = rangeLock?.join(wake: wake)
    self.health = health
    self.limiter = limiter
    member = limiter.join()
    self.statistics = statistics
  }

  deinit {
    limiter.leave(member)
    if let rangeMember { rangeLock?.leave(rangeMember) }
  }

  /// Tells the host where the frontend is signalled, before the first turn.
  mutating func adopt(port: Port) { self.port = port }

  /// Goes on with another image's channel, or with one opened anew. Nothing may be in flight.
  mutating func adopt(
    channel: any StoreChannel, medium: MediumGeometry, discardSupport: DiscardSupport?, health: DiskHealth
  ) {
    self.channel.close()
    self.channel = channel
    self.medium = medium
    self.discardSupport = discardSupport
    self.health = health
  }

  /// Tells the store that nothing follows what is under way.
  func beginClosingChannel() { channel.beginClosing() }

  /// Lets go of the store. Nothing is under way, and nothing follows before another channel is adopted.
  mutating func closeChannel() {
    channel.close()
    channel = ClosedChannel()
  }

  /// Delivers the end of an I/O of the store's own.
  func channelCompleted(token: UInt32, result: Int32) { channel.completed(token: token, result: result) }

  /// The next end of a storage call that was no completion of the ring's.
  func nextCompletion() -> StoreCompletion? { channel.nextCompletion() }

  /// Whether ends of storage calls wait to be delivered.
  var hasCompletions: Bool { channel.hasCompletions }

  /// Has the queue run once more at `nanoseconds` of CLOCK_MONOTONIC, or before if it was told so already.
  mutating func runAgain(atNanoseconds nanoseconds: UInt64) {
    if wakeTime > loop.now && wakeTime <= nanoseconds { return }
    wakeTime = nanoseconds
    loop.schedule(key, atNanoseconds: nanoseconds)
  }

  /// Lets go of guest pages that were not used for long: a backend that keeps them hinders ballooning and
  /// migration. At the beginning of every turn.
  mutating func purgeIdlePages() {
    if let due = persistent.purgeIdle(atNanoseconds: loop.now) { runAgain(atNanoseconds: due) }
  }

  /// Pages mapped persistently now.
  var persistentPageCount: Int { persistent.mappedCount }

  /// Pages mapped since the queue connected.
  var mapCount: UInt64 { persistent.missCount - persistent.failureCount }

  /// True once data was lost.
  public var isFenced: Bool { health.lossErrno != 0 }

  /// Whether the disk's limits let another request pass; if not, the queue runs again when they do.
  public mutating func mayTake() -> Bool {
    guard let due = limiter.admits(member, atNanoseconds: loop.now) else { return true }
    runAgain(atNanoseconds: due)
    return false
  }

  /// Counts a request towards the disk's limits.
  public mutating func charge(byteCount: Int) {
    limiter.charge(byteCount: byteCount, atNanoseconds: loop.now)
  }

  /// What the thread's pool and the guest's share of it can give at most.
  public var largestBufferByteCount: Int {
    min(loop.pool.largestRunByteCount, BufferPool.wholeRunByteCount(within: share.limitByteCount))
  }

  /// Private memory from the thread's pool, within the guest's share.
  public mutating func allocateBuffer(byteCount: Int) -> IOBuffer? {
    if let buffer = loop.pool.allocate(byteCount: byteCount, share: &share) { return buffer }
    // Another queue's request may have to end first.
    loop.waitForBuffers(key)
    return nil
  }

  /// Gives memory back to the pool.
  public mutating func releaseBuffer(_ buffer: IOBuffer) {
    loop.pool.release(buffer, share: &share)
    loop.buffersReleased()
  }

  /// A word of private memory.
  public func word(at index: Int, in buffer: IOBuffer) -> UInt64 { loop.pool.word(at: index, in: buffer) }

  /// Keeps other writes of the disk off blocks.
  public mutating func lockBlocks(token: UInt32, first: UInt64, end: UInt64, isExclusive: Bool) -> Bool {
    guard let rangeLock, let rangeMember else {
      return ranges.lock(key: UInt64(token), first: first, end: end, isExclusive: isExclusive)
    }
    return rangeLock.lock(rangeMember, token: token, first: first, end: end, isExclusive: isExclusive)
  }

  /// Lets go of them.
  public mutating func unlockBlocks(token: UInt32) {
    guard let rangeLock, let rangeMember else {
      ranges.unlock(key: UInt64(token))
      return
    }
    rangeLock.unlock(rangeMember, token: token)
  }

  /// Pins a persistently mapped page.
  public mutating func pin(_ reference: GrantReference) -> PinnedPage? {
    guard let page = persistent.page(for: reference, using: loop.grants) else { return nil }
    return PinnedPage(handle: page.handle, segment: page.segment)
  }

  /// Unpins it.
  public mutating func unpin(_ handle: UInt32) { persistent.unpin(handle) }

  /// Does grant copies.
  public mutating func copy(_ batch: inout GrantCopyBatch) { loop.grants.copy(&batch) }

  /// Copies bytes of a pinned page to private memory.
  public mutating func copy(from page: IOSegment, to memory: IOSegment) {
    loop.pool.copy(from: page, to: memory)
  }

  /// Sets a transfer vector.
  public mutating func setVector(_ segment: IOSegment, at index: Int) { vectors[index] = segment }

  /// Reads a transfer vector.
  public func vector(at index: Int) -> IOSegment { vectors[index] }

  /// Begins a read.
  public mutating func read(token: UInt32, firstVector: Int, vectorCount: Int, offset: UInt64) {
    channel.read(token: token, into: vectors, first: firstVector, count: vectorCount, offset: offset)
  }

  /// Begins a write.
  public mutating func write(token: UInt32, firstVector: Int, vectorCount: Int, offset: UInt64) {
    channel.write(token: token, from: vectors, first: firstVector, count: vectorCount, offset: offset)
  }

  /// Begins a flush.
  public mutating func flush(token: UInt32) { channel.flush(token: token) }

  /// Begins giving a range back.
  public mutating func discard(token: UInt32, offset: UInt64, byteCount: UInt64, isSecure: Bool) {
    channel.discard(token: token, offset: offset, byteCount: byteCount, isSecure: isSecure)
  }

  /// Latches the loss of data.
  public mutating func fence(errno: Int32) { health.latch(errno: errno) }

  /// The loop's clock: it stands still during a turn.
  public var now: UInt64 { loop.now }

  /// Takes note of how a request ended.
  public mutating func note(_ outcome: BlockOutcome) { statistics.note(outcome) }

  /// Signals the frontend.
  public mutating func notify() {
    guard let port else { return }
    do throws(EventChannelError) {
      try loop.events.notify(port)
    } catch {
      // The frontend's end is gone: its state in xenstore ends the connection.
    }
  }
}
