/// A node to be written below the backend's directory, or to be taken away.
public struct DeviceNode: Equatable, Sendable {
  /// Its name below the directory.
  public var name: String
  /// Nil when the node has to be absent.
  public var value: String?

  /// Joins the two.
  public init(_ name: String, _ value: String?) {
    self.name = name
    self.value = value
  }

  /// Writes it below `directory`, or takes it away.
  public func write(to tree: any StoreAccess, _ directory: String) throws(StoreError) {
    if let value {
      try tree.write("\(directory)/\(name)", value)
    } else {
      try tree.remove("\(directory)/\(name)")
    }
  }
}
