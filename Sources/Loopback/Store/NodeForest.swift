/// The nodes themselves, without any rule about who may do what: the tree below `/` and the specials.
///
/// A value: a copy is a snapshot and costs two references and a small table.
struct NodeForest: Sendable {
  private var root: StoreNode
  /// `@introduceDomain` and `@releaseDomain` hang below a root of their own, which no path names.
  private var specials: StoreNode
  /// Grows with every change of any node.
  private(set) var generation: UInt64 = 1
  private var ownedNodes: [UInt16: Int] = [:]

  init() {
    let noAccess = [NodePermission(domain: 0, access: [])]
    root = StoreNode(value: [], permissions: noAccess, generation: 1)
    specials = StoreNode(value: [], permissions: noAccess, generation: 1)
    ownedNodes[0] = 1
  }

  /// How many nodes `domain` owns.
  func nodeCount(ownedBy domain: UInt16) -> Int { ownedNodes[domain] ?? 0 }

  /// Domains that own something, in order.
  var owners: [UInt16] { ownedNodes.keys.sorted() }

  func node(at path: NodePath) -> StoreNode? {
    var node = path.isSpecial ? specials : root
    for name in path.components {
      guard let child = node.child(name) else { return nil }
      node = child
    }
    return node
  }

  /// Gives the node a value and permissions, keeping its children. Creates it (not its parents) if missing.
  mutating func put(_ path: NodePath, value: [UInt8], permissions: [NodePermission]) {
    let old = node(at: path)
    generation &+= 1
    let new = StoreNode(
      value: value, permissions: permissions, generation: generation, children: old?.children ?? [])
    if let old { count(old.owner, -1) }
    count(new.owner, 1)
    replace(path, with: new)
  }

  /// Removes the node and all below it. The root stays.
  mutating func remove(_ path: NodePath) {
    guard !path.isRoot, let old = node(at: path) else { return }
    generation &+= 1
    uncount(old)
    replace(path, with: nil)
  }

  private mutating func replace(_ path: NodePath, with node: StoreNode?) {
    if path.isSpecial {
      specials = rebuilt(specials, path.components[...], node) ?? specials
    } else {
      root = rebuilt(root, path.components[...], node) ?? root
    }
  }

  /// Copies the nodes along the path. The one above a created or removed node changes with it.
  private func rebuilt(_ node: StoreNode, _ names: ArraySlice<String>, _ new: StoreNode?) -> StoreNode? {
    guard let name = names.first else { return new }
    let child = node.child(name)
    if names.count == 1 {
      let namesChange = (child == nil) != (new == nil)
      return node.settingChild(name, to: new, generation: namesChange ? generation : node.generation)
    }
    guard let child, let below = rebuilt(child, names.dropFirst(), new) else { return node }
    return node.settingChild(name, to: below, generation: node.generation)
  }

  private mutating func count(_ owner: UInt16, _ difference: Int) {
    let count = nodeCount(ownedBy: owner) + difference
    ownedNodes[owner] = count == 0 ? nil : count
  }

  private mutating func uncount(_ node: StoreNode) {
    count(node.owner, -1)
    for child in node.children { uncount(child.node) }
  }

  /// Every node with its path, parents before children; the specials last.
  func walk(_ visit: (NodePath, StoreNode) -> Void) {
    func descend(_ path: NodePath, _ node: StoreNode) {
      visit(path, node)
      for child in node.children { descend(path.appending(child.name), child.node) }
    }
    descend(.root, root)
    for child in specials.children { descend(NodePath(components: [child.name]), child.node) }
  }

  /// Whether the count of owned nodes agrees with the nodes (what xenstored's `check` looks at).
  var isConsistent: Bool {
    var counted: [UInt16: Int] = [:]
    walk { _, node in counted[node.owner, default: 0] += 1 }
    return counted == ownedNodes
  }
}
