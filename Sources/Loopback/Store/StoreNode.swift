/// One node. Immutable, so that a transaction's snapshot is a reference to the root.
final class StoreNode: Sendable {
  struct Child: Sendable {
    let name: String
    let node: StoreNode
  }

  let value: [UInt8]
  let permissions: [NodePermission]
  /// Changes with the value, the permissions and the set of child names, not with what is below the children.
  let generation: UInt64
  /// Sorted by name, so that listings are the same on every run.
  let children: [Child]
  /// Length of the list of child names, each with its NUL.
  let childNamesBytes: Int

  init(value: [UInt8], permissions: [NodePermission], generation: UInt64, children: [Child] = []) {
    self.value = value
    self.permissions = permissions
    self.generation = generation
    self.children = children
    childNamesBytes = children.reduce(0) { $0 + $1.name.utf8.count + 1 }
  }

  /// The owner, who has every right. A node always has at least one entry.
  var owner: UInt16 { permissions.first?.domain ?? 0 }

  /// The size that `StoreQuota.nodeSizeBytes` limits (xenstored's node header is 16 bytes, an entry 8).
  var accountedBytes: Int { 16 + 8 * permissions.count + value.count + childNamesBytes }

  /// Where `name` is, or where it would have to be inserted.
  func position(of name: String) -> (index: Int, found: Bool) {
    var low = 0
    var high = children.count
    while low < high {
      let middle = (low + high) / 2
      if children[middle].name < name { low = middle + 1 } else { high = middle }
    }
    return (low, low < children.count && children[low].name == name)
  }

  func child(_ name: String) -> StoreNode? {
    let (index, found) = position(of: name)
    return found ? children[index].node : nil
  }

  /// The same node with one child replaced, added or (nil) removed.
  func settingChild(_ name: String, to node: StoreNode?, generation: UInt64) -> StoreNode {
    var children = self.children
    let (index, found) = position(of: name)
    if found { children.remove(at: index) }
    if let node { children.insert(Child(name: name, node: node), at: index) }
    return StoreNode(value: value, permissions: permissions, generation: generation, children: children)
  }
}
