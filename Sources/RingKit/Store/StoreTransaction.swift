import CXen

/// A transaction under way: the same verbs, on a snapshot of the tree. Ends with the closure it was given to.
final class StoreTransaction: StoreAccess {
  private let client: StoreClient
  private let number: xs_transaction_t
  private var isOpen = true

  init(client: StoreClient, number: xs_transaction_t) {
    self.client = client
    self.number = number
  }

  /// From now on a use is a programmer's error.
  func end() { isOpen = false }

  private var current: xs_transaction_t {
    precondition(isOpen, "a transaction was used after its closure")
    return number
  }

  func read(_ path: String) throws(StoreError) -> String? { try client.read(path, in: current) }
  func write(_ path: String, _ value: String) throws(StoreError) {
    try client.write(path, value, in: current)
  }
  func makeDirectory(_ path: String) throws(StoreError) { try client.makeDirectory(path, in: current) }
  func remove(_ path: String) throws(StoreError) { try client.remove(path, in: current) }
  func list(_ path: String) throws(StoreError) -> [String]? { try client.list(path, in: current) }
  func permissions(of path: String) throws(StoreError) -> [StorePermission]? {
    try client.permissions(of: path, in: current)
  }
  func setPermissions(_ permissions: [StorePermission], of path: String) throws(StoreError) {
    try client.setPermissions(permissions, of: path, in: current)
  }
  func exists(_ path: String) throws(StoreError) -> Bool { try client.exists(path, in: current) }
}
