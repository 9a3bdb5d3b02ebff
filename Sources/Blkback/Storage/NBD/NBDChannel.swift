import RingKit

/// The one queue's way to a server: commands go out and come in as its connection allows, on the data
/// thread's ring; a lost connection only makes calls wait.
final class NBDChannel: StoreChannel {
  /// Where the channel stands with its server.
  enum Link {
    /// No connection: the connector makes one.
    case away
    /// The journal is being written again; calls wait.
    case replaying
    /// Calls go through.
    case live
    /// They never will again.
    case unusable
  }

  /// Journal entries under way at once.
  static let replayWindow = 32
  /// EIO.
  static let inputOutputError: Int32 = 5

  let store: NBDStore
  let loop: DataLoop<BlockQueue>
  let key: QueueKey
  let news: Mailbox<NBDNews>
  let journal: ReplayJournal?
  var link = Link.away
  var handle: NBDHandle?
  var export: NBDExport
  /// Tells this channel's polls, and those of its present connection, from all others of the queue.
  let boxNumber: UInt32
  var connectionNumber: UInt32 = 0
  var isPollingRead = false
  var isPollingWrite = false
  /// Why the connection is of no use any more, found out between its events.
  var trouble: String?
  var calls: [NBDCall]
  var free: [UInt16]
  /// Calls that have not begun, first come first.
  var line = NBDLine()
  var arrivals: UInt64 = 0
  /// Calls by the low bits of their cookie.
  var byCookie: [UInt16]
  var completions = StoreCompletions()
  var isFlushingOwn = false
  var isClosed = false
  /// True once calls that cannot be done now are not waited for any more.
  var hasGivenUp = false
  /// The next journal entry to be written again, and how many are under way.
  var replayNext: UInt64 = 0
  var replayCount = 0

  init(
    store: NBDStore, place: StoreChannelPlace, news: Mailbox<NBDNews>,
    spare: (handle: NBDHandle, export: NBDExport)?, journal: ReplayJournal?
  ) {
    self.store = store
    self.news = news
    self.journal = journal
    loop = place.loop
    key = place.key
    export = store.export
    boxNumber = Self.nextNumber()
    let capacity = place.callCapacity + Self.replayWindow + 1
    calls = Array(repeating: NBDCall(), count: capacity)
    free = (0..<UInt16(capacity)).reversed()
    byCookie = Array(repeating: 0, count: 4096)
    line.reserve(capacity)
    completions.reserve(capacity)
    pollNews()
    if let spare, !spare.handle.isDead {
      adopt(spare.handle, spare.export, replays: false)
    } else {
      store.connector.connect(news)
    }
  }

  // MARK: Calls

  func read(token: UInt32, into vectors: borrowing IOVectorTable, first: Int, count: Int, offset: UInt64) {
    begin(.read, token: token, vectors, first: first, count: count, offset: offset)
  }

  func write(token: UInt32, from vectors: borrowing IOVectorTable, first: Int, count: Int, offset: UInt64) {
    begin(.write, token: token, vectors, first: first, count: count, offset: offset)
  }

  private func begin(
    _ kind: NBDCall.Kind, token: UInt32, _ vectors: borrowing IOVectorTable, first: Int, count: Int,
    offset: UInt64
  ) {
    precondition(count == 1, "the geometry says that one transfer is one piece")
    var call = NBDCall(kind: kind, token: token, offset: offset)
    call.segment = vectors[first]
    call.byteCount = UInt64(call.segment.length)
    begin(call)
  }

  func flush(token: UInt32) { begin(NBDCall(kind: .flush, token: token)) }

  func discard(token: UInt32, offset: UInt64, byteCount: UInt64, isSecure: Bool) {
    begin(NBDCall(kind: .discard, token: token, offset: offset, byteCount: byteCount))
  }

  func beginClosing() {
    loop.ring.timeout(
      atNanoseconds: loop.now + store.closingNanoseconds, token: key.token(StoreToken.own(Poll.patience)))
  }

  private func begin(_ call: NBDCall) {
    let loss = store.health.lossErrno
    if link == .unusable || (hasGivenUp && link != .live) || (loss != 0 && call.kind != .read) {
      let error = loss == 0 ? Self.inputOutputError : loss
      completions.add(StoreCompletion(token: call.token, result: -error))
      return
    }
    // A server without a flush is taken at its word: what it completed is as durable as it gets.
    if call.kind == .flush && !export.canFlush {
      completions.add(StoreCompletion(token: call.token, result: 0))
      return
    }
    let slot = allocate(call)
    // Reads and flushes overtake writes that wait for room in the journal: nothing orders them.
    let overtakes = call.kind == .read || call.kind == .flush
    guard link == .live, line.isEmpty || overtakes, issue(slot) else {
      line.append(slot)
      if trouble == nil { relieveJournal() }
      rearm()
      return
    }
    rearm()
  }

