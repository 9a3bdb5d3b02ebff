public import RingKit

/// How a turn of a queue's engine ended.
@frozen
public enum EngineTurn: Equatable, Sendable {
  /// There is more to take: come back after others had their turn.
  case more
  /// Nothing to do until an event or a completion.
  case idle
  /// The frontend broke the ring's rules; the ring is never touched again.
  case broken(RingError)
}

/// One queue of a disk: takes requests from the ring, judges a private copy of each, has the host move the
/// data, and answers each exactly once. No system call, no clock, no allocation after `init`.
public struct BlockQueueEngine<Host: BlockHost & ~Copyable>: ~Copyable {
  /// Copies done in one batch; a request never has more segments than this.
  static var copyCapacity: Int { 512 }

  @usableFromInline var ring: BackRing
  @usableFromInline var table: InFlightTable
  @usableFromInline var copies: GrantCopyBatch
  /// Entries with copies in the batch, in the batch's order.
  @usableFromInline var copying: Slab<UInt16>
  @usableFromInline var copyingCount = 0
  @usableFromInline var request = SlotCopy()
  @usableFromInline let abi: BlockABI
  @usableFromInline let domain: DomainID
  @usableFromInline let usesPersistentGrants: Bool
  /// Entries that wait for a buffer or for overlapping writes, first come first; nothing is taken meanwhile.
  @usableFromInline var parked: Slab<UInt16>
  @usableFromInline var parkedCount = 0
  @usableFromInline var failure: RingError?
  @usableFromInline var isClosing = false
  /// Takes no requests until ``resume()``.
  public private(set) var isPaused = false
  /// Flushes that failed and are not answered while the connection lasts.
  public internal(set) var heldCount = 0

  /// The rules requests are judged by; may be replaced between turns (a disk that grew).
  public var validator: RequestValidator
  /// What this queue has done.
  public var counters = BlockCounters()

  /// Makes the engine of a connected queue. Allocates all that it will ever need.
  public init(
    ring: consuming BackRing, abi: BlockABI, domain: DomainID, usesPersistentGrants: Bool,
    validator: RequestValidator
  ) throws(SystemError) {
    let slots = ring.slotCount
    let segments = max(maximumDirectSegments, validator.limits.maximumIndirectSegments)
    let table = try InFlightTable(capacity: slots, segmentCapacity: segments)
    let copying = try Slab<UInt16>(name: "ringback-copying", capacity: slots)
    let parked = try Slab<UInt16>(name: "ringback-parked", capacity: slots)
    self.table = table
    self.copying = copying
    self.parked = parked
    copies = GrantCopyBatch(capacity: max(Self.copyCapacity, segments))
    self.ring = ring
    self.abi = abi
    self.domain = domain
    self.usesPersistentGrants = usesPersistentGrants
    self.validator = validator
  }

  /// Vectors the host's table must hold for a queue with `slots` slots.
  public static func vectorCapacity(slots: Int, segments: Int) -> Int { slots * segments }

  /// Requests taken and not answered.
  public var inFlightCount: Int { table.count }

  /// True when requests wait for a buffer and no I/O of this queue's own can free one.
  public var isStarved: Bool { parkedCount > 0 && parkedCount == table.count }

  /// Requests taken since the queue connected.
  public internal(set) var takenCount: UInt64 = 0

  /// True when nothing that was taken still moves: all is answered but the flushes that are held.
  public var isDrained: Bool { table.count == heldCount }

  /// Stops taking requests until ``resume()``; those taken are finished and answered.
  public mutating func pause() { isPaused = true }

  /// Takes requests again. Run the queue once afterwards: what came meanwhile brings no further event.
  public mutating func resume() { isPaused = false }

  /// Looks once whether a request could be taken, for a thread that polls; the ring's broken state counts,
  /// so that a turn reports it. The host's ``BlockHost/mayTake()`` is not asked.
  public mutating func hasWork() -> Bool {
    guard failure == nil, !isClosing, !isPaused, parkedCount == 0 else { return false }
    if ring.unconsumed > 0 { return true }
    do throws(RingError) {
      return try ring.refresh() > 0
    } catch {
      failure = error
      return true
    }
  }

