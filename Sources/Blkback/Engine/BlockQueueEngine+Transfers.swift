import RingKit

/// How the data of accepted requests moves: copies from and to the guest, and what follows each end of a
/// storage call.
extension BlockQueueEngine where Host: ~Copyable {
  /// Puts the request's copies into the batch.
  mutating func startCopy(_ index: Int, phase: InFlightPhase, host: inout Host) {
    let count = Int(table.entries[index].segmentCount)
    if copies.count + count > copies.capacity { finishCopies(host: &host) }
    table.entries[index].phase = phase
    table.entries[index].firstCopy = UInt32(copies.count)
    table.entries[index].copyCount = UInt16(count)
    var offset = UInt(table.entries[index].offset - table.entries[index].transferOffset)
    guard let buffer = table.entries[index].buffer?.segment else { return }
    let first = index * table.segmentCapacity
    for position in 0..<count {
      let segment = table.segments[first + position]
      copies.append(
        GrantCopyBatch.Segment(
          toGuest: phase == .copyOut, domain: domain, reference: segment.reference,
          pageOffset: Int(segment.pageOffset),
          local: buffer.slice(offset: offset, count: UInt(segment.byteCount))))
      offset += UInt(segment.byteCount)
    }
    copying[copyingCount] = UInt16(index)
    copyingCount += 1
  }

  /// Does the batch and carries its requests on.
  mutating func finishCopies(host: inout Host) {
    guard copyingCount > 0 else { return }
    host.copy(&copies)
    counters.grantCopies += UInt64(copies.count)
    let waiting = copyingCount
    for position in 0..<waiting {
      let index = Int(copying[position])
      let first = Int(table.entries[index].firstCopy)
      var isOkay = true
      for copy in first..<first + Int(table.entries[index].copyCount) where copies.status(at: copy) != 0 {
        isOkay = false
      }
      if !isOkay {
        finish(index, status: .error, host: &host)
      } else if table.entries[index].phase == .copyIn {
        table.entries[index].doneByteCount = 0
        setBufferVector(index, host: &host)
        startTransfer(index, host: &host)
      } else {
        finish(index, status: .okay, host: &host)
      }
    }
    copyingCount = 0
    copies.removeAll()
  }

  // MARK: Completions

  /// Delivers the end of a storage call: bytes moved (0 for a flush) or a negative error number.
  ///
  /// A token whose request is gone is ignored. Call ``run(host:)`` after the last of a batch of completions.
  public mutating func complete(token: UInt32, result: Int32, host: inout Host) {
    guard let index = table.index(of: token) else { return }
    switch table.entries[index].phase {
    case .flushFirst: completeFlush(index, result: result, host: &host)
    case .readBefore, .transfer: completeTransfer(index, result: result, host: &host)
    case .free, .parked, .copyIn, .copyOut: break
    }
  }

  mutating func completeFlush(_ index: Int, result: Int32, host: inout Host) {
    if result < 0 {
      if !host.isFenced && retries(index, errno: -result) {
        host.flush(token: table.token(index))
        return
      }
      // The kernel reports a lost write once; whoever asks again would be told all is well.
      host.fence(errno: -result)
      finish(index, status: .error, host: &host)
    } else if host.isFenced || !table.entries[index].flushesFirst {
      finish(index, status: host.isFenced ? .error : .okay, host: &host)
    } else {
      table.entries[index].flushesFirst = false
      table.entries[index].retryCount = 0
      begin(index, host: &host)
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
      startCopy(index, phase: .copyIn, host: &host)
    } else if !table.entries[index].isWrite && table.entries[index].buffer != nil {
      startCopy(index, phase: .copyOut, host: &host)
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
