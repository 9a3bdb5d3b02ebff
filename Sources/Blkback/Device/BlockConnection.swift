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
  /// The bytes.
  public var store: any BlockStore
  /// Whether they can be trusted.
  public var health: DiskHealth
  /// Bytes of a thread's buffer pool that one queue may hold.
  public var bufferShareByteCount: Int

  /// Gathers a plan.
  public init(
    domain: DomainID, parameters: FrontendParameters, limits: BlockLimits, store: any BlockStore,
    health: DiskHealth, bufferShareByteCount: Int
  ) {
    self.domain = domain
    self.parameters = parameters
    self.limits = limits
    self.store = store
    self.health = health
    self.bufferShareByteCount = bufferShareByteCount
  }
}

/// The queues of one connection of a disk, spread over data threads. Held by control work; all it does
/// happens on the threads, and what comes of it is reported by call-backs from there.
public final class BlockConnection: Sendable {
  /// A queue that lives on a thread.
  private struct LiveQueue: Sendable {
    let thread: DataThread<BlockQueue>
    let key: QueueKey
    let reference: QueueReference
  }

  /// Carries a queue to its own thread and back.
  private final class QueueReference: @unchecked Sendable {
    // Sound: only the thread that owns the queue reads or clears this.
    var queue: BlockQueue?
    init(_ queue: BlockQueue) { self.queue = queue }
  }

  private struct State {
    var live: [LiveQueue] = []
    var failure: VbdError?
    var waiting = 0
  }

  private let state = Mutex(State())
  /// The queues' numbers, in order.
  public let statistics: [BlockStatistics]
  /// Slots of each ring.
  public let slotCount: Int
  private let plan: BlockConnectionPlan
  private let reportFault: @Sendable (VbdError) -> Void

  /// Whether both sides agreed that granted pages stay mapped.
  public var usesPersistentGrants: Bool { plan.parameters.usesPersistentGrants }

  /// Prepares a connection; ``open(on:firstThread:done:)`` makes it. `reportFault` hears of a frontend that
  /// breaks a ring's rules.
  public init(plan: BlockConnectionPlan, reportFault: @escaping @Sendable (VbdError) -> Void) {
    self.plan = plan
    self.reportFault = reportFault
    statistics = plan.parameters.queues.map { _ in BlockStatistics() }
    let pages = plan.parameters.queues.first?.ringReferences.count ?? 1
    slotCount = RingGeometry(pageCount: pages, slotByteCount: plan.parameters.abi.requestByteCount).slotCount
  }

  /// Maps the rings and binds the ports, each queue on a thread of its own as far as there are threads.
  /// `done` is called once, from a data thread: with nil, or with what failed after everything was undone.
  public func open(
    on threads: [DataThread<BlockQueue>], firstThread: Int, done: @escaping @Sendable (VbdError?) -> Void
  ) {
    precondition(!threads.isEmpty)
    let queues = plan.parameters.queues
    state.withLock { $0.waiting = queues.count }
    for index in queues.indices {
      let thread = threads[(firstThread + index) % threads.count]
      let wasAccepted = thread.perform { loop in
        do throws(VbdError) {
          let (key, queue) = try self.openQueue(index, on: loop)
          let live = LiveQueue(thread: thread, key: key, reference: QueueReference(queue))
          self.state.withLock { $0.live.append(live) }
          self.finishOpening(nil, done)
        } catch {
          self.finishOpening(error, done)
        }
      }
      if !wasAccepted { finishOpening(VbdError("the daemon is stopping"), done) }
    }
  }

  private func finishOpening(_ failure: VbdError?, _ done: @escaping @Sendable (VbdError?) -> Void) {
    let (isLast, first) = state.withLock { state in
      state.waiting -= 1
      state.failure = state.failure ?? failure
      return (state.waiting == 0, state.failure)
    }
    guard isLast else { return }
    if let first {
      close { done(first) }
    } else {
      done(nil)
    }
  }

  /// Stops taking requests, finishes those taken, then unbinds and unmaps everything; `done` is called once
  /// after that, from a data thread or at once when there is nothing to close.
  public func close(done: @escaping @Sendable () -> Void) {
    let live = state.withLock { state in
      let live = state.live
      state.live = []
      state.waiting = live.count
      return live
    }
    guard !live.isEmpty else {
      done()
      return
    }
    for queue in live {
      let wasAccepted = queue.thread.perform { loop in
        queue.reference.queue?.close {
          queue.reference.queue?.dispose()
          loop.remove(queue.key)
          queue.reference.queue = nil
          // The loop lets the queue go at the end of its turn; only then are its pages unmapped.
          if !queue.thread.perform({ _ in self.finishClosing(done) }) { self.finishClosing(done) }
        }
        loop.wake(queue.key)
      }
      if !wasAccepted { finishClosing(done) }
    }
  }

  private func finishClosing(_ done: @escaping @Sendable () -> Void) {
    let isLast = state.withLock { state in
      state.waiting -= 1
      return state.waiting == 0
    }
    if isLast { done() }
  }

  /// Makes one queue on the thread that will own it.
  private func openQueue(_ index: Int, on loop: DataLoop<BlockQueue>) throws(VbdError) -> (
    QueueKey, BlockQueue
  ) {
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
        channel = try plan.store.openChannel(StoreChannelPlace(loop: loop, key: key, callCapacity: slots))
      } catch {
        loop.remove(key)
        throw error
      }
      let host = RingBlockHost(
        loop: loop, key: key, share: BufferShare(limitByteCount: plan.bufferShareByteCount),
        persistent: PersistentGrants(domain: plan.domain, capacity: slots * segments),
        vectorCapacity: BlockQueueEngine<RingBlockHost>.vectorCapacity(slots: slots, segments: segments),
        channel: channel, medium: plan.store.geometry, discardSupport: plan.store.discard,
        health: plan.health, statistics: statistics[index])
      let queue = BlockQueue(
        engine: engine, host: host, statistics: statistics[index], reportFault: reportFault)
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
