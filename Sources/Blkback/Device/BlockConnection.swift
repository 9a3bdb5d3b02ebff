public import RingKit
import Synchronization

/// What a disk needs to serve a connected frontend.
public struct BlockConnectionPlan: Sendable {
  /// The frontend's domain.
  public var domain: DomainID
  /// What the frontend asked for.
  public var parameters: FrontendParameters
  /// The rules for its requests.
  public var limits: BlockLimits
  /// The bytes; nil while the disk is paused: then the queues wait for a store.
  public var store: (any BlockStore)?
  /// Whether they can be trusted.
  public var health: DiskHealth
  /// How much the disk may do.
  public var limiter: RateLimiter
  /// Bytes of a thread's buffer pool that one queue may hold.
  public var bufferShareByteCount: Int
  /// Guest pages that one queue may keep mapped, where that was negotiated, and for how long unused.
  public var persistentPageLimit = 4096
  /// Nanoseconds after which an unused one is let go.
  public var persistentIdleNanoseconds: UInt64 = 60_000_000_000

  /// Gathers a plan.
  public init(
    domain: DomainID, parameters: FrontendParameters, limits: BlockLimits, store: (any BlockStore)?,
    health: DiskHealth, limiter: RateLimiter, bufferShareByteCount: Int
  ) {
    self.domain = domain
    self.parameters = parameters
    self.limits = limits
    self.store = store
    self.health = health
    self.limiter = limiter
    self.bufferShareByteCount = bufferShareByteCount
  }
}

/// The queues of one connection of a disk, spread over data threads. Held by control work; all it does
/// happens on the threads, and what comes of it is reported by call-backs from there.
public final class BlockConnection: Sendable {
  /// A queue that lives on a thread.
  struct LiveQueue: Sendable {
    let thread: DataThread<BlockQueue>
    let key: QueueKey
    let reference: QueueReference
  }

  /// Carries a queue to its own thread and back.
  final class QueueReference: @unchecked Sendable {
    // Sound: only the thread that owns the queue reads or clears this.
    var queue: BlockQueue?
    init(_ queue: BlockQueue) { self.queue = queue }
  }

  private let live = Mutex<[LiveQueue]>([])
  /// The queues' numbers, in order.
  public let statistics: [BlockStatistics]
  /// Slots of each ring.
  public let slotCount: Int
  private let plan: BlockConnectionPlan
  /// Keeps writes to parts of one block apart; a single queue does so by itself.
  private let ranges: BlockRangeLock?
  private let reportFault: @Sendable (VbdError) -> Void

  /// The rings and ports that are served.
  var frontendQueues: [FrontendParameters.Queue] { plan.parameters.queues }

  /// Whether both sides agreed that granted pages stay mapped.
  public var usesPersistentGrants: Bool { plan.parameters.usesPersistentGrants }

  /// Prepares a connection; ``open(on:firstThread:done:)`` makes it. `reportFault` hears of a frontend that
  /// breaks a ring's rules.
  public init(plan: BlockConnectionPlan, reportFault: @escaping @Sendable (VbdError) -> Void) {
    // The store is given to open() and not kept, so that a pause can close it.
    var plan = plan
    firstStore = Mutex(plan.store)
    plan.store = nil
    self.plan = plan
    self.reportFault = reportFault
    statistics = plan.parameters.queues.map { _ in BlockStatistics() }
    ranges = plan.parameters.queues.count > 1 ? BlockRangeLock(capacity: 256) : nil
    let pages = plan.parameters.queues.first?.ringReferences.count ?? 1
    slotCount = RingGeometry(pageCount: pages, slotByteCount: plan.parameters.abi.requestByteCount).slotCount
  }

  private let firstStore: Mutex<(any BlockStore)?>

  /// Maps the rings and binds the ports, each queue on a thread of its own as far as there are threads.
  /// `done` is called once, from a data thread: with nil, or with what failed after everything was undone.
  public func open(
    on threads: [DataThread<BlockQueue>], firstThread: Int, done: @escaping @Sendable (VbdError?) -> Void
  ) {
    precondition(!threads.isEmpty)
    let queues = plan.parameters.queues
    let store = firstStore.withLock { store in
      defer { store = nil }
      return store
    }
    let countdown = Countdown<VbdError>(queues.count) { [self] failure in
      if let failure {
        close { done(failure) }
      } else {
        done(nil)
      }
    }
    for index in queues.indices {
      let thread = threads[(firstThread + index) % threads.count]
      let wasAccepted = thread.perform { loop in
        do throws(VbdError) {
          let (key, queue) = try self.openQueue(index, of: store, on: loop, thread)
          let opened = LiveQueue(thread: thread, key: key, reference: QueueReference(queue))
          self.live.withLock { $0.append(opened) }
          countdown.answer()
        } catch {
          countdown.answer(error)
        }
      }
      if !wasAccepted { countdown.answer(VbdError("the daemon is stopping")) }
    }
  }

