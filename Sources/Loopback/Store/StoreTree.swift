/// The store's contents with its rules: who may do what, what comes into being with what permissions,
/// and which watch events a change causes. Pure: no connection, no clock, no order but that of the calls.
///
/// Semantics follow xenstored (`docs/misc/xenstore.txt`, `tools/xenstored/core.c`). An operation that throws
/// has changed nothing.
struct StoreTree: Sendable {
  private(set) var forest: NodeForest
  /// Set in the copy a transaction works on: remembers what was looked at.
  private(set) var log: AccessLog?
  /// Changes made since they were last taken, oldest first.
  private var changes: [StoreChange] = []

  /// A store with the nodes every client expects: the root, `/tool/xenstored`, the specials, and the
  /// places where toolstacks put domains.
  init() {
    forest = NodeForest()
    let onlyDomain0 = [NodePermission(domain: 0, access: [])]
    let fixed: [[String]] = [
      ["tool"], ["tool", "xenstored"], ["local"], ["local", "domain"], ["local", "domain", "0"],
      ["vm"], ["libxl"], ["@introduceDomain"], ["@releaseDomain"],
    ]
    for components in fixed {
      forest.put(NodePath(components: components), value: [], permissions: onlyDomain0)
    }
    for (name, value) in [("name", "Domain-0"), ("domid", "0")] {
      let path = NodePath.home(of: 0).appending(name)
      forest.put(path, value: Array(value.utf8), permissions: onlyDomain0)
    }
  }

  private init(snapshotOf forest: NodeForest, nodeLimit: Int?) {
    self.forest = forest
    log = AccessLog(nodeLimit: nodeLimit)
  }

  /// The copy that a new transaction works on.
  func snapshot(for caller: StoreCaller) -> StoreTree {
    StoreTree(snapshotOf: forest, nodeLimit: caller.quota?.transactionNodes)
  }

  /// Hands over the changes for which watches have yet to fire.
  mutating func takeChanges() -> [StoreChange] {
    defer { changes = [] }
    return changes
  }

  // MARK: Looking

  mutating func read(_ path: NodePath, as caller: StoreCaller) throws(StoreFailure) -> [UInt8] {
    try permitted(path, .read, caller).value
  }

  /// The child names, sorted, each followed by a NUL, and the generation for `DIRECTORY_PART`.
  mutating func directory(
    _ path: NodePath, as caller: StoreCaller
  ) throws(StoreFailure) -> (names: [UInt8], generation: UInt64) {
    let node = try permitted(path, .read, caller)
    var names: [UInt8] = []
    names.reserveCapacity(node.childNamesBytes)
    for child in node.children {
      names.append(contentsOf: child.name.utf8)
      names.append(0)
    }
    return (names, node.generation)
  }

  mutating func permissions(
    _ path: NodePath, as caller: StoreCaller
  ) throws(StoreFailure) -> [NodePermission] {
    try permitted(path, .read, caller).permissions
  }

  // MARK: Changing

  /// Sets the value, creating the node and its missing parents.
  mutating func write(
    _ path: NodePath, _ value: [UInt8], as caller: StoreCaller
  ) throws(StoreFailure) {
    if let node = try existing(path, .write, caller) {
      let grown = StoreNode(
        value: value, permissions: node.permissions, generation: 0, children: node.children)
      try checkSize(grown, caller)
      forest.put(path, value: value, permissions: node.permissions)
    } else {
      try create(path, value, caller)
    }
    log?.modified(path)
    changed(path, .subtree)
  }

  /// Creates the node and its missing parents; one that exists stays as it is and no watch fires.
  mutating func makeDirectory(_ path: NodePath, as caller: StoreCaller) throws(StoreFailure) {
    guard try existing(path, .write, caller) == nil else { return }
    try create(path, [], caller)
    log?.modified(path)
    changed(path, .subtree)
  }

  /// Removes the node and all below it. A missing node is fine as long as its parent exists.
  mutating func remove(_ path: NodePath, as caller: StoreCaller) throws(StoreFailure) {
    guard let node = try existing(path, .write, caller) else {
      guard try looked(path.parent) != nil else { throw .notFound }
      return
    }
    guard !path.isRoot else { throw .invalid }
    let parent = try looked(path.parent)
    var doomed: [(NodePath, StoreNode, StoreNode?)] = []
    try collect(path, node, parent, into: &doomed)
    // Children first, so that a watcher hears of the inside before it hears of the whole.
    for (each, node, parent) in doomed {
      log?.modified(each)
      let readers = [node.permissions, parent?.permissions ?? []]
      changes.append(StoreChange(path: each, reach: each == path ? .subtree : .exact, readers: readers))
    }
    forest.remove(path)
  }

  /// Replaces the permission list. Only the owner and domain 0 may; only domain 0 may change the owner.
  mutating func setPermissions(
    _ path: NodePath, _ permissions: [NodePermission], as caller: StoreCaller
  ) throws(StoreFailure) {
    guard let newOwner = permissions.first?.domain else { throw .invalid }
    if let quota = caller.quota, permissions.count > quota.permissionsPerNode { throw .outOfSpace }
    let node = try permitted(path, [.write, .owner], caller)
    guard caller.isPrivileged || newOwner == node.owner else { throw .notPermitted }
    let changedNode = StoreNode(
      value: node.value, permissions: permissions, generation: 0, children: node.children)
    try checkSize(changedNode, caller)
    forest.put(path, value: node.value, permissions: permissions)
    log?.modified(path)
    changed(path, .subtree, former: node.permissions)
  }

