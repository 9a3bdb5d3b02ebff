import RingKit

/// The connection: made, polled, lost, made again.
extension NBDChannel {
  /// The number of a poll of the present connection among the channel's tokens; 0 is the box's.
  func pollNumber(writing: Bool) -> UInt32 { 2 + generation % 64 * 2 + (writing ? 1 : 0) }

  func pollNews() {
    loop.ring.pollReadable(IOFile(descriptor: news.descriptor), token: key.token(StoreToken.own(0)))
  }

  func hearNews() {
    for item in news.take() {
      switch item {
      case .connected(let handle, let export):
        // A second answer to one wish cannot be; a connection that is not needed ends here.
        if self.handle == nil { adopt(handle, export, replays: true) }
      case .failed, .unusable:
        becomeUnusable()
      case .nothing:
        break
      }
    }
  }

  /// Begins with a connection. One that this store had before lost nothing; any other may have.
  func adopt(_ handle: NBDHandle, _ export: NBDExport, replays: Bool) {
    self.handle = handle
    self.export = export
    generation &+= 1
    (isPollingRead, isPollingWrite) = (false, false)
    replayCount = 0
    replayNext = journal?.first ?? 0
    link = replays ? .replaying : .live
    goOn()
  }

  /// Asks the ring to tell when the connection can go on; gives up one that cannot.
  func rearm() {
    if trouble != nil || (handle?.isDead ?? false) { lose() }
    guard let handle else { return }
    let file = IOFile(descriptor: handle.descriptor)
    if !isPollingRead && handle.waitsForReading {
      isPollingRead = true
      loop.ring.pollReadable(file, token: key.token(StoreToken.own(pollNumber(writing: false))))
    }
    if !isPollingWrite && handle.waitsForWriting {
      isPollingWrite = true
      loop.ring.pollWritable(file, token: key.token(StoreToken.own(pollNumber(writing: true))))
    }
  }

  /// A poll prepared on the ring names its descriptor by number: the ring has to have it before that is closed.
  func submitPolls() {
    if loop.ring.unsubmittedCount > 0 { try? loop.ring.submit() }
  }

  /// The connection is of no use: all that was under way waits for the next one.
  func lose() {
    let reason = trouble ?? "the connection was lost"
    trouble = nil
    submitPolls()
    handle?.shutDown()
    handle = nil
    link = .away
    isFlushingOwn = false
    replayCount = 0
    for index in calls.indices where calls[index].isOwn { release(index) }
    for index in calls.indices {
      calls[index].cookie = 0
      calls[index].done = 0
    }
    let waiting = calls.indices.filter { calls[$0].kind != .free }
    line.replace(with: waiting.sorted { calls[$0].number < calls[$1].number }.map { UInt16($0) })
    store.connector.connect(news, reason: reason)
  }

  /// Nothing can be done any more: every call ends with an error, now and from here on.
  private func becomeUnusable() {
    link = .unusable
    store.health.latch(errno: Self.inputOutputError)
    for index in calls.indices where calls[index].kind != .free {
      if calls[index].isReserved {
        journal?.release(byteCount: calls[index].kind == .write ? Int(calls[index].byteCount) : 0)
      }
      end(index, result: -Self.inputOutputError)
    }
    line.replace(with: [])
  }
}
