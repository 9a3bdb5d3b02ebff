import RingKit

extension BlockFrontend {
  /// Does something with the directory.
  func inDirectory<Result>(
    _ body: (FrontendDirectory) throws(FrontendDirectoryError) -> Result
  ) throws(BlockFrontendError) -> Result {
    do throws(FrontendDirectoryError) {
      return try body(directory)
    } catch {
      throw .directory(error)
    }
  }

  /// Does something with the store.
  func inStore<Result>(
    _ body: (StoreClient) throws(StoreError) -> Result
  ) throws(BlockFrontendError) -> Result {
    try inDirectory { directory throws(FrontendDirectoryError) in try directory.use(body) }
  }

  /// Looks at what the backend wrote meanwhile, without waiting: true when the disk's size changed. Throws
  /// when the backend closes.
  @discardableResult
  public func poll() throws(BlockFrontendError) -> Bool {
    let state = try inDirectory { directory throws(FrontendDirectoryError) in
      try directory.takeWatchEvents()
      return try directory.backendState()
    }
    guard isConnected else { return false }
    switch state {
    case nil, .closing, .closed: throw .directory(directory.closed(in: state))
    // A backend that resized the disk writes its state once more (blkif.h, "Online resize"), and Linux reads
    // the size anew.
    case .connected: return try readSize()
    default: return false
    }
  }

  private func readSize() throws(BlockFrontendError) -> Bool {
    let backendPath = directory.backendPath
    let count = try inStore { store throws(StoreError) in
      try DiskProperties.read(from: store, backendPath: backendPath).sectorCount
    }
    guard let old = disk?.sectorCount, old != count else { return false }
    disk?.sectorCount = count
    onResize?(count)
    return true
  }

  /// Waits until the disk's size changes; false when it does not within the time.
  public func waitForResize(timeoutMilliseconds: Int) throws(BlockFrontendError) -> Bool {
    let deadline = Deadline(milliseconds: timeoutMilliseconds)
    while true {
      if try poll() { return true }
      let left = deadline.left
      guard left > 0 else { return false }
      do throws(SystemError) {
        _ = try EventWait.wait(directory.store.descriptor, -1, nanoseconds: min(left, 1_000_000_000))
      } catch {
        throw .system(error)
      }
    }
  }

  /// Asks the toolstack for the medium's end, as a drive's button does: libxl hears of it and empties the
  /// drive (blkif.h, "eject").
  public func eject() throws(BlockFrontendError) {
    try inDirectory { directory throws(FrontendDirectoryError) in try directory.write("eject", "eject") }
  }
}