  /// Stops taking requests; those taken are finished and answered.
  public mutating func beginClosing() { isClosing = true }

  // MARK: A turn

  /// Takes at most a ring of requests, moves what can be moved, answers what is done.
  ///
  /// Call it after an event, and after completions were delivered. The work of one turn is bounded by the
  /// ring's size, whatever the frontend does meanwhile.
  ///
  /// With `arms` false an idle turn does not ask the frontend for an event: the caller polls with
  /// ``hasWork()``, and makes one turn that arms before it stops polling.
  public mutating func run(host: inout Host, arms: Bool = true) -> EngineTurn {
    let releaseCount = table.releaseCount
    retryParked(host: &host)
    let end = takeRequests(host: &host)
    finishCopies(host: &host)
    publish(host: &host)
    if let failure {
      dropParked(host: &host)
      return .broken(failure)
    }
    // What was released in this turn may be what they wait for, and no completion will come to tell.
    if parkedCount > 0 { return table.releaseCount == releaseCount ? .idle : .more }
    // Whoever stopped the taking runs the queue when it goes on.
    if isClosing || isPaused || end == .refused { return .idle }
    if end == .outOfBudget && ring.unconsumed > 0 { return .more }
    guard arms else { return .idle }
    do throws(RingError) {
      return try ring.finalCheck() ? .more : .idle
    } catch {
      failure = error
      return .broken(error)
    }
  }

  /// Why no further request was taken.
  enum TakingEnd {
    /// There is none, or one must wait.
    case nothing
    /// The turn has had its share.
    case outOfBudget
    /// The host forbids it for now.
    case refused
  }

  /// Takes requests until there are none, one must wait, the host forbids it, or the turn's budget is spent.
  mutating func takeRequests(host: inout Host) -> TakingEnd {
    guard failure == nil, !isClosing, !isPaused else { return .nothing }
    var budget = ring.slotCount
    do throws(RingError) {
      while parkedCount == 0 {
        if budget == 0 { return .outOfBudget }
        if ring.unconsumed == 0 {
          guard try ring.refresh() > 0 else { break }
        }
        guard host.mayTake() else { return .refused }
        guard ring.take(into: &request) else { break }
        budget -= 1
        takenCount += 1
        accept(host: &host)
      }
    } catch {
      failure = error
    }
    return .nothing
  }

  /// Judges the request just copied and begins it.
  mutating func accept(host: inout Host) {
    let decoded = BlockRequest(request, abi: abi)
    switch validator.judge(decoded, request) {
    case .reject(let status, _):
      counters.rejected += 1
      answer(id: decoded.id, operation: decoded.responseOperation, status: status)
    case .discardNothing:
      answer(id: decoded.id, operation: decoded.responseOperation, status: .okay)
    case .flush:
      guard let index = admit(decoded) else { return }
      beginFlush(index, host: &host)
    case .transfer(let transfer):
      guard let index = admit(decoded) else { return }
      table.entries[index].offset = transfer.byteOffset
      table.entries[index].byteCount = UInt32(transfer.byteCount)
      table.entries[index].isWrite = transfer.kind.isWrite
      table.entries[index].flushesFirst = transfer.kind == .flushThenWrite
      copySegments(of: decoded, count: transfer.segmentCount, to: index)
      layOut(index, host: &host)
      begin(index, host: &host)
    case .barrier, .discard, .indirect:
      // Not offered by this engine's limits, so the validator never says so; answer rather than trust that.
      answer(id: decoded.id, operation: decoded.responseOperation, status: .notSupported)
    }
  }

  /// Gives the request an entry. There is always one, because the ring refuses more requests than slots.
  mutating func admit(_ decoded: BlockRequest) -> Int? {
    guard let index = table.allocate() else {
      answer(id: decoded.id, operation: decoded.responseOperation, status: .error)
      return nil
    }
    table.entries[index].id = decoded.id
    table.entries[index].operation = decoded.responseOperation
    return index
  }