  /// Stops taking requests, finishes those taken, then unbinds and unmaps everything; `done` is called once
  /// after that, from a data thread or at once when there is nothing to close.
  public func close(done: @escaping @Sendable () -> Void) {
    let closing = live.withLock { live in
      defer { live = [] }
      return live
    }
    guard !closing.isEmpty else {
      done()
      return
    }
    let countdown = Countdown<VbdError>(closing.count) { _ in done() }
    for queue in closing {
      let wasAccepted = queue.thread.perform { loop in
        queue.reference.queue?.close {
          queue.reference.queue?.dispose()
          loop.remove(queue.key)
          queue.reference.queue = nil
          // The loop lets the queue go at the end of its turn; only then are its pages unmapped.
          if !queue.thread.perform({ _ in countdown.answer() }) { countdown.answer() }
        }
        loop.wake(queue.key)
      }
      if !wasAccepted { countdown.answer() }
    }
  }

  /// Has every queue do something on its thread, and joins their answers: `done` is called once, from any
  /// thread. A queue that is gone answers at once.
  func ask(
    _ question:
      @escaping @Sendable (
        BlockQueue, StoreChannelPlace, _ answer: @escaping @Sendable (VbdError?) -> Void
      ) -> Void, done: @escaping @Sendable (VbdError?) -> Void
  ) {
    let asked = live.withLock { $0 }
    guard !asked.isEmpty else {
      done(nil)
      return
    }
    let countdown = Countdown<VbdError>(asked.count, done: done)
    for queue in asked {
      let wasAccepted = queue.thread.perform { [slotCount] loop in
        guard let living = queue.reference.queue else {
          countdown.answer()
          return
        }
        let place = StoreChannelPlace(loop: loop, key: queue.key, callCapacity: slotCount)
        question(living, place) { countdown.answer($0) }
        loop.wake(queue.key)
      }
      if !wasAccepted { countdown.answer() }
    }
  }

  /// Makes one queue on the thread that will own it.
  private func openQueue(
    _ index: Int, of store: (any BlockStore)?, on loop: DataLoop<BlockQueue>, _ thread: DataThread<BlockQueue>
  ) throws(VbdError) -> (QueueKey, BlockQueue) {
    let parameters = plan.parameters.queues[index]
    do {
      let pages = try loop.grants.map(parameters.ringReferences, of: plan.domain, access: .readWrite)
      let slotByteCount = plan.parameters.abi.requestByteCount
      // A new ring's rsp_prod is 0; after another daemon, which answered all it took, it says where to go on.
      let ring = try BackRing(attaching: pages, slotByteCount: slotByteCount)
      let slots = ring.slotCount
      let segments = max(maximumDirectSegments, plan.limits.maximumIndirectSegments)
      let engine = try BlockQueueEngine<RingBlockHost>(
        ring: ring, abi: plan.parameters.abi, domain: plan.domain,
        usesPersistentGrants: plan.parameters.usesPersistentGrants,
        validator: RequestValidator(limits: plan.limits))
      // A queue's name comes first, because its I/O carries it.
      guard let key = loop.reserve() else {
        throw VbdError(
          "data thread \(loop.number) owns as many queues as it can; start the daemon with more threads")
      }
      let channel: any StoreChannel
      do {
        channel =
          try store?.openChannel(StoreChannelPlace(loop: loop, key: key, callCapacity: slots))
          ?? ClosedChannel()
      } catch {
        loop.remove(key)
        throw error
      }
      let host = RingBlockHost(
        loop: loop, key: key, share: BufferShare(limitByteCount: plan.bufferShareByteCount),
        persistent: PersistentGrants(
          domain: plan.domain, capacity: min(slots * segments, plan.persistentPageLimit),
          idleNanoseconds: plan.persistentIdleNanoseconds),
        vectorCapacity: BlockQueueEngine<RingBlockHost>.vectorCapacity(slots: slots, segments: segments),
        channel: channel, medium: store?.geometry ?? EmptyStore().geometry, discardSupport: store?.discard,
        health: plan.health, limiter: plan.limiter, ranges: ranges,
        wake: { thread.perform { $0.wake(key) } }, statistics: statistics[index])
      let queue = BlockQueue(
        engine: engine, host: host, statistics: statistics[index], reportFault: reportFault)
      if store == nil { queue.beginPaused() }
      loop.install(queue, as: key)
      do {
        queue.adopt(port: try loop.bind(key, domain: plan.domain, remotePort: parameters.port))
      } catch {
        queue.dispose()
        loop.remove(key)
        throw error
      }
      return (key, queue)
    } catch let error as VbdError {
      throw error
    } catch {
      throw VbdError("\(error)")
    }
  }
}
