import RingKit

/// Commands on the wire, and their ends.
extension NBDChannel {
  /// Sends what is next of a call. False when it has to wait: no room in the journal, or the connection turns
  /// out to be gone.
  func issue(_ slot: UInt16) -> Bool {
    guard let handle, trouble == nil else { return false }
    let index = Int(slot)
    let call = calls[index]
    if call.offset + call.byteCount > export.byteCount {
      // The disk has grown: a new connection knows.
      trouble = "the disk has grown"
      return false
    }
    let changes = call.kind == .write || call.kind == .discard
    let loss = store.health.lossErrno
    if changes && loss != 0 {
      failed(index, call, loss)
      return true
    }
    if changes && !call.isReserved, let journal {
      let byteCount = call.kind == .write ? Int(call.byteCount) : 0
      if byteCount > journal.byteCapacity {
        end(index, result: -Self.inputOutputError)
        return true
      }
      guard journal.reserve(byteCount: byteCount) else { return false }
      calls[index].isReserved = true
    }
    if call.kind == .flush || call.kind == .ownFlush { calls[index].mark = journal?.next ?? 0 }
    let cookie = send(index, handle)
    if cookie > 0 {
      calls[index].cookie = UInt64(cookie)
      byCookie[Int(UInt64(cookie) & 4095)] = slot
    }
    if handle.isDead {
      trouble = trouble ?? "the connection was lost"
      // A command that libnbd took is among those under way.
      return cookie > 0
    }
    if cookie <= 0 { ended(index, .failed(errno: Int32(truncatingIfNeeded: -cookie))) }
    return true
  }

  private func send(_ index: Int, _ handle: NBDHandle) -> Int64 {
    let call = calls[index]
    let offset = call.offset + call.done
    switch call.kind {
    case .read, .write, .replay:
      let piece = min(call.byteCount - call.done, UInt64(export.maximumByteCount))
      calls[index].piece = piece
      let segment = call.segment.slice(offset: UInt(call.done), count: UInt(piece))
      if call.kind == .read { return handle.read(segment, at: offset) }
      return handle.write(segment, at: offset, durably: store.writesDurably)
    case .discard, .replayDiscard:
      calls[index].piece = call.byteCount
      return store.discardMode == .zeroes
        ? handle.zero(at: call.offset, byteCount: call.byteCount, durably: store.writesDurably)
        : handle.trim(at: call.offset, byteCount: call.byteCount)
    case .flush, .ownFlush:
      calls[index].piece = 0
      return handle.flush()
    case .free:
      return 0
    }
  }

  /// A command of a call ended.
  func ended(_ index: Int, _ end: NBDEnd) {
    let call = calls[index]
    switch end {
    case .lost:
      // It stays among the calls, to be sent again.
      trouble = trouble ?? "the server ends the connection"
    case .failed(let errno):
      failed(index, call, errno)
    case .done:
      calls[index].done += call.piece
      if calls[index].done < call.byteCount {
        // The next piece; when it cannot be sent, it is with all others after the connection was made again.
        _ = issue(UInt16(index))
      } else {
        succeeded(index, call)
      }
    }
  }

  private func succeeded(_ index: Int, _ call: NBDCall) {
    switch call.kind {
    case .write:
      if call.isReserved { journal?.keep(call.segment, at: call.offset) }
      self.end(index, result: Int32(truncatingIfNeeded: call.byteCount))
    case .discard:
      if call.isReserved { journal?.keepDiscard(at: call.offset, byteCount: call.byteCount) }
      self.end(index, result: 0)
    case .read:
      self.end(index, result: Int32(truncatingIfNeeded: call.byteCount))
    case .flush:
      journal?.forget(before: call.mark)
      // A flush that came before the loss was known must not hide it.
      let loss = store.health.lossErrno
      self.end(index, result: -loss)
    case .ownFlush:
      journal?.forget(before: call.mark)
      isFlushingOwn = false
      release(index)
    case .replay, .replayDiscard:
      replayCount -= 1
      release(index)
    case .free:
      break
    }
  }

  private func failed(_ index: Int, _ call: NBDCall, _ errno: Int32) {
    switch call.kind {
    case .read, .write, .discard:
      if call.isReserved { journal?.release(byteCount: call.kind == .write ? Int(call.byteCount) : 0) }
      end(index, result: -errno)
    case .flush:
      // What a server could not make durable may be lost, and a later flush that succeeds would hide it.
      store.health.latch(errno: errno)
      end(index, result: -errno)
    case .ownFlush:
      store.health.latch(errno: errno)
      isFlushingOwn = false
      release(index)
    case .replay, .replayDiscard:
      // A discard is a hint; a write that cannot be done again is lost, and so are zeros.
      if call.kind == .replay || store.discardMode == .zeroes { store.health.latch(errno: errno) }
      replayCount -= 1
      release(index)
    case .free:
      break
    }
  }

  func end(_ index: Int, result: Int32) {
    completions.add(StoreCompletion(token: calls[index].token, result: result))
    release(index)
  }

  func release(_ index: Int) {
    calls[index].kind = .free
    calls[index].cookie = 0
    free.append(UInt16(index))
  }

  /// Flushes on our own account when the journal fills up, or writes wait for room in it.
  func relieveJournal() {
    guard link == .live, trouble == nil, !isFlushingOwn, let journal, store.health.lossErrno == 0,
      journal.wantsFlush || (!line.isEmpty && journal.count > 0)
    else { return }
    isFlushingOwn = true
    let slot = allocate(NBDCall(kind: .ownFlush))
    if !issue(slot) {
      isFlushingOwn = false
      release(Int(slot))
    }
  }

  // MARK: The journal again

  /// Writes journal entries again, in their order as far as they overlap.
  func replayMore() {
    guard let journal else {
      link = .live
      return
    }
    while trouble == nil, replayNext < journal.next, replayCount < Self.replayWindow {
      let entry = journal.entry(replayNext)
      guard !overlapsReplay(entry) else { break }
      var call = NBDCall(kind: .replayDiscard, offset: entry.offset, byteCount: entry.byteCount)
      if let data = journal.data(of: entry) {
        call.kind = .replay
        call.segment = data
      }
      let slot = allocate(call)
      replayCount += 1
      guard issue(slot) else {
        replayCount -= 1
        release(Int(slot))
        return
      }
      replayNext += 1
    }
    if replayNext == journal.next && replayCount == 0 { link = .live }
  }

  private func overlapsReplay(_ entry: ReplayJournal.Entry) -> Bool {
    guard replayCount > 0 else { return false }
    return calls.contains {
      ($0.kind == .replay || $0.kind == .replayDiscard) && $0.offset < entry.offset + entry.byteCount
        && entry.offset < $0.offset + $0.byteCount
    }
  }
}
