public import Netback
public import RingKit

/// A network frontend in userspace: it negotiates as Linux's xen-netfront does, sends and receives packets,
/// and checks what the backend does.
///
/// It belongs to one thread. Everything it asks of the host goes through the seams, so it serves on Xen and
/// on Loopback alike.
public final class NetFrontend {
  /// The domain this process is.
  public let domain: DomainID
  /// The interface's number (`handle`).
  public let device: UInt32
  /// Its directory in xenstore and the backend's state.
  public let directory: FrontendDirectory
  /// How to negotiate. Changes count at the next ``connect(timeoutMilliseconds:)``.
  public var options: NetFrontendOptions
  /// What the backend offered at the last connection.
  public internal(set) var features = NetBackendFeatures()
  /// The interface's address, read from `mac` at the last connection.
  public internal(set) var address = EthernetAddress(rawValue: 0)
  /// `mtu` of the frontend's directory, in bytes; 1500 without it.
  public internal(set) var mtu = 1500
  /// The backend's `carrier`: false when it says that the link is down.
  public internal(set) var hasCarrier = true
  /// True from the end of a successful connection to the begin of a close.
  public internal(set) var isConnected = false
  /// The rings; empty without a connection.
  public internal(set) var queues: [NetFrontendQueue] = []
  /// The control ring, if one was shared.
  public internal(set) var control: NetFrontendControl?
  /// Events sent to the backend.
  public private(set) var notificationCount: UInt64 = 0
  /// Events that came from it.
  public private(set) var eventCount: UInt64 = 0
  /// Times that ``wait(timeoutMilliseconds:)`` slept.
  public private(set) var sleepCount: UInt64 = 0

  let sharing: any GrantSharing
  let events: any EventChannels

  /// Opens the host's facilities and reads where the backend is; nothing is written yet.
  public init(
    hypervisor: any Hypervisor, domain: DomainID, device: UInt32, options: NetFrontendOptions = .init()
  ) throws(NetFrontendError) {
    self.domain = domain
    self.device = device
    self.options = options
    let store: StoreClient
    do throws(HostError) {
      store = try hypervisor.openStore()
      sharing = try hypervisor.openGrantSharing()
      events = try hypervisor.openEventChannels()
    } catch {
      throw .host(error)
    }
    do throws(FrontendDirectoryError) {
      directory = try FrontendDirectory(store: store, kind: "vif", domain: domain, device: device)
    } catch {
      throw .directory(error)
    }
  }

  deinit { dropQueues() }

  /// Closes the ports and ends the grants.
  func dropQueues() {
    for queue in queues {
      events.unbind(queue.transmitPort)
      if !queue.isJoint { events.unbind(queue.receivePort) }
    }
    queues = []
    if let control { events.unbind(control.port) }
    control = nil
  }

  /// The first queue.
  public func queue() throws(NetFrontendError) -> NetFrontendQueue {
    guard let queue = queues.first else { throw .notConnected }
    return queue
  }

  /// What packets to the backend may need of it: what it takes, as Linux's netfront looks at it
  /// (xennet_fix_features).
  public var transmitOffloads: NetOffloads { features.offloads }

  /// Packets between both ends in all queues since the connection: sent and answered, received.
  public var packetCounts: (sent: UInt64, received: UInt64) {
    queues.reduce((0, 0)) { ($0.0 + $1.transmitter.packetCount, $0.1 + $1.receiver.packetCount) }
  }

  // MARK: Events

  /// Lets the backend see all that was placed and posted, and signals it where it asked for that.
  public func push() throws(NetFrontendError) {
    for queue in queues { try push(queue) }
  }

  /// ``push()`` for one queue; one event for both rings where they share it.
  public func push(_ queue: NetFrontendQueue) throws(NetFrontendError) {
    let transmits = queue.transmitter.push()
    let receives = queue.receiver.push() && options.notifiesOnPosting
    if transmits || receives && queue.isJoint { try notify(queue.transmitPort) }
    if receives && !queue.isJoint { try notify(queue.receivePort) }
  }

  /// Signals the backend, whether it asked for that or not.
  public func notify(_ port: Port) throws(NetFrontendError) {
    notificationCount += 1
    do throws(EventChannelError) {
      try events.notify(port)
    } catch {
      throw .events(error)
    }
  }

  /// Readable when a port is pending.
  public var eventDescriptor: Int32 { events.descriptor }

  /// Takes the pending events, so that the next ones are told.
  public func takeEvents() {
    while let port = events.nextPending() {
      eventCount += 1
      events.unmask(port)
    }
  }

  // MARK: Waiting

  /// Waits until a response of any ring can be taken: true then, false when the time is over. Throws when the
  /// backend closes meanwhile.
  public func wait(timeoutMilliseconds: Int) throws(NetFrontendError) -> Bool {
    let deadline = Deadline(milliseconds: timeoutMilliseconds)
    while true {
      var isReady = false
      for queue in queues where try queue.requestEvents() { isReady = true }
      if isReady { return true }
      let left = deadline.left
      guard left > 0 else { return false }
      try sleep(atMost: left)
    }
  }

  /// Sleeps until an event channel or xenstore has something to say, and takes note of it.
  func sleep(atMost nanoseconds: UInt64) throws(NetFrontendError) {
    sleepCount += 1
    let ready: (first: Bool, second: Bool)
    do throws(SystemError) {
      ready = try EventWait.wait(
        events.descriptor, directory.store.descriptor, nanoseconds: min(nanoseconds, 1_000_000_000))
    } catch {
      throw .system(error)
    }
    if ready.first { takeEvents() }
    if ready.second { try poll() }
  }
}
