/// One client: its half-read input, its waiting output, its watches and its open transactions.
/// Bytes go in, messages come out; whoever owns the descriptor moves the bytes.
struct StoreConnection {
  struct Watch {
    let path: NodePath
    let token: [UInt8]
    /// Bytes to leave off reported paths: a relative watch reports relative paths.
    let hiddenPrefixBytes: Int

    /// What the client is told: `<path>|<token>|`.
    func event(for changed: NodePath) -> [UInt8] {
      Array(changed.description.utf8.dropFirst(hiddenPrefixBytes)) + [0] + token + [0]
    }
  }

  struct Transaction {
    let id: UInt32
    var tree: StoreTree
  }

  /// Output bytes beyond which domain 0's input waits.
  static let replyBytesMax = 256 << 10
  /// Output bytes beyond which a client of domain 0 that does not read is given up. Losing an event
  /// silently would leave it waiting for ever.
  static let outputBytesMax = 16 << 20

  let id: Int
  let domain: UInt16
  var watches: [Watch] = []
  private(set) var transactions: [Transaction] = []
  private var nextTransaction: UInt32 = 1
  private var input = StoreFrameReader()
  private(set) var output = StoreOutput()
  /// Set when the client broke the protocol or its domain is gone: it is neither read from nor sent to.
  private(set) var isClosed = false
  private var nextSerial: UInt64 = 0
  /// For each outstanding request, how many of its messages (its reply, events it caused) are unsent.
  private var outstanding: [UInt64: Int] = [:]
  /// Causes of messages that were dropped when the connection closed.
  private var abandoned: [StoreCause] = []

  init(id: Int, domain: UInt16) {
    self.id = id
    self.domain = domain
  }

  // MARK: Bytes

  mutating func receive(_ bytes: some Sequence<UInt8>) {
    guard !isClosed else { return }
    input.append(bytes)
  }

  /// True while the client keeps up with what it is sent, so that its requests may be looked at.
  func acceptsRequests(_ quota: StoreQuota?) -> Bool {
    guard !isClosed else { return false }
    if let quota { return outstanding.count < quota.outstandingRequests }
    return output.bufferedBytes < Self.replyBytesMax
  }

  /// True when the owner of the descriptor should read more.
  func wantsInput(_ quota: StoreQuota?) -> Bool {
    acceptsRequests(quota) && input.bufferedBytes < StoreMessage.headerBytes + StoreMessage.payloadBytesMax
  }

  /// The next request. A client that announces an oversized one is closed.
  mutating func nextRequest() -> StoreMessage? {
    guard !isClosed else { return nil }
    do {
      return try input.next()
    } catch {
      close()
      return nil
    }
  }

  /// The cause that stands for the request being answered; none for domain 0, which nothing limits.
  mutating func beginRequest() -> StoreCause? {
    guard domain != 0 else { return nil }
    nextSerial += 1
    return StoreCause(connection: id, serial: nextSerial)
  }

  mutating func addOutstanding(_ serial: UInt64) { outstanding[serial, default: 0] += 1 }

  mutating func settle(_ serial: UInt64) {
    guard let left = outstanding[serial] else { return }
    outstanding[serial] = left > 1 ? left - 1 : nil
  }

  /// Queues a reply.
  mutating func reply(_ message: StoreMessage, _ cause: StoreCause?) {
    guard !isClosed else { return }
    output.append(reply: message, cause)
    if let cause { addOutstanding(cause.serial) }
  }

  /// Tells the client of a change; true if that is one more message to be sent. An event too long for the
  /// wire is dropped, as xenstored does; so is one for an unprivileged domain that lets too many pile up.
  mutating func notify(_ payload: [UInt8], _ cause: StoreCause?, _ quota: StoreQuota?) -> Bool {
    guard !isClosed, payload.count <= StoreMessage.payloadBytesMax else { return false }
    if output.bufferedBytes + payload.count > quota?.outputBytes ?? Self.outputBytesMax {
      if quota == nil { close() }
      return false
    }
    return output.append(event: payload, cause)
  }

  mutating func didSend(_ count: Int) -> StoreCause? { output.didSend(count) }

  /// Gives the client up and forgets all it had.
  mutating func close() {
    isClosed = true
    reset()
    abandoned += output.causes
    input = StoreFrameReader()
    output = StoreOutput()
    outstanding = [:]
  }

  mutating func takeAbandoned() -> [StoreCause] {
    defer { abandoned = [] }
    return abandoned
  }

  // MARK: Transactions and watches

  /// Opens a transaction on `tree` under an id that no other open one has; never 0.
  mutating func open(_ tree: StoreTree) -> UInt32 {
    while nextTransaction == 0 || position(of: nextTransaction) != nil { nextTransaction &+= 1 }
    defer { nextTransaction &+= 1 }
    transactions.append(Transaction(id: nextTransaction, tree: tree))
    return nextTransaction
  }

  func position(of transaction: UInt32) -> Int? {
    transactions.firstIndex { $0.id == transaction }
  }

  mutating func end(_ position: Int) -> StoreTree { transactions.remove(at: position).tree }

  /// Works on an open transaction's tree in place.
  mutating func withTree<Result>(
    _ position: Int, _ body: (inout StoreTree) throws(StoreFailure) -> Result
  ) throws(StoreFailure) -> Result {
    try body(&transactions[position].tree)
  }

  /// Drops watches and transactions (`XS_RESET_WATCHES`, a domain that goes).
  mutating func reset() {
    watches = []
    transactions = []
  }
}
