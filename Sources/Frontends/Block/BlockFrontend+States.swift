public import RingKit

extension BlockFrontend {
  /// Writes the frontend's state node, to any state at any time.
  public func setState(_ state: XenbusState) throws(BlockFrontendError) {
    try inStore { () throws(StoreError) in try store.write("\(path)/state", state.text) }
  }

  /// The backend's state; nil when its directory is gone.
  public func backendState() throws(BlockFrontendError) -> XenbusState? {
    try inStore { () throws(StoreError) in try store.state("\(backendPath)/state") }
  }

  /// The message that a backend leaves in its error node, if it did and we may read it
  /// (error/backend/vbd/<domid>/<devid>/error below the backend's domain).
  public var backendErrorText: String? {
    let root = "/local/domain/\(backendDomain)"
    guard backendPath.hasPrefix(root + "/") else { return nil }
    do throws(StoreError) {
      return try store.read("\(root)/error\(backendPath.dropFirst(root.count))/error")
    } catch {
      // Guests may be forbidden to read it; then there is nothing to tell.
      return nil
    }
  }

  func inStore<Result>(_ body: () throws(StoreError) -> Result) throws(BlockFrontendError) -> Result {
    do throws(StoreError) {
      return try body()
    } catch {
      throw .store(error)
    }
  }

  /// What a state of the backend means to whoever waits.
  enum Verdict { case reached, wait, closed }

  /// Waits until `judge` is satisfied with the backend's state.
  @discardableResult
  func waitForBackend(
    _ wanted: String, until deadline: Deadline, _ judge: (XenbusState?) throws(BlockFrontendError) -> Verdict
  ) throws(BlockFrontendError) -> XenbusState? {
    if !watchesBackend {
      try inStore { () throws(StoreError) in try store.watch("\(backendPath)/state", token: "backend") }
      watchesBackend = true
    }
    while true {
      // Events only say that something may have changed, so they are taken before the state is read.
      try inStore { () throws(StoreError) in while try store.nextWatchEvent() != nil {} }
      let state = try backendState()
      switch try judge(state) {
      case .reached: return state
      case .closed: throw .backendClosed(path: backendPath, state: state, reason: backendErrorText)
      case .wait: break
      }
      let left = deadline.left
      guard left > 0 else {
        throw .timedOut(
          path: "\(backendPath)/state", wanted: wanted, seen: state?.description ?? "absent",
          milliseconds: deadline.milliseconds, reason: backendErrorText)
      }
      do throws(SystemError) {
        // A lost connection does not wake the descriptor, only a call notices it.
        _ = try EventWait.wait(store.descriptor, -1, nanoseconds: min(left, 1_000_000_000))
      } catch {
        throw .system(error)
      }
    }
  }

  /// Looks at what the backend wrote meanwhile, without waiting: true when the disk's size changed. Throws
  /// when the backend closes.
  @discardableResult
  public func poll() throws(BlockFrontendError) -> Bool {
    try inStore { () throws(StoreError) in while try store.nextWatchEvent() != nil {} }
    guard isConnected else { return false }
    let state = try backendState()
    switch state {
    case nil, .closing, .closed:
      throw .backendClosed(path: backendPath, state: state, reason: backendErrorText)
    // A backend that resized the disk writes its state once more (blkif.h, "Online resize"), and Linux reads
    // the size anew.
    case .connected: return try readSize()
    default: return false
    }
  }

  private func readSize() throws(BlockFrontendError) -> Bool {
    let count = try inStore { () throws(StoreError) in
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
        _ = try EventWait.wait(store.descriptor, -1, nanoseconds: min(left, 1_000_000_000))
      } catch {
        throw .system(error)
      }
    }
  }

  /// Asks the toolstack for the medium's end, as a drive's button does: libxl hears of it and empties the
  /// drive (blkif.h, "eject").
  public func eject() throws(BlockFrontendError) {
    try inStore { () throws(StoreError) in try store.write("\(path)/eject", "eject") }
  }
}