  func allocate(_ call: NBDCall) -> UInt16 {
    if free.isEmpty {
      free.append(UInt16(calls.count))
      calls.append(NBDCall())
    }
    let slot = free.removeLast()
    calls[Int(slot)] = call
    calls[Int(slot)].number = arrivals
    arrivals += 1
    return slot
  }

  func nextCompletion() -> StoreCompletion? { completions.next() }
  var hasCompletions: Bool { !completions.isEmpty }

  // MARK: Events

  func completed(token: UInt32, result: Int32) {
    guard !isClosed, let number = StoreToken.number(token) else { return }
    switch number {
    case Poll.box(boxNumber):
      pollNews()
      hearNews()
    case Poll.reading(connectionNumber):
      isPollingRead = false
      pump(writing: false)
    case Poll.writing(connectionNumber):
      isPollingWrite = false
      pump(writing: true)
    case Poll.patience:
      hasGivenUp = true
      if link != .live { endAll() }
    default:
      break
    }
  }

  private func pump(writing: Bool) {
    guard let handle else { return }
    do throws(NBDError) {
      if writing {
        if handle.waitsForWriting { try handle.becameWritable() }
        takeEnds(handle)
      } else {
        // Each step takes one reply, or what is there of it; asking costs less than a turn of the ring.
        var budget = calls.count
        while budget > 0, handle.waitsForReading, handle.isReadable {
          budget -= 1
          try handle.becameReadable()
          takeEnds(handle)
        }
      }
    } catch {
      takeEnds(handle)
      trouble = trouble ?? "the connection was lost (\(error))"
    }
    goOn()
  }

  /// Takes note of commands that ended.
  private func takeEnds(_ handle: NBDHandle) {
    while let cookie = handle.nextEnded() {
      let end = handle.end(of: cookie)
      guard let slot = find(cookie) else { continue }
      calls[slot].cookie = 0
      ended(slot, end)
    }
  }

  private func find(_ cookie: UInt64) -> Int? {
    let likely = Int(byCookie[Int(cookie & 4095)])
    if calls[likely].cookie == cookie { return likely }
    return calls.firstIndex { $0.cookie == cookie }
  }

  /// After anything happened: begins what can begin now, and waits for the rest.
  func goOn() {
    if trouble == nil {
      if link == .replaying { replayMore() }
      if link == .live {
        drainLine()
        relieveJournal()
      }
    }
    rearm()
  }

  /// Begins waiting calls, first come first, until one has to go on waiting.
  private func drainLine() {
    while trouble == nil, let slot = line.first {
      guard issue(slot) else { return }
      line.removeFirst()
    }
  }

  func close() {
    isClosed = true
    // Its poll of the box ends, and with it the ring's hold on the box.
    news.post(.nothing)
    store.connector.withdraw(news)
    submitPolls()
    let isSpare = link == .live && trouble == nil
    // What the guest was told is written must not depend on this process any longer: whoever comes next does
    // not know what is in the journal. The server does this before it takes note of our going.
    if isSpare, !isFlushingOwn, let journal, journal.count > 0 { _ = handle?.flush() }
    let spare = isSpare ? handle.map { ($0, export) } : nil
    if spare == nil { handle?.shutDown() }
    handle = nil
    store.putBack(spare: spare, journal: journal)
  }
}

/// A line of calls, first come first; room is taken once.
struct NBDLine {
  private var slots: [UInt16] = []
  private var head = 0

  var isEmpty: Bool { head == slots.count }
  var first: UInt16? { isEmpty ? nil : slots[head] }

  mutating func reserve(_ count: Int) { slots.reserveCapacity(count) }

  mutating func append(_ slot: UInt16) {
    if head > 0 && (isEmpty || slots.count == slots.capacity) {
      slots.removeFirst(head)
      head = 0
    }
    slots.append(slot)
  }

  mutating func removeFirst() { head += 1 }

  /// Puts others into its place.
  mutating func replace(with others: [UInt16]) {
    slots.removeAll(keepingCapacity: true)
    head = 0
    slots.append(contentsOf: others)
  }
}
