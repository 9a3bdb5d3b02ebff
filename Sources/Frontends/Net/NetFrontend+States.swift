import RingKit

extension NetFrontend {
  /// Looks at what the backend wrote meanwhile, without waiting. Throws when it closes. One that waits for us
  /// again (InitWait) was started anew and finds our rings by their keys: nothing to do, as Linux does
  /// nothing.
  public func poll() throws(NetFrontendError) {
    let state = try inDirectory { directory throws(FrontendDirectoryError) in
      try directory.takeWatchEvents()
      return try directory.backendState()
    }
    guard isConnected else { return }
    switch state {
    case nil, .closing, .closed: throw .directory(directory.closed(in: state))
    default: try readCarrier()
    }
  }

  func readCarrier() throws(NetFrontendError) {
    let path = "\(directory.backendPath)/carrier"
    hasCarrier = try inStore { store throws(StoreError) in try store.flag(path, default: true) }
  }

  /// Waits until the backend's `carrier` says that the link is up or down; false when it does not in time.
  public func waitForCarrier(_ wanted: Bool, timeoutMilliseconds: Int) throws(NetFrontendError) -> Bool {
    let deadline = Deadline(milliseconds: timeoutMilliseconds)
    try inDirectory { directory throws(FrontendDirectoryError) in try directory.watchBackend() }
    while true {
      try poll()
      if hasCarrier == wanted { return true }
      let left = deadline.left
      guard left > 0 else { return false }
      try sleep(atMost: left)
    }
  }

  /// Has the backend leave other room before received data, as Linux does when an XDP program comes or goes:
  /// states 7, the backend's 8, 4 (xen-netfront.c, xennet_xdp_set; net.md 1.8). Packets that are under way
  /// meanwhile may have either room.
  public func changeHeadroom(
    to byteCount: Int, timeoutMilliseconds: Int = 5000
  ) throws(NetFrontendError) {
    guard features.headroom else { throw .notOffered("feature-xdp-headroom") }
    guard isConnected else { throw .notConnected }
    let deadline = Deadline(milliseconds: timeoutMilliseconds)
    for queue in queues { queue.receiver.headroomByteCount = nil }
    options.headroomByteCount = byteCount
    try inDirectory { directory throws(FrontendDirectoryError) in
      try directory.setState(.reconfiguring)
      try directory.write("xdp-headroom", String(byteCount))
      try directory.waitForBackend("Reconfigured", until: deadline) { state in
        switch state {
        case .reconfigured: .reached
        case nil, .closing, .closed: .closed
        default: .wait
        }
      }
      try directory.setState(.connected)
    }
  }

  /// Judges the headroom of received packets again, after those that were under way when it changed.
  public func expectHeadroom() {
    for queue in queues { queue.receiver.headroomByteCount = options.headroomByteCount }
  }

  /// Turns the backend's multicast filter on or off while connected (netif.h,
  /// feature-dynamic-multicast-control).
  public func requestMulticastControl(_ isOn: Bool) throws(NetFrontendError) {
    guard features.dynamicMulticastControl else { throw .notOffered("feature-dynamic-multicast-control") }
    options.requestsMulticastControl = isOn
    try inDirectory { directory throws(FrontendDirectoryError) in
      try directory.write("request-multicast-control", isOn ? "1" : "0")
    }
  }

  /// Does something with the directory.
  func inDirectory<Result>(
    _ body: (FrontendDirectory) throws(FrontendDirectoryError) -> Result
  ) throws(NetFrontendError) -> Result {
    do throws(FrontendDirectoryError) {
      return try body(directory)
    } catch {
      throw .directory(error)
    }
  }

  /// Does something with the store.
  func inStore<Result>(
    _ body: (StoreClient) throws(StoreError) -> Result
  ) throws(NetFrontendError) -> Result {
    try inDirectory { directory throws(FrontendDirectoryError) in try directory.use(body) }
  }
}
