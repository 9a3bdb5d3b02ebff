import Glibc

/// The inside of a data thread: its ring, buffers, grants and ports, and the queues it owns. Only that thread
/// has it: queues keep it while they live there, and other threads reach it through
/// ``DataThread/perform(_:)``.
@safe
public final class DataLoop<Queue: DataQueue> {
  @usableFromInline
  struct State {
    @usableFromInline var now: UInt64 = 0
    /// When the ring's timeout fires; max when none is armed.
    @usableFromInline var armed: UInt64 = .max
    @usableFromInline var turns: UInt64 = 0
    @usableFromInline var portsReady = false
    @usableFromInline var mailReady = false
    @usableFromInline var callsReady = false
    @usableFromInline var isStopping = false
    /// The longest time to look for work before sleeping; 0 for never.
    @usableFromInline var pollLimit: UInt64 = 0
    /// The time to look for now.
    @usableFromInline var window: UInt64 = 0
    /// When there was nothing to do any more; 0 while there is.
    @usableFromInline var idleSince: UInt64 = 0
    /// Work came in this turn.
    @usableFromInline var sawWork = false
    @usableFromInline var pollFindings: UInt64 = 0
    @usableFromInline init() {}
  }

  /// The thread's ring. Requests of queues carry tokens made by their key.
  public let ring: IORing
  /// The thread's buffers.
  public let pool: BufferPool
  /// The pool's number among the ring's registered buffers; nil when the kernel did not let us register it.
  public let poolRegistration: UInt16?
  /// The thread's grant table handle.
  public let grants: any GrantTable
  /// The thread's event channels.
  public let events: any EventChannels
  /// The thread's number, from 0.
  public let number: Int

  // Sound: allocated from init to deinit, used by this thread alone.
  @usableFromInline let state: UnsafeMutablePointer<State>
  @usableFromInline let table: QueueTable<Queue>
  let mailbox: Mailbox<@Sendable (DataLoop<Queue>) -> Void>
  /// Queues that found the pool too empty, each once.
  @usableFromInline var bufferWaiters: [QueueKey] = []
  private let eventDescriptor: Int32
  /// Threads for what the ring has no operation for; nil until ``prepareChanges()``.
  var calls: BlockingCalls?
  var isWatchingCalls = false
  @usableFromInline private(set) var failure: SystemError?

  @usableFromInline
  init(
    number: Int, hypervisor: any Hypervisor, configuration: DataThreadConfiguration,
    mailbox: Mailbox<@Sendable (DataLoop<Queue>) -> Void>
  ) throws(HostError) {
    self.number = number
    self.mailbox = mailbox
    grants = try hypervisor.openGrantTable()
    events = try hypervisor.openEventChannels()
    eventDescriptor = events.descriptor
    ring = try IORing.open(entries: configuration.ringEntries, engine: configuration.engine)
    do {
      pool = try BufferPool(byteCount: configuration.poolByteCount)
    } catch {
      let size = configuration.poolByteCount
      throw HostError("buffer pool of \(size) bytes: \(error); configure a smaller one")
    }
    let isRegistered: Void? = configuration.registersPool ? try? ring.registerBuffers([pool.arena]) : nil
    poolRegistration = isRegistered == nil ? nil : 0
    table = QueueTable(capacity: configuration.queueCapacity)
    unsafe state = .allocate(capacity: 1)
    unsafe state.initialize(to: State())
    unsafe state.pointee.now = MonotonicClock.nowNanoseconds()
    unsafe state.pointee.pollLimit = Self.pollLimit(configuration.pollNanoseconds)
  }

  deinit { unsafe state.deallocate() }

  /// Nanoseconds of CLOCK_MONOTONIC when this turn began.
  @inlinable public var now: UInt64 { unsafe state.pointee.now }

  /// Turns the loop has made.
  public var turnCount: UInt64 { unsafe state.pointee.turns }

  /// Takes a queue over; nil when the thread owns as many as it can.
  public func add(_ queue: Queue) -> QueueKey? {
    guard let key = table.reserve() else { return nil }
    table.install(queue, as: key)
    return key
  }

  /// Reserves the name of a queue that is still to be made, because its I/O carries it; nil when the thread
  /// owns as many as it can. ``install(_:as:)`` or ``remove(_:)`` follows.
  public func reserve() -> QueueKey? { table.reserve() }

  /// Takes over the queue that `key` was reserved for.
  public func install(_ queue: Queue, as key: QueueKey) { table.install(queue, as: key) }

  /// Binds a port of the queue's, at most two of them; it is pending at once, so the queue is kicked.
  public func bind(
    _ key: QueueKey, domain: DomainID, remotePort: Port
  ) throws(EventChannelError) -> Port {
    let operation = "bind event channel \(remotePort.rawValue) of domain \(domain)"
    guard let index = table.find(key), unsafe table.slots[index].secondPort == nil else {
      throw EventChannelError(operation: operation, errno: EINVAL)
    }
    let port = try events.bind(domain: domain, remotePort: remotePort)
    guard table.setPort(port, of: index) else {
      events.unbind(port)
      throw EventChannelError(operation: operation, errno: ERANGE)
    }
    return port
  }

  /// Lets a queue go: its ports are unbound, and completions of requests still in flight are dropped when they
  /// come. The memory of such requests must stay; drain a queue before removing it. A key that means nothing
  /// is ignored.
  public func remove(_ key: QueueKey) {
    let (wasPresent, ports) = table.remove(key)
    guard wasPresent else { return }
    for port in ports { events.unbind(port) }
    // Vector tables of the queue may go with it; a submitted request needs its table no more.
    if ring.unsubmittedCount > 0 { try? ring.submit() }
  }