  mutating func copySegments(of decoded: BlockRequest, count: Int, to index: Int) {
    table.entries[index].segmentCount = UInt16(count)
    let first = index * table.segmentCapacity
    for position in 0..<count {
      let segment = decoded.segment(at: position, in: request)
      table.segments[first + position] = InFlightSegment(
        reference: segment.reference, pageOffset: UInt16(segment.pageOffset),
        byteCount: UInt16(segment.byteCount), handle: .max)
    }
  }

  /// Rounds the transfer out to the medium's blocks.
  mutating func layOut(_ index: Int, host: inout Host) {
    let block = UInt64(host.medium.blockByteCount)
    let start = table.entries[index].offset
    let end = start + UInt64(table.entries[index].byteCount)
    let transferStart = start & ~(block - 1)
    let transferEnd = (end + block - 1) & ~(block - 1)
    table.entries[index].transferOffset = transferStart
    table.entries[index].transferByteCount = UInt32(transferEnd - transferStart)
    let isPartial = transferStart != start || transferEnd != end
    table.entries[index].isExclusive = isPartial && table.entries[index].isWrite
  }

  // MARK: Beginning

  /// Begins a laid-out request, or parks it.
  mutating func begin(_ index: Int, host: inout Host) {
    if table.entries[index].isWrite && host.isFenced {
      finish(index, status: .error, host: &host)
      return
    }
    if table.entries[index].flushesFirst {
      beginFlush(index, host: &host)
      return
    }
    if table.entries[index].isWrite && overlapsWrite(index, host: &host) {
      park(index)
      return
    }
    if usesPersistentGrants && pinSegments(index, host: &host) {
      startTransfer(index, host: &host)
      return
    }
    guard let buffer = host.allocateBuffer(byteCount: Int(table.entries[index].transferByteCount)) else {
      park(index)
      return
    }
    table.entries[index].buffer = buffer
    if !table.entries[index].isWrite {
      setBufferVector(index, host: &host)
      startTransfer(index, host: &host)
    } else if table.entries[index].isExclusive {
      setBufferVector(index, host: &host)
      table.entries[index].phase = .readBefore
      host.read(
        token: table.token(index), firstVector: index * table.segmentCapacity, vectorCount: 1,
        offset: table.entries[index].transferOffset)
    } else {
      startCopy(index, phase: .copyIn, host: &host)
    }
  }

  mutating func park(_ index: Int) {
    table.entries[index].phase = .parked
    parked[parkedCount] = UInt16(index)
    parkedCount += 1
  }

  /// Begins those that waited, in their order, up to the first that must go on waiting.
  mutating func retryParked(host: inout Host) {
    let waiting = parkedCount
    parkedCount = 0
    var position = 0
    while position < waiting {
      begin(Int(parked[position]), host: &host)
      position += 1
      // Parked again: it is the first in the line, the rest move up behind it.
      if parkedCount > 0 { break }
    }
    while position < waiting {
      parked[parkedCount] = parked[position]
      parkedCount += 1
      position += 1
    }
  }

  /// Lets go of those that wait, once no answer can reach the frontend any more.
  mutating func dropParked(host: inout Host) {
    for position in 0..<parkedCount { finish(Int(parked[position]), status: .error, host: &host) }
    parkedCount = 0
  }

  /// True when this write and one under way touch the same block and either changes it only in part.
  func overlapsWrite(_ index: Int, host: inout Host) -> Bool {
    // With 512-byte blocks no write is partial, so nothing needs to be looked at.
    guard host.medium.blockByteCount > 512 else { return false }
    let start = table.entries[index].transferOffset
    let end = start + UInt64(table.entries[index].transferByteCount)
    for other in 0..<table.capacity where other != index {
      let phase = table.entries[other].phase
      guard phase != .free && phase != .parked && table.entries[other].isWrite else { continue }
      guard table.entries[other].isExclusive || table.entries[index].isExclusive else { continue }
      let otherStart = table.entries[other].transferOffset
      let otherEnd = otherStart + UInt64(table.entries[other].transferByteCount)
      if start < otherEnd && otherStart < end { return true }
    }
    return false
  }

