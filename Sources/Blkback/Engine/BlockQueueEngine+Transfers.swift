import RingKit

/// How the data of accepted requests moves: copies from and to the guest, and what follows each end of a
/// storage call.
extension BlockQueueEngine where Host: ~Copyable {
  /// Puts the request in line for its copies, which are done by the end of the turn.
  mutating func startCopy(_ index: Int, phase: InFlightPhase) {
    table.entries[index].phase = phase
    let isFetch = phase == .fetch
    table.entries[index].copyCount =
      isFetch ? UInt16(descriptorPageCount(index)) : table.entries[index].segmentCount
    copying[copyingCount] = UInt16(index)
    copyingCount += 1
  }

  /// Does the copies of all requests in line, in batches, and carries the requests on; what that puts in line
  /// is done as well.
  mutating func finishCopies(host: inout Host) {
    var next = 0
    while next < copyingCount {
      let first = next
      copies.removeAll()
      while next < copyingCount {
        let index = Int(copying[next])
        // One request alone always fits.
        guard Int(table.entries[index].copyCount) <= copies.capacity - copies.count else { break }
        appendCopies(index)
        next += 1
      }
      host.copy(&copies)
      counters.grantCopies += UInt64(copies.count)
      for position in first..<next { completeCopy(Int(copying[position]), host: &host) }
    }
    copyingCount = 0
    copies.removeAll()
  }

  private mutating func appendCopies(_ index: Int) {
    table.entries[index].firstCopy = UInt32(copies.count)
    guard let buffer = table.entries[index].buffer?.segment else { return }
    var offset = UInt(table.entries[index].offset - table.entries[index].transferOffset)
    let first = index * table.segmentCapacity
    for position in 0..<Int(table.entries[index].copyCount) {
      let segment = table.segments[first + position]
      copies.append(
        GrantCopyBatch.Segment(
          toGuest: table.entries[index].phase == .copyOut, domain: domain, reference: segment.reference,
          pageOffset: Int(segment.pageOffset),
          local: buffer.slice(offset: offset, count: UInt(segment.byteCount))))
      offset += UInt(segment.byteCount)
    }
  }

  /// Carries on with a request whose copies were done. Each copy has a status of its own.
  private mutating func completeCopy(_ index: Int, host: inout Host) {
    let first = Int(table.entries[index].firstCopy)
    for copy in first..<first + Int(table.entries[index].copyCount) where copies.status(at: copy) != 0 {
      finish(index, status: .error, host: &host)
      return
    }
    switch table.entries[index].phase {
    case .fetch: judgeDescriptors(index, host: &host)
    case .copyIn:
      table.entries[index].doneByteCount = 0
      setBufferVector(index, host: &host)
      startTransfer(index, host: &host)
    default: finish(index, status: .okay, host: &host)
    }
  }

  // MARK: Completions

  /// Delivers the end of a storage call: bytes moved (0 for a flush or discard) or a negative error number.
  ///
  /// A token whose request is gone is ignored. Call ``run(host:arms:)`` after the last of a batch of
  /// completions.
  public mutating func complete(token: UInt32, result: Int32, host: inout Host) {
    guard let index = table.index(of: token) else { return }
    switch table.entries[index].phase {
    case .flushFirst, .flushAfter: completeFlush(index, result: result, host: &host)
    case .readBefore, .transfer: completeTransfer(index, result: result, host: &host)
    case .discard: completeDiscard(index, result: result, host: &host)
    case .free, .parked, .draining, .fetch, .copyIn, .copyOut, .held: break
    }
  }

  mutating func completeTransfer(_ index: Int, result: Int32, host: inout Host) {
    if result < 0 {
      if retries(index, errno: -result) {
        resume(index, host: &host)
      } else {
        finish(index, status: .error, host: &host)
      }
      return
    }
    let left = table.entries[index].transferByteCount - table.entries[index].doneByteCount
    // Nothing moved means the medium ends before the disk does: answer an error, never invented bytes.
    guard result > 0, result <= left else {
      finish(index, status: .error, host: &host)
      return
    }
    table.entries[index].doneByteCount += UInt32(result)
    if UInt32(result) < left {
      dropVectors(index, byteCount: UInt(result), host: &host)
      resume(index, host: &host)
    } else if table.entries[index].phase == .readBefore {
      startCopy(index, phase: .copyIn)
    } else if !table.entries[index].isWrite && table.entries[index].buffer != nil {
      startCopy(index, phase: .copyOut)
    } else if table.entries[index].flushesAfter {
      beginFlush(index, phase: .flushAfter, host: &host)
    } else {
      finish(index, status: .okay, host: &host)
    }
  }

  mutating func resume(_ index: Int, host: inout Host) {
    if table.entries[index].phase == .readBefore {
      let entry = table.entries[index]
      host.read(
        token: table.token(index), firstVector: index * table.segmentCapacity, vectorCount: 1,
        offset: entry.transferOffset + UInt64(entry.doneByteCount))
    } else {
      startTransfer(index, host: &host)
    }
  }

  /// Moves the vectors past bytes that are done.
  mutating func dropVectors(_ index: Int, byteCount: UInt, host: inout Host) {
    let first = index * table.segmentCapacity
    var left = byteCount
    while left > 0 && table.entries[index].vectorCount > 0 {
      let position = first + Int(table.entries[index].firstVector)
      let vector = host.vector(at: position)
      if vector.length > left {
        host.setVector(vector.dropping(first: left), at: position)
        return
      }
      left -= vector.length
      table.entries[index].firstVector += 1
      table.entries[index].vectorCount -= 1
    }
  }

  /// True when the error is one that passes, a bounded number of times.
  mutating func retries(_ index: Int, errno: Int32) -> Bool {
    guard errno == Self.interrupted || errno == Self.tryAgain else { return false }
    guard table.entries[index].retryCount < 16 else { return false }
    table.entries[index].retryCount += 1
    return true
  }

  /// EINTR and EAGAIN (errno-base.h); the engine imports no C library.
  static var interrupted: Int32 { 4 }
  static var tryAgain: Int32 { 11 }
}