  /// Runs the queue in the next turn, as after a completion.
  @inlinable
  public func wake(_ key: QueueKey) {
    if let index = table.find(key) { table.makeRunnable(index) }
  }

  /// Runs the queue at `nanoseconds` of CLOCK_MONOTONIC, instead of at the time set before; nil for never.
  @inlinable
  public func schedule(_ key: QueueKey, atNanoseconds nanoseconds: UInt64?) {
    guard let index = table.find(key) else { return }
    unsafe table.slots[index].runAt = nanoseconds ?? .max
    if let nanoseconds { table.note(deadline: nanoseconds) }
  }

  /// Runs the queue once buffers were given back to the pool, by whichever queue, and it was told of it.
  public func waitForBuffers(_ key: QueueKey) {
    if !bufferWaiters.contains(key) { bufferWaiters.append(key) }
  }

  /// Tells those who wait that the pool has got something back.
  @inlinable
  public func buffersReleased() {
    if !bufferWaiters.isEmpty { wakeBufferWaiters() }
  }

  @usableFromInline
  func wakeBufferWaiters() {
    for key in bufferWaiters { wake(key) }
    bufferWaiters.removeAll(keepingCapacity: true)
  }

  /// The token of a request of the queue, the same as `key.token(token)`.
  @inlinable
  public func token(for key: QueueKey, _ token: UInt32) -> UInt64 { key.token(token) }

  /// Reads into a segment of the pool, by its registration where there is one.
  @inlinable
  public func readPooled(_ file: IOFile, at offset: UInt64, into segment: IOSegment, token: UInt64) {
    if let buffer = poolRegistration {
      ring.readFixed(file, at: offset, into: segment, buffer: buffer, token: token)
    } else {
      ring.read(file, at: offset, into: segment, token: token)
    }
  }

  /// Writes from a segment of the pool, by its registration where there is one.
  @inlinable
  public func writePooled(_ file: IOFile, at offset: UInt64, from segment: IOSegment, token: UInt64) {
    if let buffer = poolRegistration {
      ring.writeFixed(file, at: offset, from: segment, buffer: buffer, token: token)
    } else {
      ring.write(file, at: offset, from: segment, token: token)
    }
  }

  /// Ends the loop after this turn.
  func stop() { unsafe state.pointee.isStopping = true }

  /// Ends the loop because it cannot go on.
  @usableFromInline
  func fail(_ error: SystemError) {
    failure = failure ?? error
    stop()
  }

  @usableFromInline
  func armEvents() {
    ring.pollReadable(IOFile(descriptor: eventDescriptor), token: LoopToken.events)
  }

  @usableFromInline
  func armMail() {
    ring.pollReadable(IOFile(descriptor: mailbox.descriptor), token: LoopToken.mail)
  }

  @usableFromInline
  func runMail() {
    for message in mailbox.take() { message(self) }
  }

  /// Kicks the owners of all pending ports. Each port is masked as it comes, so there is an end to them.
  @usableFromInline
  func drainPorts() {
    while let port = events.nextPending() {
      guard let index = table.owner(of: port) else { continue }
      unsafe table.slots[index].isMasked = true
      unsafe table.slots[index].unmaskAt = .max
      if unsafe state.pointee.pollLimit > 0 {
        // An event without a cause is no work: it must not make the loop look longer.
        let hasWork = unsafe table.slots[index].queue?._withUnsafeGuaranteedRef { $0.hasWork() } ?? false
        if hasWork { unsafe state.pointee.sawWork = true }
      }
      unsafe table.slots[index].queue?._withUnsafeGuaranteedRef { $0.kicked() }
      table.makeRunnable(index)
    }
  }

  /// Does what is due: unmasks ports that were held, makes queues runnable; finds the next deadline.
  @usableFromInline
  func expire() {
    let now = now
    var earliest = UInt64.max
    for index in 0..<table.capacity where unsafe table.slots[index].queue != nil {
      if unsafe table.slots[index].unmaskAt <= now { unmask(index) }
      if unsafe table.slots[index].runAt <= now {
        unsafe table.slots[index].runAt = .max
        table.makeRunnable(index)
      }
      earliest = unsafe min(earliest, table.slots[index].unmaskAt, table.slots[index].runAt)
    }
    unsafe table.state.pointee.earliest = earliest
  }

  @usableFromInline
  func unmask(_ index: Int) {
    unsafe table.slots[index].unmaskAt = .max
    unsafe table.slots[index].isMasked = false
    if let port = unsafe table.slots[index].port { events.unmask(port) }
    if let port = unsafe table.slots[index].secondPort { events.unmask(port) }
  }

  /// Makes the ring's one timeout fire at the earliest deadline, or before.
  @usableFromInline
  func armTimer() {
    let (armed, wanted) = unsafe (state.pointee.armed, table.state.pointee.earliest)
    unsafe state.pointee.armed = wanted
    if armed == .max {
      ring.timeout(atNanoseconds: wanted, token: LoopToken.timer)
    } else {
      ring.moveTimeout(LoopToken.timer, toNanoseconds: wanted, token: LoopToken.ignored)
    }
  }

  @usableFromInline
  func releaseRemoved() { table.releaseRemoved() }

  /// Ends all requests, waits for them, and lets ports and queues go. Waits as long as the storage takes:
  /// memory that the kernel may still write cannot be given back.
  @usableFromInline
  func windDown() {
    mailbox.closeForGood()
    runMail()
    ring.cancelAll(token: LoopToken.ignored)
    while ring.inFlightCount > 0 {
      do { try ring.submitAndWait(minimum: 1) } catch { break }
      while ring.nextCompletion() != nil {}
    }
    // Waits for what its threads still do.
    calls = nil
    for port in table.removeAll() { events.unbind(port) }
    // Queues may hold the loop, which holds them: the circle ends here.
    releaseRemoved()
  }
}
