import Netback
import RingKit

extension NetFrontend {
  /// Connects as Linux's netfront does: waits for the backend's offer, shares rings, posts pages, becomes
  /// Connected itself, and waits until the backend is (xen-netfront.c, netback_changed; net.md 1.8).
  public func connect(timeoutMilliseconds: Int = 5000) throws(NetFrontendError) {
    let deadline = Deadline(milliseconds: timeoutMilliseconds)
    try offerRings(until: deadline)
    try beginUse(until: deadline)
  }

  /// The first half of ``connect(timeoutMilliseconds:)``: everything up to our own Connected, which a backend
  /// may answer much later, after its hotplug script.
  public func offerRings(timeoutMilliseconds: Int = 5000) throws(NetFrontendError) {
    try offerRings(until: Deadline(milliseconds: timeoutMilliseconds))
  }

  /// The second half: waits until the backend is connected too.
  public func waitUntilConnected(timeoutMilliseconds: Int = 5000) throws(NetFrontendError) {
    try beginUse(until: Deadline(milliseconds: timeoutMilliseconds))
  }

  private func offerRings(until deadline: Deadline) throws(NetFrontendError) {
    precondition(!isConnected)
    try inDirectory { directory throws(FrontendDirectoryError) in try directory.awaitOffer(until: deadline) }
    try readOffer()
    try shareRings()
    let keys = NetRingKeys(
      queues: queues.map(\.keys), control: control.map { ($0.ringPages.references[0], $0.port) })
    let nodes = keys.nodes(features: features, options: options)
    for queue in queues {
      queue.receiver.post()
      // The backend is not there to be signalled: it looks at the rings when it connects.
      _ = queue.receiver.push()
    }
    try inDirectory { directory throws(FrontendDirectoryError) in
      try directory.publish(nodes, replacing: NetRingKeys.belongsToFrontend)
      try directory.setState(.connected)
    }
  }

  private func readOffer() throws(NetFrontendError) {
    let path = directory.path
    let backendPath = directory.backendPath
    let (features, mac, mtu) = try inStore { store throws(StoreError) in
      (
        try NetBackendFeatures.read(from: store, backendPath: backendPath),
        try store.text("\(path)/mac"),
        try store.decimal("\(path)/mtu", in: 68...65535, default: 1500)
      )
    }
    guard let address = EthernetAddress(mac) else { throw .badAddress(path: "\(path)/mac", value: mac) }
    guard features.receiveCopy else { throw .noReceiveCopy(path: backendPath) }
    self.features = features
    self.address = address
    self.mtu = mtu
  }

  private func beginUse(until deadline: Deadline) throws(NetFrontendError) {
    try inDirectory { directory throws(FrontendDirectoryError) in
      try directory.waitForBackend("Connected", until: deadline) { state in
        switch state {
        // A backend that took a change of the headroom over is connected too (net.md trap 46).
        case .connected, .reconfigured: .reached
        case nil, .closing, .closed: .closed
        default: .wait
        }
      }
    }
    try readCarrier()
    isConnected = true
    // A kept ring may hold what was placed meanwhile, and a new one holds the posted pages.
    for queue in queues {
      try notify(queue.transmitPort)
      if !queue.isJoint { try notify(queue.receivePort) }
    }
  }

  // MARK: Parting

  /// Closes as Linux's netfront does when its driver goes: 5, the backend's 5 or 6, 6, the backend's 6
  /// (xen-netfront.c, xennet_bus_close). Packets in flight are lost.
  public func close(timeoutMilliseconds: Int = 5000) throws(NetFrontendError) {
    try leave(timeoutMilliseconds: timeoutMilliseconds)
    dropQueues()
  }

  /// Closes and connects again, with new rings and ports unless the options keep them.
  public func reconnect(timeoutMilliseconds: Int = 5000) throws(NetFrontendError) {
    try leave(timeoutMilliseconds: timeoutMilliseconds)
    if !options.keepsRings { dropQueues() }
    try connect(timeoutMilliseconds: timeoutMilliseconds)
  }

  /// Follows a backend that closes: straight to 6, then waits for the backend's 6 (xenbus_client.c,
  /// xenbus_frontend_closed).
  public func followClose(timeoutMilliseconds: Int = 5000) throws(NetFrontendError) {
    let deadline = Deadline(milliseconds: timeoutMilliseconds)
    isConnected = false
    try inDirectory { directory throws(FrontendDirectoryError) in
      try directory.setState(.closed)
      try directory.waitForClosed(until: deadline)
    }
    dropQueues()
  }

  /// Forgets the connection without a word, as a guest that crashed does.
  public func abandon() {
    isConnected = false
    dropQueues()
  }

  private func leave(timeoutMilliseconds: Int) throws(NetFrontendError) {
    let deadline = Deadline(milliseconds: timeoutMilliseconds)
    isConnected = false
    try inDirectory { directory throws(FrontendDirectoryError) in try directory.close(until: deadline) }
  }

  // MARK: Rings

  private func shareRings() throws(NetFrontendError) {
    if options.keepsRings, !queues.isEmpty { return }
    dropQueues()
    let count = min(max(1, options.queueCount), features.maximumQueues ?? 1)
    let splits = options.splitsEventChannels && features.splitEventChannels
    for number in 0..<count {
      let transmitter = NetTransmitter(
        number: number, ringPages: try share(1),
        dataPages: try share(max(NetLimits.slotCount, options.transmitPageCount), .readOnly),
        firstRingIndex: options.firstRingIndex)
      let receiver = NetReceiver(
        number: number, ringPages: try share(1), dataPages: try share(max(1, options.receivePageCount)),
        options: options)
      if !features.headroom { receiver.headroomByteCount = 0 }
      let port = try allocatePort()
      queues.append(
        NetFrontendQueue(
          number: number, transmitter: transmitter, receiver: receiver, transmitPort: port,
          receivePort: splits ? try allocatePort() : port))
    }
    if options.usesControlRing, features.controlRing {
      control = NetFrontendControl(
        ringPages: try share(1), dataPages: try share(1), port: try allocatePort(),
        firstRingIndex: options.firstRingIndex)
    }
  }

  private func share(_ pageCount: Int, _ access: GrantAccess = .readWrite) throws(NetFrontendError)
    -> SharedPages
  {
    do throws(GrantError) {
      return try sharing.share(pageCount: pageCount, with: directory.backendDomain, access: access)
    } catch {
      throw .grant(error)
    }
  }

  private func allocatePort() throws(NetFrontendError) -> Port {
    do throws(EventChannelError) {
      return try events.allocateUnbound(for: directory.backendDomain)
    } catch {
      throw .events(error)
    }
  }
}
