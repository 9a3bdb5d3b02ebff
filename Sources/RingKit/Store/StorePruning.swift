extension StoreAccess {
  /// Removes a node, then its parents as far as they are left without children, but never `root` or what is
  /// above it (as libxl__xs_path_cleanup does, so that no empty directory tells of devices that are gone).
  public func remove(_ path: String, pruningBelow root: String) throws(StoreError) {
    try remove(path)
    var parent = path
    while let slash = parent.lastIndex(of: "/") {
      parent = String(parent[..<slash])
      guard parent.hasPrefix(root + "/"), try list(parent) == [] else { return }
      try remove(parent)
    }
  }
}
