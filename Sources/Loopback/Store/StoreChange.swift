/// One change of the tree, as watches see it.
struct StoreChange: Sendable {
  enum Reach: Sendable {
    /// Only watches set on exactly this path: a node that went because one above it was removed.
    case exact
    /// Watches on this path and on every path above it.
    case subtree
  }

  let path: NodePath
  let reach: Reach
  /// Permission lists of which at least one must let the watcher read.
  let readers: [[NodePermission]]

  func isVisible(to caller: StoreCaller) -> Bool {
    readers.contains { $0.access(for: caller).contains(.read) }
  }

  func matches(_ watched: NodePath) -> Bool {
    switch reach {
    case .exact: path == watched
    case .subtree: path.isAtOrBelow(watched)
    }
  }
}

/// What a transaction looked at and changed: the basis of conflict detection.
struct AccessLog: Sendable {
  struct Access: Sendable {
    let path: NodePath
    /// Nil when the node was not there.
    let generation: UInt64?
    let permissions: [NodePermission]?
    var isModified = false
    var reach: StoreChange.Reach?
  }

  private(set) var accesses: [Access] = []
  private var index: [NodePath: Int] = [:]
  private let nodeLimit: Int?

  init(nodeLimit: Int?) {
    self.nodeLimit = nodeLimit
  }

  /// Remembers the first look at a path, which shows the state at the start of the transaction.
  mutating func looked(_ path: NodePath, _ node: StoreNode?) throws(StoreFailure) {
    guard index[path] == nil else { return }
    if let nodeLimit, accesses.count >= nodeLimit { throw .outOfSpace }
    index[path] = accesses.count
    accesses.append(Access(path: path, generation: node?.generation, permissions: node?.permissions))
  }

  /// Marks a path, which was looked at before, as changed.
  mutating func modified(_ path: NodePath) {
    if let position = index[path] { accesses[position].isModified = true }
  }

  /// The events of a committed transaction: one for each changed path, in the order of first access, with
  /// the wider reach when there were several, and the permissions from before the transaction.
  func events(firedFor changes: [StoreChange]) -> [StoreChange] {
    var accesses = self.accesses
    for change in changes {
      guard let position = index[change.path] else { continue }
      if accesses[position].reach != .subtree { accesses[position].reach = change.reach }
    }
    return accesses.compactMap { access in
      access.reach.map {
        StoreChange(path: access.path, reach: $0, readers: access.permissions.map { [$0] } ?? [])
      }
    }
  }
}
