public import RingKit

/// A block frontend in userspace: it negotiates as Linux's xen-blkfront does, submits requests and checks the
/// backend's answers.
///
/// It belongs to one thread. Everything it asks of the host goes through the seams, so it serves on Xen and
/// on Loopback alike.
public final class BlockFrontend {
  /// The domain this process is.
  public let domain: DomainID
  /// The disk's number (docs/man/xen-vbd-interface.7).
  public let device: UInt32
  /// Its directory in xenstore and the backend's state.
  public let directory: FrontendDirectory
  /// How to negotiate. Changes count at the next ``connect(timeoutMilliseconds:)``; the ABI and the grants'
  /// lifetime only at one without requests in flight.
  public var options: BlockFrontendOptions
  /// What the backend offered at the last connection.
  public internal(set) var features: BackendFeatures?
  /// The disk, while connected; its size changes when the backend says so.
  public internal(set) var disk: DiskProperties?
  /// Called with the disk's new size, in units of 512 bytes, when the backend resized it. Changes are noticed
  /// by ``wait(timeoutMilliseconds:)``, ``poll()`` and ``waitForResize(timeoutMilliseconds:)``.
  public var onResize: ((UInt64) -> Void)?
  /// True from the end of a successful connection to the begin of a close.
  public internal(set) var isConnected = false
  /// The rings; empty without a connection.
  public internal(set) var queues: [BlockFrontendQueue] = []
  /// Events sent to the backend.
  public private(set) var notificationCount: UInt64 = 0
  /// Times that ``wait(timeoutMilliseconds:)`` slept.
  public private(set) var sleepCount: UInt64 = 0

  let sharing: any GrantSharing
  let events: any EventChannels

  /// Opens the host's facilities and reads where the backend is; nothing is written yet.
  public init(
    hypervisor: any Hypervisor, domain: DomainID, device: UInt32, options: BlockFrontendOptions = .init()
  ) throws(BlockFrontendError) {
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
      directory = try FrontendDirectory(store: store, kind: "vbd", domain: domain, device: device)
    } catch {
      throw .directory(error)
    }
  }

  deinit { dropQueues() }

  /// Closes the ports and ends the grants.
  func dropQueues() {
    for queue in queues { events.unbind(queue.port) }
    queues = []
  }

  // MARK: Requests of the first queue

  /// The first queue.
  public func queue() throws(BlockFrontendError) -> BlockFrontendQueue {
    guard let queue = queues.first else { throw .notConnected }
    return queue
  }

  /// Prepares a request of the first queue; see ``BlockFrontendQueue/prepare(_:)``.
  public func prepare(_ request: BlockFrontRequest) throws(BlockFrontendError) -> RequestHandle? {
    try queue().prepare(request)
  }

  /// Places a prepared request in its ring.
  public func submit(_ handle: RequestHandle) { queues[handle.queue].submit(handle) }

  /// Prepares and places a request whose data does not matter yet (a read, a flush); nil when there is no
  /// room.
  public func submit(_ request: BlockFrontRequest) throws(BlockFrontendError) -> RequestHandle? {
    let queue = try queue()
    guard let handle = try queue.prepare(request) else { return nil }
    queue.submit(handle)
    return handle
  }

  /// Gives a completed request back.
  public func release(_ handle: RequestHandle) { queues[handle.queue].release(handle) }

  /// Lets the backend see all that was placed, and signals it where it asked for that.
  public func push() throws(BlockFrontendError) {
    for queue in queues where queue.push() { try kick(queue) }
  }

  /// Signals the backend, whether it asked for that or not.
  public func kick(_ queue: BlockFrontendQueue) throws(BlockFrontendError) {
    notificationCount += 1
    do throws(EventChannelError) {
      try events.notify(queue.port)
    } catch {
      throw .events(error)
    }
  }

  /// Takes the next response of any queue; nil when there is none.
  public func nextCompletion() throws(BlockFrontendError) -> BlockCompletion? {
    for queue in queues {
      if let completion = try queue.nextCompletion() { return completion }
    }
    return nil
  }

  /// Requests in flight in all queues.
  public var outstanding: Int { queues.reduce(0) { $0 + $1.outstanding } }

  // MARK: Waiting

  /// Waits until a response can be taken: true then, false when the time is over. Throws when the backend
  /// closes meanwhile.
  public func wait(timeoutMilliseconds: Int) throws(BlockFrontendError) -> Bool {
    let deadline = Deadline(milliseconds: timeoutMilliseconds)
    if options.spinNanoseconds > 0 {
      let end = MonotonicClock.nowNanoseconds() + options.spinNanoseconds
      repeat {
        if try hasResponses() { return true }
      } while MonotonicClock.nowNanoseconds() < end
    }
    var isReady = false
    for queue in queues where try queue.finalCheck() { isReady = true }
    while !isReady {
      let left = deadline.left
      guard left > 0 else { return false }
      try sleep(atMost: left)
      isReady = try hasResponses()
    }
    return true
  }

  private func hasResponses() throws(BlockFrontendError) -> Bool {
    for queue in queues where try queue.hasResponses() { return true }
    return false
  }

  /// Sleeps until an event channel or xenstore has something to say, and takes note of it.
  private func sleep(atMost nanoseconds: UInt64) throws(BlockFrontendError) {
    sleepCount += 1
    let ready: (first: Bool, second: Bool)
    do throws(SystemError) {
      ready = try EventWait.wait(events.descriptor, directory.store.descriptor, nanoseconds: nanoseconds)
    } catch {
      throw .system(error)
    }
    if ready.first { takeEvents() }
    if ready.second { try poll() }
  }

  private func takeEvents() {
    while let port = events.nextPending() { events.unmask(port) }
  }
}