  /// Pins every segment's page and points the vectors at them; false (and nothing pinned) when a page cannot
  /// be mapped or the medium cannot take the segments as they lie.
  mutating func pinSegments(_ index: Int, host: inout Host) -> Bool {
    let unit = max(host.medium.blockByteCount, host.medium.memoryAlignment)
    guard table.entries[index].transferByteCount == table.entries[index].byteCount else { return false }
    let first = index * table.segmentCapacity
    let count = Int(table.entries[index].segmentCount)
    for position in 0..<count {
      let segment = table.segments[first + position]
      let isAligned = unit <= 512 || (Int(segment.pageOffset) | Int(segment.byteCount)) & (unit - 1) == 0
      guard isAligned, let page = host.pin(segment.reference) else {
        unpinSegments(index, count: position, host: &host)
        return false
      }
      table.segments[first + position].handle = page.handle
      host.setVector(
        page.segment.slice(offset: UInt(segment.pageOffset), count: UInt(segment.byteCount)),
        at: first + position)
    }
    table.entries[index].firstVector = 0
    table.entries[index].vectorCount = UInt16(count)
    return true
  }

  mutating func unpinSegments(_ index: Int, count: Int, host: inout Host) {
    let first = index * table.segmentCapacity
    for position in 0..<count where table.segments[first + position].handle != .max {
      host.unpin(table.segments[first + position].handle)
      table.segments[first + position].handle = .max
    }
  }

  mutating func setBufferVector(_ index: Int, host: inout Host) {
    guard let whole = table.entries[index].buffer?.segment else { return }
    host.setVector(
      whole.slice(offset: 0, count: UInt(table.entries[index].transferByteCount)),
      at: index * table.segmentCapacity)
    table.entries[index].firstVector = 0
    table.entries[index].vectorCount = 1
  }

  mutating func beginFlush(_ index: Int, host: inout Host) {
    if host.isFenced {
      finish(index, status: .error, host: &host)
      return
    }
    table.entries[index].phase = .flushFirst
    counters.mediumFlushes += 1
    host.flush(token: table.token(index))
  }

  /// Begins what is left of the transfer.
  mutating func startTransfer(_ index: Int, host: inout Host) {
    if table.entries[index].isWrite && host.isFenced {
      finish(index, status: .error, host: &host)
      return
    }
    table.entries[index].phase = .transfer
    let entry = table.entries[index]
    let firstVector = index * table.segmentCapacity + Int(entry.firstVector)
    let offset = entry.transferOffset + UInt64(entry.doneByteCount)
    if entry.isWrite {
      host.write(
        token: table.token(index), firstVector: firstVector, vectorCount: Int(entry.vectorCount),
        offset: offset)
    } else {
      host.read(
        token: table.token(index), firstVector: firstVector, vectorCount: Int(entry.vectorCount),
        offset: offset)
    }
  }

  // MARK: Answers

  mutating func finish(_ index: Int, status outcome: BlockStatus, host: inout Host) {
    let entry = table.entries[index]
    // A write that was under way when data were lost may be among them.
    let status = entry.isWrite && host.isFenced ? .error : outcome
    unpinSegments(index, count: Int(entry.segmentCount), host: &host)
    if let buffer = entry.buffer { host.releaseBuffer(buffer) }
    if status == .okay {
      if entry.byteCount == 0 {
        counters.flushes += 1
      } else if entry.isWrite {
        counters.writes += 1
        counters.sectorsWritten += UInt64(entry.byteCount) / 512
      } else {
        counters.reads += 1
        counters.sectorsRead += UInt64(entry.byteCount) / 512
      }
    }
    table.release(index)
    answer(id: entry.id, operation: entry.operation, status: status)
  }

  mutating func answer(id: UInt64, operation: BlockOperation, status: BlockStatus) {
    if status == .error { counters.errors += 1 }
    if status == .notSupported { counters.unsupported += 1 }
    guard failure == nil else { return }
    let response = BlockResponse(id: id, operation: operation, status: status)
    ring.respond(response.encode(), byteCount: abi.responseByteCount)
  }

  mutating func publish(host: inout Host) {
    guard failure == nil else { return }
    if ring.publish() {
      counters.notifications += 1
      host.notify()
    }
    table.record(ring.position)
  }
}