  /// What is left when a domain goes: its nodes disappear with all below them, its entries elsewhere too.
  mutating func forget(domain: UInt16) {
    var orphans: [NodePath] = []
    var mentioned: [(NodePath, StoreNode)] = []
    forest.walk { path, node in
      if node.owner == domain && !path.isRoot && !path.isSpecial {
        orphans.append(path)
      } else if node.permissions.contains(where: { $0.domain == domain }) {
        mentioned.append((path, node))
      }
    }
    // A path below one that is gone already is simply no longer there; its parent may be gone as well.
    for path in orphans { try? remove(path, as: .privileged) }
    for (path, node) in mentioned where forest.node(at: path) != nil {
      var kept = node.permissions.dropFirst().filter { $0.domain != domain }
      kept.insert(NodePermission(domain: node.owner, access: node.permissions[0].access), at: 0)
      // The root and the specials outlive an owner: they go back to domain 0.
      if node.owner == domain { kept[0] = NodePermission(domain: 0, access: []) }
      forest.put(path, value: node.value, permissions: kept)
    }
  }

  // MARK: Transactions

  /// Carries a transaction's changes over, or throws `.tryAgain` when anything it looked at has changed
  /// since, or `.outOfSpace` when a quota would be exceeded. Its changes are then waiting in `takeChanges`.
  mutating func commit(_ draft: StoreTree, as caller: StoreCaller) throws(StoreFailure) {
    guard let log = draft.log else { return }
    for access in log.accesses where forest.node(at: access.path)?.generation != access.generation {
      throw .tryAgain
    }
    let modified = log.accesses.filter(\.isModified)
    var merged = forest
    for access in modified.sorted(by: { $0.path.components.count < $1.path.components.count }) {
      if let node = draft.forest.node(at: access.path) {
        merged.put(access.path, value: node.value, permissions: node.permissions)
      } else {
        merged.remove(access.path)
      }
    }
    if let quota = caller.quota {
      let count = merged.nodeCount(ownedBy: caller.domain)
      let grew = count > forest.nodeCount(ownedBy: caller.domain)
      if grew && count > quota.nodes { throw .outOfSpace }
    }
    forest = merged
    for event in log.events(firedFor: draft.changes) {
      changed(event.path, event.reach, former: event.readers.first)
    }
  }

  // MARK: Rules

  /// The node, if the caller has every right in `access`; else the reason, which tells nothing about nodes
  /// the caller may not know of.
  private mutating func permitted(
    _ path: NodePath, _ access: NodeAccess, _ caller: StoreCaller
  ) throws(StoreFailure) -> StoreNode {
    if let node = try looked(path) {
      guard node.permissions.access(for: caller).isSuperset(of: access) else { throw .accessDenied }
      return node
    }
    var ancestor = path
    repeat {
      ancestor = ancestor.parent
      if let node = try looked(ancestor) {
        let mayKnow = !node.permissions.access(for: caller).isDisjoint(with: access)
        throw mayKnow ? .notFound : .accessDenied
      }
    } while !ancestor.isRoot
    throw .accessDenied
  }

  /// As `permitted`, with nil for a node that is missing and may be created.
  private mutating func existing(
    _ path: NodePath, _ access: NodeAccess, _ caller: StoreCaller
  ) throws(StoreFailure) -> StoreNode? {
    do {
      return try permitted(path, access, caller)
    } catch .notFound {
      return nil
    }
  }

  /// The node as it is, remembered as looked at.
  private mutating func looked(_ path: NodePath) throws(StoreFailure) -> StoreNode? {
    let node = forest.node(at: path)
    try log?.looked(path, node)
    return node
  }

  private mutating func create(
    _ path: NodePath, _ value: [UInt8], _ caller: StoreCaller
  ) throws(StoreFailure) {
    var missing = [path]
    var parentPath = path.parent
    var found = try looked(parentPath)
    while found == nil && !parentPath.isRoot {
      missing.append(parentPath)
      parentPath = parentPath.parent
      found = try looked(parentPath)
    }
    guard var permissions = found?.permissions, !permissions.isEmpty else { throw .inputOutput }
    if !caller.isPrivileged { permissions[0].domain = caller.domain }

    var draft = forest
    for each in missing.reversed() {
      draft.put(each, value: each == path ? value : [], permissions: permissions)
    }
    if let quota = caller.quota, draft.nodeCount(ownedBy: caller.domain) > quota.nodes { throw .outOfSpace }
    for each in missing + [parentPath] {
      if let node = draft.node(at: each) { try checkSize(node, caller) }
    }
    forest = draft
    for each in missing { log?.modified(each) }
  }

  private func checkSize(_ node: StoreNode, _ caller: StoreCaller) throws(StoreFailure) {
    if let quota = caller.quota, node.accountedBytes >= quota.nodeSizeBytes { throw .outOfSpace }
  }

  private mutating func collect(
    _ path: NodePath, _ node: StoreNode, _ parent: StoreNode?,
    into doomed: inout [(NodePath, StoreNode, StoreNode?)]
  ) throws(StoreFailure) {
    _ = try looked(path)
    for child in node.children {
      try collect(path.appending(child.name), child.node, node, into: &doomed)
    }
    doomed.append((path, node, parent))
  }

  /// Notes a change of a node that may still be there. Whoever may read it, its parent, or could read it
  /// before, may hear of it.
  private mutating func changed(
    _ path: NodePath, _ reach: StoreChange.Reach, former: [NodePermission]? = nil
  ) {
    var readers: [[NodePermission]] = []
    if let former { readers.append(former) }
    if let node = forest.node(at: path) {
      readers.append(node.permissions)
      if let parent = forest.node(at: path.parent) { readers.append(parent.permissions) }
    }
    changes.append(StoreChange(path: path, reach: reach, readers: readers))
  }
}
