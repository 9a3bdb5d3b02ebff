import RingKit
import Synchronization

/// The connection: made, polled, lost, made again.
extension NBDChannel {
  /// Numbers of the channel's own I/O. What a closed channel of the same queue left on the ring may end later,
  /// so numbers are not used again soon.
  enum Poll {
    static let patience: UInt32 = 255
    static func box(_ number: UInt32) -> UInt32 { number % 64 }
    static func reading(_ number: UInt32) -> UInt32 { 64 + number % 64 * 2 }
    static func writing(_ number: UInt32) -> UInt32 { reading(number) + 1 }
  }

  private static let numbers = Atomic<UInt32>(0)
  static func nextNumber() -> UInt32 { numbers.wrappingAdd(1, ordering: .relaxed).newValue }

  func pollNews() {
    loop.ring.pollReadable(
      IOFile(descriptor: news.descriptor), token: key.token(StoreToken.own(Poll.box(boxNumber))))
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
    connectionNumber = Self.nextNumber()
    store.isAway.store(false, ordering: .relaxed)
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
      loop.ring.pollReadable(file, token: key.token(StoreToken.own(Poll.reading(connectionNumber))))
    }
    if !isPollingWrite && handle.waitsForWriting {
      isPollingWrite = true
      loop.ring.pollWritable(file, token: key.token(StoreToken.own(Poll.writing(connectionNumber))))
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
    store.isAway.store(true, ordering: .relaxed)
    store.connector.connect(news, reason: reason)
    if hasGivenUp { endAll() }
  }

  /// Nothing can be done any more: every call ends with an error, now and from here on.
  private func becomeUnusable() {
    link = .unusable
    store.health.latch(errno: Self.inputOutputError)
    endAll()
  }

  /// Ends every call with an error.
  func endAll() {
    for index in calls.indices where calls[index].kind != .free && !calls[index].isOwn {
      if calls[index].isReserved {
        journal?.release(byteCount: calls[index].kind == .write ? Int(calls[index].byteCount) : 0)
      }
      end(index, result: -Self.inputOutputError)
    }
    line.replace(with: [])
  }
}
