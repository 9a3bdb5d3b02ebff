@testable import RingKit

/// A store in memory with one connection: nodes by absolute path. It records writes in order.
final class MemoryStore: StoreSession {
  private(set) var nodes: [String: String] = [:]
  private(set) var writes: [String] = []
  var owners: [String: [StorePermission]] = [:]
  /// Runs before each commit; a change made there is a conflict, as often as it says true.
  var interfere: ((MemoryStore) -> Bool)?

  /// Runs after each reading of a node.
  var afterReading: ((MemoryStore, String) -> Void)?

  subscript(path: String) -> String? {
    get { nodes[path] }
    set { nodes[path] = newValue }
  }

  func read(_ path: String) throws(StoreError) -> String? {
    defer { afterReading?(self, path) }
    if let value = nodes[path] { return value }
    return nodes.keys.contains { $0.hasPrefix(path + "/") } ? "" : nil
  }

  func write(_ path: String, _ value: String) throws(StoreError) {
    nodes[path] = value
    writes.append("\(path)=\(value)")
  }

  func makeDirectory(_ path: String) throws(StoreError) {
    if try read(path) == nil { nodes[path] = "" }
  }

  func remove(_ path: String) throws(StoreError) {
    nodes = nodes.filter { $0.key != path && !$0.key.hasPrefix(path + "/") }
  }

  func list(_ path: String) throws(StoreError) -> [String]? {
    guard try read(path) != nil else { return nil }
    let below = nodes.keys.filter { $0.hasPrefix(path + "/") }
    return Set(below.map { $0.dropFirst(path.count + 1).prefix { $0 != "/" } }).map(String.init)
  }

  func permissions(of path: String) throws(StoreError) -> [StorePermission]? {
    guard try read(path) != nil else { return nil }
    let owner = StorePermission(domain: DomainID(rawValue: 0), canRead: false, canWrite: false)
    return owners[path] ?? [owner]
  }

  func setPermissions(_ permissions: [StorePermission], of path: String) throws(StoreError) {
    owners[path] = permissions
  }

  func exists(_ path: String) throws(StoreError) -> Bool { try read(path) != nil }

  func transaction<Result>(
    attempts: Int, _ body: (any StoreAccess) throws(StoreError) -> Result
  ) throws(StoreError) -> Result {
    for _ in 1...attempts {
      let before = (nodes, writes)
      let result: Result
      do {
        result = try body(self)
      } catch {
        (nodes, writes) = before
        throw error
      }
      let after = (nodes, writes)
      (nodes, writes) = before
      if interfere?(self) == true { continue }
      (nodes, writes) = after
      return result
    }
    throw .conflicts(attempts: attempts)
  }

  func watch(_ path: String, token: String) throws(StoreError) {}
  func unwatch(_ path: String, token: String) throws(StoreError) {}
  func nextWatchEvent() throws(StoreError) -> WatchEvent? { nil }
}
