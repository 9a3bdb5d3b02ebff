/// The store as a machine without I/O: clients come and go, their bytes go in, bytes for them come out.
///
/// Everything happens in the order of the calls, and clients are served in the order of their ids, so the
/// same calls give the same bytes.
struct StoreCore {
  private(set) var tree = StoreTree()
  private var connections: [StoreConnection] = []
  private var nextID = 0
  private let quota: StoreQuota
  /// Domains which the store was told of; domain 0 always is one.
  private(set) var introduced: Set<UInt16> = [0]
  private var targets: [UInt16: UInt16] = [:]
  private var released: [UInt16] = []

  init(quota: StoreQuota = StoreQuota()) {
    self.quota = quota
  }

  // MARK: Clients

  /// A new client of `domain`. Ids are never used twice.
  mutating func connect(domain: UInt16) -> Int {
    defer { nextID += 1 }
    connections.append(StoreConnection(id: nextID, domain: domain))
    return nextID
  }

  /// Gives a client up; it is disconnected by whoever has its descriptor.
  mutating func close(_ id: Int) {
    guard let index = index(of: id) else { return }
    connections[index].close()
    settleAbandoned()
  }

  mutating func disconnect(_ id: Int) {
    close(id)
    connections.removeAll { $0.id == id }
  }

  /// Takes what a client sent and answers the requests that are complete.
  mutating func receive(_ bytes: some Sequence<UInt8>, from id: Int) {
    guard let index = index(of: id) else { return }
    connections[index].receive(bytes)
    serve(index)
  }

  func wantsInput(_ id: Int) -> Bool {
    guard let index = index(of: id) else { return false }
    return connections[index].wantsInput(limits(of: connections[index].domain))
  }

  /// False once the client has to be disconnected.
  func isOpen(_ id: Int) -> Bool {
    index(of: id).map { !connections[$0].isClosed } ?? false
  }

  /// The bytes to send to a client next, empty when there are none.
  func output(for id: Int) -> ArraySlice<UInt8> {
    index(of: id).map { connections[$0].output.next } ?? []
  }

  /// Notes that the first `count` bytes of `output(for:)` were sent, and goes on with requests that waited
  /// for that: the client's own, or those of one whose changes the client has now been told of.
  mutating func didSend(_ count: Int, to id: Int) {
    guard let index = index(of: id) else { return }
    if let cause = connections[index].didSend(count) { settle(cause) }
    if connections[index].domain == 0 { serve(index) }
  }

  /// Clients of a domain, or of all, in order.
  func clients(of domain: UInt16? = nil) -> [Int] {
    connections.filter { domain == nil || $0.domain == domain }.map(\.id)
  }

  private func index(of id: Int) -> Int? {
    connections.firstIndex { $0.id == id }
  }

  private mutating func serve(_ index: Int) {
    let limits = limits(of: connections[index].domain)
    while connections[index].acceptsRequests(limits), let request = connections[index].nextRequest() {
      let cause = connections[index].beginRequest()
      let reply = StoreRequest(message: request, index: index).answer(in: &self)
      // Events of a change come before its reply, the first event of a new watch behind it, as in xenstored.
      fireWatches(cause)
      connections[index].reply(reply.message, cause)
      if let event = reply.event { _ = connections[index].notify(event, nil, limits) }
    }
    settleAbandoned()
  }

  private mutating func settle(_ cause: StoreCause) {
    guard let index = index(of: cause.connection) else { return }
    connections[index].settle(cause.serial)
    serve(index)
  }

  private mutating func settleAbandoned() {
    for index in connections.indices {
      for cause in connections[index].takeAbandoned() { settle(cause) }
    }
  }

  // MARK: For requests

  func caller(_ index: Int) -> StoreCaller {
    caller(ofDomain: connections[index].domain)
  }

  private func caller(ofDomain domain: UInt16) -> StoreCaller {
    StoreCaller(domain: domain, target: targets[domain], quota: limits(of: domain))
  }

  private func limits(of domain: UInt16) -> StoreQuota? { domain == 0 ? nil : quota }

  /// Works on the store's tree, or on the open transaction's.
  mutating func withTree<Result>(
    _ index: Int, _ transaction: UInt32, _ body: (inout StoreTree) throws(StoreFailure) -> Result
  ) throws(StoreFailure) -> Result {
    guard transaction != 0 else { return try body(&tree) }
    guard let position = connections[index].position(of: transaction) else { throw .notFound }
    return try connections[index].withTree(position, body)
  }

  func hasTransaction(_ index: Int, _ transaction: UInt32) -> Bool {
    transaction == 0 || connections[index].position(of: transaction) != nil
  }

  mutating func startTransaction(_ index: Int) throws(StoreFailure) -> UInt32 {
    let caller = caller(index)
    if let quota = caller.quota {
      let open = connections.filter { $0.domain == caller.domain }.reduce(0) { $0 + $1.transactions.count }
      guard open < quota.transactions else { throw .outOfSpace }
    }
    return connections[index].open(tree.snapshot(for: caller))
  }

