import RingKit

/// How requests end: everything they hold is given back, they are counted, and the ring gets its response.
extension BlockQueueEngine where Host: ~Copyable {
  /// Ends a request that has an entry.
  mutating func finish(
    _ index: Int, status outcome: BlockStatus, rejection: RejectReason? = nil, host: inout Host
  ) {
    // A write that was under way when data were lost may be among them.
    let status = table.entries[index].isWrite && host.isFenced ? .error : outcome
    unpinSegments(index, count: Int(table.entries[index].segmentCount), host: &host)
    unlockBlocks(index, host: &host)
    let entry = table.entries[index]
    if let buffer = entry.buffer { host.releaseBuffer(buffer) }
    if status == .okay { count(entry) }
    if barrier == index { barrier = nil }
    table.release(index)
    freedCount += 1
    let took = host.now &- entry.began
    answer(
      id: entry.id, operation: entry.operation,
      BlockOutcome(
        kind: entry.kind, status: status, isIndirect: entry.isIndirect, rejection: rejection,
        sectorCount: entry.sectorCount, nanoseconds: rejection == nil ? took : 0),
      host: &host)
  }

  /// Answers a request that needs no entry.
  mutating func refuse(
    _ decoded: BlockRequest, status: BlockStatus, rejection: RejectReason? = nil, host: inout Host
  ) {
    host.charge(byteCount: 0)
    let kind = BlockRequestKind(decoded)
    if kind == .discard && status == .okay { counters.discards += 1 }
    answer(
      id: decoded.id, operation: decoded.responseOperation,
      BlockOutcome(
        kind: kind, status: status, isIndirect: decoded.operation == .indirect, rejection: rejection),
      host: &host)
  }

  private mutating func count(_ entry: InFlightEntry) {
    switch entry.kind {
    case .read: counters.reads += 1
    case .write: counters.writes += 1
    case .flush: counters.flushes += 1
    case .barrier: counters.barriers += 1
    case .discard: counters.discards += 1
    case .other: break
    }
    if entry.isIndirect { counters.indirectRequests += 1 }
    if entry.kind == .discard {
      counters.sectorsDiscarded += entry.sectorCount
    } else if entry.isWrite {
      counters.sectorsWritten += entry.sectorCount
    } else {
      counters.sectorsRead += entry.sectorCount
    }
  }

  private mutating func answer(
    id: UInt64, operation: BlockOperation, _ outcome: BlockOutcome, host: inout Host
  ) {
    if outcome.status == .error { counters.errors += 1 }
    if outcome.status == .notSupported { counters.unsupported += 1 }
    guard failure == nil else { return }
    let response = BlockResponse(id: id, operation: operation, status: outcome.status)
    ring.respond(response.encode(), byteCount: abi.responseByteCount)
    host.note(outcome)
  }

  /// Lets the frontend see the responses of this turn.
  mutating func publish(host: inout Host) {
    guard failure == nil else { return }
    if ring.publish() {
      counters.notifications += 1
      host.notify()
    }
    table.record(ring.position)
  }
}

extension BlockRequestKind {
  /// What a request is, whatever its worth.
  init(_ decoded: BlockRequest) {
    switch decoded.operation {
    case .read: self = .read
    case .write: self = .write
    case .flush: self = .flush
    case .writeBarrier: self = .barrier
    case .discard: self = .discard
    case .indirect where decoded.innerOperation == .read: self = .read
    case .indirect where decoded.innerOperation == .write: self = .write
    default: self = .other
    }
  }
}
