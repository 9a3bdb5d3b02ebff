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
  public var isFenced = false
  /// The errno of the first loss.
  public private(set) var fenceErrno: Int32?
  /// How often things fail.
  public var faults = FaultPlan()
  /// What the engine did that it must not do.
  public private(set) var violations: [String] = []
  /// Events sent to the frontend.
  public private(set) var notifyCount = 0
  /// Flushes begun.
  public private(set) var flushCount = 0
  /// Buffers given back so far.
  public private(set) var releaseCount = 0
  /// True if the last buffer was refused because of a neighbour, who will release some.
  public private(set) var wasRefusedByNeighbour = false
  /// The disk.
  public let disk: SimulatedDisk
  /// The guest whose pages are moved.
  public let guest: SimulatedGuest

  enum Kind { case read, write, flush }

  struct Operation {
    var kind: Kind
    var token: UInt32
    var vectors = 0..<0
    var offset: UInt64 = 0
    var keeps: Set<Int> = []
  }

  struct Mapping {
    var reference: GrantReference
    var page: Int
    var pinCount: Int
  }

  private var numbers: SeededNumbers
  private let pool: BufferPool
  private var share: BufferShare
  private let poison: MappedPages
  private var liveBuffers: [UInt: UInt] = [:]
  private var mappings: [Mapping] = []
  private var pinCounts: [Int]
  private var vectors: [IOSegment]
  private var operations: [Operation] = []
  private var ranges = BlockRangeTable(capacity: 32)

  /// The byte that fills every buffer when it is taken, so that old contents show where they come out.
  public static let poisonByte: UInt8 = 0xA5

  /// A world around `guest` and `disk` in which the guest may hold `bufferByteCount` bytes of buffers.
  public init(
    seed: UInt64, guest: SimulatedGuest, disk: SimulatedDisk, medium: MediumGeometry, vectorCapacity: Int,
    bufferByteCount: Int
  ) throws(SystemError) {
    self.guest = guest
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
    ranges.lock(key: UInt64(token), first: first, end: end, isExclusive: isExclusive)
  }

  /// Lets go of them.
  public func unlockBlocks(token: UInt32) { ranges.unlock(key: UInt64(token)) }

  /// Writes that hold blocks.
  public var lockCount: Int { ranges.count }

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
    guard mappings[index].pinCount == 0 else { return }
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
    }
  }

  // MARK: Storage

  /// Sets a transfer vector; one that storage uses must not change.
  public func setVector(_ segment: IOSegment, at index: Int) {
    for operation in operations where operation.vectors.contains(index) {
      violate("vector \(index) changed under the I/O of token \(operation.token)")
    }
    vectors[index] = segment
  }

  /// Reads a transfer vector.
  public func vector(at index: Int) -> IOSegment { vectors[index] }

  /// Begins a read.
  public func read(token: UInt32, firstVector: Int, vectorCount: Int, offset: UInt64) {
    let vectors = firstVector..<firstVector + vectorCount
    begin(Operation(kind: .read, token: token, vectors: vectors, offset: offset))
  }

  /// Begins a write.
  public func write(token: UInt32, firstVector: Int, vectorCount: Int, offset: UInt64) {
    if isFenced { violate("write begun after the loss of data") }
    let vectors = firstVector..<firstVector + vectorCount
    begin(Operation(kind: .write, token: token, vectors: vectors, offset: offset))
  }

  /// Begins a flush.
  public func flush(token: UInt32) {
    if isFenced { violate("flush begun after the loss of data") }
    flushCount += 1
    begin(Operation(kind: .flush, token: token, keeps: disk.beginFlush()))
  }

  /// Begins giving a range back; the simulated medium keeps it as it is.
  public func discard(token: UInt32, offset: UInt64, byteCount: UInt64, isSecure: Bool) {
    begin(Operation(kind: .flush, token: token))
  }

  /// Latches the loss.
  public func fence(errno: Int32) {
    isFenced = true
    if fenceErrno == nil { fenceErrno = errno }
  }

  /// Outcomes told of so far.
  public private(set) var outcomeCount = 0
  /// Storage calls begun so far, which is all the time there is.
  public var now: UInt64 { 0 }

  /// Counts an outcome.
  public func note(_ outcome: BlockOutcome) { outcomeCount += 1 }

  /// Counts an event.
  public func notify() { notifyCount += 1 }

  /// Ends one storage call that the seed picks: its token and result, for the engine. Nil when none is under
  /// way.
  public func completeOne() -> (token: UInt32, result: Int32)? {
    guard !operations.isEmpty else { return nil }
    let operation = operations.remove(at: Int.random(in: 0..<operations.count, using: &numbers))
    return (operation.token, perform(operation))
  }

  private func begin(_ operation: Operation) {
    if operations.contains(where: { $0.token == operation.token }) {
      violate("token \(operation.token) has two I/Os")
    }
    operations.append(operation)
  }

  private func perform(_ operation: Operation) -> Int32 {
    if happens(faults.interruption) { return numbers.chance(1, in: 2) ? -4 : -11 }
    if operation.kind == .flush {
      let fails = happens(faults.flushError)
      disk.endFlush(operation.keeps, succeeded: !fails)
      return fails ? -5 : 0
    }
    let pieces = vectors[operation.vectors]
    let length = pieces.reduce(0) { $0 + Int($1.length) }
    check(operation, pieces, length)
    if happens(faults.transferError) { return -5 }
    if happens(faults.endOfMedium) { return 0 }
    var left = length
    if happens(faults.shortTransfer) {
      // Whole words at least, so that a model can tell which write a word came from.
      let unit = medium.memoryAlignment > 1 ? medium.blockByteCount : 8
      left = max(unit, Int.random(in: 0...length, using: &numbers) / unit * unit)
    }
    let moved = left
    var position = operation.offset
    for piece in pieces where left > 0 {
      let part = piece.slice(offset: 0, count: min(piece.length, UInt(left)))
      guard Int(position) + Int(part.length) <= disk.byteCount, isLive(part) else { return -14 }
      if operation.kind == .read {
        disk.read(at: position, into: part)
      } else {
        disk.write(at: position, from: part)
      }
      position += UInt64(part.length)
      left -= Int(part.length)
    }
    return Int32(moved)
  }

  // MARK: Watching

  private func check(_ operation: Operation, _ pieces: ArraySlice<IOSegment>, _ length: Int) {
    if length == 0 { violate("transfer of nothing, token \(operation.token)") }
    if operation.offset > UInt64(disk.byteCount) || UInt64(length) > UInt64(disk.byteCount) - operation.offset
    {
      violate("transfer of \(length) bytes at \(operation.offset) leaves the disk")
    }
    for piece in pieces where !isLive(piece) { violate("transfer with memory that is not in use") }
    guard medium.memoryAlignment > 1 else { return }
    if (Int(operation.offset) | length) % medium.blockByteCount != 0 {
      violate("transfer of \(length) bytes at \(operation.offset) is misaligned")
    }
    for piece in pieces where Int(piece.address) % medium.memoryAlignment != 0 {
      violate("transfer with misaligned memory")
    }
  }

  /// True when the bytes lie in a buffer in use or in a pinned page.
  private func isLive(_ piece: IOSegment) -> Bool {
    let end = piece.address + piece.length
    if let page = guest.page(at: piece.address) {
      return pinCounts[page] > 0 && end <= guest.segment(ofPage: page).address + UInt(pageByteCount)
    }
    return liveBuffers.contains { $0.key <= piece.address && end <= $0.key + $0.value }
  }

  private func uses(_ operation: Operation, _ memory: IOSegment) -> Bool {
    guard operation.kind != .flush else { return false }
    return vectors[operation.vectors].contains {
      $0.address < memory.address + memory.length && memory.address < $0.address + $0.length
    }
  }

  private func happens(_ inThousand: Int) -> Bool { inThousand > 0 && numbers.chance(inThousand, in: 1000) }

  private func violate(_ what: String) { violations.append(what) }
}
