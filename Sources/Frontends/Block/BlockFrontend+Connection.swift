import Blkback
public import RingKit

extension BlockFrontend {
  /// Connects: waits for the backend's offer, shares rings, and waits until the disk is there (blkif.h,
  /// startup; xenbus states 2, 3, 4). Requests that were in flight are submitted again.
  public func connect(timeoutMilliseconds: Int = 5000) throws(BlockFrontendError) {
    precondition(!isConnected)
    let deadline = Deadline(milliseconds: timeoutMilliseconds)
    try inDirectory { directory throws(FrontendDirectoryError) in try directory.awaitOffer(until: deadline) }
    try publishRings()
    try setState(.initialised)
    try begin(until: deadline)
  }

  /// Goes on after the guest was suspended, with new rings and without having closed: the backend may still
  /// be Connected with the old ones, and so the state may be Connected before it has read Initialised (Linux,
  /// xen-blkfront.c, blkfront_resume). With `atOnce` the state stays Connected throughout.
  public func resume(atOnce: Bool, timeoutMilliseconds: Int = 5000) throws(BlockFrontendError) {
    precondition(!isConnected)
    let deadline = Deadline(milliseconds: timeoutMilliseconds)
    try publishRings()
    if !atOnce { try setState(.initialised) }
    try begin(until: deadline)
  }

  /// Shares rings after the backend's offer, and writes their keys.
  private func publishRings() throws(BlockFrontendError) {
    let backendPath = directory.backendPath
    let features = try inStore { store throws(StoreError) in
      try BackendFeatures.read(from: store, backendPath: backendPath)
    }
    self.features = features
    try shareRings(features)
    try publishKeys()
  }

  /// Waits for the disk and uses it.
  private func begin(until deadline: Deadline) throws(BlockFrontendError) {
    try inDirectory { directory throws(FrontendDirectoryError) in
      try directory.waitForBackend("Connected", until: deadline) { state in
        switch state {
        case .connected: .reached
        case nil, .closing, .closed: .closed
        default: .wait
        }
      }
    }
    // Linux looks at most features only now; backends write them at the latest with the disk.
    let backendPath = directory.backendPath
    let (connected, disk) = try inStore { store throws(StoreError) in
      (
        try BackendFeatures.read(from: store, backendPath: backendPath),
        try DiskProperties.read(from: store, backendPath: backendPath)
      )
    }
    self.features = connected
    self.disk = disk
    let limits = RequestLimits(connected, disk, options)
    for queue in queues {
      try queue.begin(limits) { () throws(BlockFrontendError) in
        try requestPages(limits, slots: queue.slotCount)
      }
    }
    try setState(.connected)
    isConnected = true
    try push()
  }

  /// Closes in the order of Linux and Windows: 5, the backend's 5 or 6, 6, the backend's 6. Requests in
  /// flight are forgotten.
  public func close(timeoutMilliseconds: Int = 5000) throws(BlockFrontendError) {
    try leave(timeoutMilliseconds: timeoutMilliseconds)
    dropQueues()
  }

  /// Closes and connects again, with new rings and ports. Requests in flight are submitted again, as Linux
  /// does.
  public func reconnect(timeoutMilliseconds: Int = 5000) throws(BlockFrontendError) {
    try leave(timeoutMilliseconds: timeoutMilliseconds)
    try connect(timeoutMilliseconds: timeoutMilliseconds)
  }

  private func leave(timeoutMilliseconds: Int) throws(BlockFrontendError) {
    let deadline = Deadline(milliseconds: timeoutMilliseconds)
    isConnected = false
    disk = nil
    try inDirectory { directory throws(FrontendDirectoryError) in try directory.close(until: deadline) }
  }

  /// Writes the frontend's state node, to any state at any time.
  public func setState(_ state: XenbusState) throws(BlockFrontendError) {
    try inDirectory { directory throws(FrontendDirectoryError) in try directory.setState(state) }
  }

  // MARK: Rings

  private func shareRings(_ features: BackendFeatures) throws(BlockFrontendError) {
    let order = min(options.ringPageOrder, features.maximumRingPageOrder)
    let count = min(max(1, options.queueCount), features.maximumQueues)
    // Options count anew when there is nothing to carry over.
    if queues.allSatisfy(\.isIdle) { dropQueues() }
    if queues.isEmpty {
      for number in 0..<count {
        let (pages, port) = try shareRing(order: order)
        queues.append(
          BlockFrontendQueue(
            number: number, ringPages: pages, port: port, device: device, options: options))
      }
      return
    }
    for queue in queues {
      let (pages, port) = try shareRing(order: order)
      events.unbind(queue.port)
      try queue.restart(ringPages: pages, port: port, firstRingIndex: options.firstRingIndex)
    }
  }

  private func shareRing(order: Int) throws(BlockFrontendError) -> (SharedPages, Port) {
    let pages = try share(pageCount: 1 << order)
    do throws(EventChannelError) {
      return (pages, try events.allocateUnbound(for: directory.backendDomain))
    } catch {
      throw .events(error)
    }
  }

  private func share(pageCount: Int) throws(BlockFrontendError) -> SharedPages {
    do throws(GrantError) {
      return try sharing.share(pageCount: pageCount, with: directory.backendDomain, access: .readWrite)
    } catch {
      throw .grant(error)
    }
  }

  private func requestPages(
    _ limits: RequestLimits, slots: Int
  ) throws(BlockFrontendError) -> RequestPages {
    let stride = limits.pagesOfRequest
    guard options.grantLifetime == .connection else {
      return RequestPages(sharing: sharing, with: directory.backendDomain, capacity: slots, stride: stride)
    }
    let count = options.dataPageCount ?? min(slots * stride, max(704 / queues.count, stride))
    return RequestPages(
      pool: GrantedPagePool(try share(pageCount: count)), capacity: slots, stride: stride)
  }

  /// Writes all keys in one transaction; the state follows by itself.
  private func publishKeys() throws(BlockFrontendError) {
    let rings = queues.map { RingKeys.Queue(references: $0.ringPages.references, port: $0.port) }
    let nodes = RingKeys.nodes(queues: rings, options: options)
    try inDirectory { directory throws(FrontendDirectoryError) in
      try directory.publish(nodes, replacing: RingKeys.belongsToFrontend)
    }
  }
}
