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
  /// Copies done in one batch, unless a single request may have more segments.
  static var copyCapacity: Int { 512 }

  @usableFromInline var ring: BackRing
  @usableFromInline var table: InFlightTable
  @usableFromInline var copies: GrantCopyBatch
  /// Entries that wait for their copies, first come first; done by the end of each turn.
  @usableFromInline var copying: Slab<UInt16>
  @usableFromInline var copyingCount = 0
  @usableFromInline var request = SlotCopy()
  @usableFromInline let abi: BlockABI
  @usableFromInline let domain: DomainID
  @usableFromInline let usesPersistentGrants: Bool
  /// Entries that wait for a buffer or for overlapping writes, first come first; nothing is taken meanwhile.
  @usableFromInline var parked: Slab<UInt16>
  @usableFromInline var parkedCount = 0
  /// The barrier that waits or is at work; nothing is taken meanwhile.
  @usableFromInline var barrier: Int?
  /// How often something was given back that a request may wait for.
  @usableFromInline var freedCount: UInt64 = 0
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
    // In one turn a request waits twice at most: for its descriptors, then for its data.
    let copying = try Slab<UInt16>(name: "ringback-copying", capacity: slots * 2)
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

  /// True when requests wait for a buffer or a neighbour's write, and no I/O of this queue's own can help.
  public var isStarved: Bool {
    parkedCount > 0 && parkedCount + heldCount + (isBarrierWaiting ? 1 : 0) == table.count
  }

  /// True when nothing that was taken still moves: all is answered but the flushes that are held.
  public var isDrained: Bool { table.count == heldCount }

  /// Requests taken since the queue connected.
  public internal(set) var takenCount: UInt64 = 0

  /// Stops taking requests until ``resume()``; those taken are finished and answered.
  public mutating func pause() { isPaused = true }

  /// Takes requests again. Run the queue once afterwards: what came meanwhile brings no further event.
  public mutating func resume() { isPaused = false }

  /// Stops taking requests for good; those taken are finished and answered, but the flushes that are held are
  /// dropped by the next turn.
  public mutating func beginClosing() { isClosing = true }

  /// Looks once whether a request could be taken, for a thread that polls; the ring's broken state counts,
  /// so that a turn reports it. The host's ``BlockHost/mayTake()`` is not asked.
  public mutating func hasWork() -> Bool {
    guard failure == nil, !isClosing, !isPaused, parkedCount == 0, barrier == nil else { return false }
    if ring.unconsumed > 0 { return true }
    do throws(RingError) {
      return try ring.refresh() > 0
    } catch {
      failure = error
      return true
    }
  }

  // MARK: A turn

  /// Takes at most a ring of requests, moves what can be moved, answers what is done.
  ///
  /// Call it after an event, and after completions were delivered. The work of one turn is bounded by the
  /// ring's size, whatever the frontend does meanwhile.
  ///
  /// With `arms` false an idle turn does not ask the frontend for an event: the caller polls with
  /// ``hasWork()``, and makes one turn that arms before it stops polling.
  public mutating func run(host: inout Host, arms: Bool = true) -> EngineTurn {
    let freedBefore = freedCount
    retryParked(host: &host)
    retryBarrier(host: &host)
    let end = takeRequests(host: &host)
    finishCopies(host: &host)
    publish(host: &host)
    if failure != nil { dropWaiting(host: &host) }
    if failure != nil || isClosing { dropHeld() }
    if let failure { return .broken(failure) }
    // What was freed in this turn may be what they wait for, and no completion will come to tell.
    if parkedCount > 0 || isBarrierWaiting { return freedCount == freedBefore ? .idle : .more }
    // A barrier at work ends with a completion; whoever stopped the taking runs the queue when it goes on.
    if barrier != nil || isClosing || isPaused || end == .refused { return .idle }
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
      while parkedCount == 0 && barrier == nil {
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
    switch BlockRequestKind(decoded) {
    case .read: counters.readsTaken += 1
    case .write, .barrier: counters.writesTaken += 1
    default: break
    }
    let verdict = validator.judge(decoded, request)
    switch verdict {
    case .reject(let status, let reason):
      counters.rejected += 1
      refuse(decoded, status: status, rejection: reason, host: &host)
    case .discardNothing:
      refuse(decoded, status: .okay, host: &host)
    case .flush, .barrier:
      guard let index = admit(decoded, host: &host) else { return }
      host.charge(byteCount: 0)
      if verdict == .barrier { beginBarrier(index, host: &host) } else { beginFlush(index, host: &host) }
    case .transfer(let transfer):
      guard let index = admit(decoded, host: &host) else { return }
      host.charge(byteCount: transfer.byteCount)
      copySegments(of: decoded, count: transfer.segmentCount, to: index)
      accept(transfer, as: index, host: &host)
    case .discard(let discard):
      guard let index = admit(decoded, host: &host) else { return }
      host.charge(byteCount: 0)
      beginDiscard(index, discard, host: &host)
    case .indirect(let indirect):
      // The table was made for the limits at connection; no later ones may exceed it.
      guard indirect.segmentCount <= table.segmentCapacity else {
        counters.rejected += 1
        refuse(decoded, status: .error, rejection: .tooManySegments, host: &host)
        return
      }
      guard let index = admit(decoded, host: &host) else { return }
      // Its segments are known later, and others may be taken before that.
      host.charge(byteCount: indirect.segmentCount * pageByteCount)
      copyDescriptorReferences(of: decoded, indirect, to: index)
      begin(index, host: &host)
    }
  }

  /// Notes a judged transfer, whose segments are in the table, and begins it.
  mutating func accept(_ transfer: BlockTransfer, as index: Int, host: inout Host) {
    table.entries[index].offset = transfer.byteOffset
    table.entries[index].byteCount = UInt32(transfer.byteCount)
    table.entries[index].sectorCount = UInt64(transfer.byteCount / wireSectorByteCount)
    table.entries[index].isWrite = transfer.kind.isWrite
    table.entries[index].flushesFirst = transfer.kind == .flushThenWrite || transfer.kind == .barrierWrite
    table.entries[index].flushesAfter = transfer.kind == .barrierWrite
    layOut(index, host: &host)
    if transfer.kind == .barrierWrite {
      beginBarrier(index, host: &host)
    } else {
      begin(index, host: &host)
    }
  }

  /// Gives the request an entry. There is always one, because the ring refuses more requests than slots.
  mutating func admit(_ decoded: BlockRequest, host: inout Host) -> Int? {
    guard let index = table.allocate() else {
      refuse(decoded, status: .error, host: &host)
      return nil
    }
    table.entries[index].id = decoded.id
    table.entries[index].operation = decoded.responseOperation
    table.entries[index].kind = BlockRequestKind(decoded)
    table.entries[index].isIndirect = decoded.operation == .indirect
    table.entries[index].began = host.now
    return index
  }

  mutating func copySegments(of decoded: BlockRequest, count: Int, to index: Int) {
    table.entries[index].segmentCount = UInt16(count)
    for position in 0..<count {
      setSegment(decoded.segment(at: position, in: request), at: position, of: index)
    }
  }

  /// Notes a segment that the validator accepted.
  mutating func setSegment(_ segment: BlockSegment, at position: Int, of index: Int) {
    table.segments[index * table.segmentCapacity + position] = InFlightSegment(
      reference: segment.reference, pageOffset: UInt16(segment.pageOffset),
      byteCount: UInt16(segment.byteCount), handle: .max)
  }
}