  mutating func endTransaction(_ index: Int, _ id: UInt32, commit: Bool) throws(StoreFailure) {
    guard let position = connections[index].position(of: id) else { throw .notFound }
    let draft = connections[index].end(position)
    if commit { try tree.commit(draft, as: caller(index)) }
  }

  mutating func addWatch(_ index: Int, _ watch: StoreConnection.Watch) throws(StoreFailure) {
    let connection = connections[index]
    guard !connection.watches.contains(where: { $0.path == watch.path && $0.token == watch.token }) else {
      throw .alreadyExists
    }
    if let quota = limits(of: connection.domain) {
      let set = connections.filter { $0.domain == connection.domain }.reduce(0) { $0 + $1.watches.count }
      guard set < quota.watches else { throw .outOfSpace }
    }
    connections[index].watches.append(watch)
  }

  mutating func removeWatch(_ index: Int, _ path: NodePath, _ token: [UInt8]) throws(StoreFailure) {
    let position = connections[index].watches.firstIndex { $0.path == path && $0.token == token }
    guard let position else { throw .notFound }
    connections[index].watches.remove(at: position)
  }

  mutating func reset(_ index: Int) { connections[index].reset() }

  mutating func setTarget(of domain: UInt16, to target: UInt16) throws(StoreFailure) {
    guard introduced.contains(domain), introduced.contains(target) else { throw .notFound }
    targets[domain] = target
  }

  // MARK: Domains

  /// Makes the store know `domain`; `@introduceDomain` fires unless it did already, in which case
  /// the domain starts anew: its watches and transactions are gone (`XS_INTRODUCE`).
  mutating func introduce(domain: UInt16) {
    if introduced.insert(domain).inserted {
      fire(special: "@introduceDomain")
    } else {
      for index in connections.indices where connections[index].domain == domain { reset(index) }
    }
  }

  /// Gives a domain its home as a toolstack does: `/local/domain/<domid>`, owned by it, unreadable for
  /// other guests, with its `domid` inside, which it can read only.
  mutating func makeHome(of domain: UInt16) {
    let home = NodePath.home(of: domain)
    let owned = [NodePermission(domain: domain, access: [])]
    let readable = [
      NodePermission(domain: 0, access: []), NodePermission(domain: domain, access: .read),
    ]
    // Domain 0 is refused none of these.
    try? tree.makeDirectory(home, as: .privileged)
    try? tree.setPermissions(home, owned, as: .privileged)
    let identity = home.appending("domid")
    try? tree.write(identity, Array(String(domain).utf8), as: .privileged)
    try? tree.setPermissions(identity, readable, as: .privileged)
    fireWatches(nil)
  }

  /// Forgets a domain: its clients are closed, its nodes removed, `@releaseDomain` fires. False if the
  /// store did not know it. Domain 0 stays.
  @discardableResult
  mutating func release(domain: UInt16) -> Bool {
    guard domain != 0 else { return false }
    let known = introduced.remove(domain) != nil
    // Closed first, so that it hears nothing of the end of its own nodes.
    for index in connections.indices where connections[index].domain == domain { connections[index].close() }
    targets[domain] = nil
    for (other, target) in targets where target == domain { targets[other] = nil }
    settleAbandoned()
    tree.forget(domain: domain)
    fireWatches(nil)
    if known { fire(special: "@releaseDomain") }
    released.append(domain)
    return known
  }

  /// Domains released since the last call, whose sockets have to go.
  mutating func takeReleased() -> [UInt16] {
    defer { released = [] }
    return released
  }

  // MARK: Watches

  /// Tells the watchers of everything that changed since the last time.
  private mutating func fireWatches(_ cause: StoreCause?) {
    for change in tree.takeChanges() { fire(change, cause) }
  }

  private mutating func fire(special name: String) {
    let path = NodePath(components: [name])
    let readers = [path, path.parent].compactMap { tree.forest.node(at: $0)?.permissions }
    fire(StoreChange(path: path, reach: .subtree, readers: readers), nil)
  }

  private mutating func fire(_ change: StoreChange, _ cause: StoreCause?) {
    for index in connections.indices {
      guard !connections[index].watches.isEmpty else { continue }
      let caller = caller(index)
      guard change.isVisible(to: caller) else { continue }
      for watch in connections[index].watches where change.matches(watch.path) {
        guard connections[index].notify(watch.event(for: change.path), cause, caller.quota) else { continue }
        if let cause, let origin = self.index(of: cause.connection) {
          connections[origin].addOutstanding(cause.serial)
        }
      }
    }
  }

  /// The store's own nodes and counts agree.
  var isConsistent: Bool { tree.forest.isConsistent }
}
