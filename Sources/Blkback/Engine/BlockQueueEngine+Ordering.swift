import RingKit

/// Flushes, barriers, and what becomes of a flush that failed.
extension BlockQueueEngine where Host: ~Copyable {
  /// Begins a flush, or the one before the data of a flush or barrier.
  mutating func beginFlush(_ index: Int, phase: InFlightPhase = .flushFirst, host: inout Host) {
    if host.isFenced {
      failFlush(index, host: &host)
      return
    }
    table.entries[index].phase = phase
    table.entries[index].retryCount = 0
    counters.mediumFlushes += 1
    host.flush(token: table.token(index))
  }

  /// Carries on with a request whose flush ended.
  mutating func completeFlush(_ index: Int, result: Int32, host: inout Host) {
    if result < 0 {
      if !host.isFenced && retries(index, errno: -result) {
        host.flush(token: table.token(index))
        return
      }
      // The kernel reports a lost write once; whoever asks again would be told all is well.
      host.fence(errno: -result)
    }
    if host.isFenced {
      failFlush(index, host: &host)
    } else if table.entries[index].flushesFirst {
      table.entries[index].flushesFirst = false
      table.entries[index].retryCount = 0
      begin(index, host: &host)
    } else {
      finish(index, status: .okay, host: &host)
    }
  }

  // MARK: Failure

  /// Ends a flush on a disk that has lost data: with an error if it carries data, else by holding it.
  mutating func failFlush(_ index: Int, host: inout Host) {
    if table.entries[index].byteCount > 0 {
      finish(index, status: .error, host: &host)
    } else {
      hold(index)
    }
  }

  /// Keeps an empty flush or barrier unanswered while the connection lasts.
  ///
  /// Linux reports a failed one to its file system as a success and never flushes that disk again
  /// (xen-blkfront.c, blkif_interrupt), so any answer would be a lie; without one fsync waits. A held request
  /// keeps its entry and its slot: in the end a guest that goes on flushing has no slots left, and nothing
  /// more is taken from it.
  mutating func hold(_ index: Int) {
    table.entries[index].phase = .held
    heldCount += 1
    counters.heldFlushes += 1
    if barrier == index { barrier = nil }
  }

  /// Begins the held flushes anew, after the host went on with a medium that can be trusted.
  public mutating func retryHeld(host: inout Host) {
    guard heldCount > 0, !host.isFenced else { return }
    for index in 0..<table.capacity where table.entries[index].phase == .held {
      heldCount -= 1
      counters.heldFlushes -= 1
      beginFlush(index, host: &host)
    }
  }

  /// Lets go of what is held without an answer: nobody listens any more.
  mutating func dropHeld() {
    guard heldCount > 0 else { return }
    for index in 0..<table.capacity where table.entries[index].phase == .held { table.release(index) }
    heldCount = 0
    counters.heldFlushes = 0
  }

  // MARK: Barriers

  /// True while a barrier waits for what was taken before it.
  var isBarrierWaiting: Bool { barrier.map { table.entries[$0].phase == .draining } ?? false }

  /// Begins a barrier: nothing is taken until it ends, and it begins its work when all before it is answered.
  /// Its first flush makes durable whatever completed on any queue of the disk, its second its own data.
  mutating func beginBarrier(_ index: Int, host: inout Host) {
    barrier = index
    table.entries[index].phase = .draining
    retryBarrier(host: &host)
  }

  /// Lets a barrier begin its work once it is alone.
  mutating func retryBarrier(host: inout Host) {
    guard let barrier, isBarrierWaiting, table.count - heldCount == 1 else { return }
    beginFlush(barrier, host: &host)
  }
}
