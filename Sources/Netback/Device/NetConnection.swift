import RingKit
import Synchronization

/// What an interface needs to serve a connected frontend.
struct NetConnectionPlan: Sendable {
  /// The frontend's domain.
  var domain: DomainID
  /// What the frontend asked for.
  var parameters: NetFrontendParameters
  /// Each queue's end of the link, in order.
  var links: [NetLinkQueue]
  /// The largest frame that comes from the link without segmentation.
  var frameByteCount: Int
  /// How much the interface may do.
  var limiter: RateLimiter
  /// What the frontend listens to.
  var multicast: MulticastList
  /// Bytes of a thread's buffer pool that one queue may hold.
  var bufferShareByteCount: Int
}

/// What a connection's queues report of themselves.
enum NetConnectionNews: Sendable {
  /// The frontend broke the rules of a ring.
  case fault(VifError)
  /// The frontend takes no packets any more (true), or does so again, on all of its queues.
  case stalled(Bool)
}

/// The queues of one connection of an interface, spread over data threads. Held by control work; all it does
/// happens on the threads, and what comes of it is reported by call-backs from there.
final class NetConnection: Sendable {
  /// A queue that lives on a thread.
  private struct LiveQueue: Sendable {
    let thread: DataThread<NetQueue>
    let key: QueueKey
    let reference: QueueReference
  }

  /// Carries a queue to its own thread and back.
  private final class QueueReference: @unchecked Sendable {
    // Sound: only the thread that owns the queue reads or clears this.
    var queue: NetQueue?
    init(_ queue: NetQueue) { self.queue = queue }
  }

  private let plan: NetConnectionPlan
  private let live = Mutex<[LiveQueue]>([])
  private let report: @Sendable (NetConnectionNews) -> Void
  /// The queues that have stalled.
  private let stalled = Mutex<Set<Int>>([])
  /// The queues' numbers, in order.
  let statistics: [NetStatistics]
  /// What the frontend has agreed to.
  var parameters: NetFrontendParameters { plan.parameters }

  /// Prepares a connection; ``open(on:firstThread:done:)`` makes it.
  init(plan: NetConnectionPlan, report: @escaping @Sendable (NetConnectionNews) -> Void) {
    precondition(plan.links.count == plan.parameters.queues.count)
    self.plan = plan
    self.report = report
    statistics = plan.parameters.queues.map { _ in NetStatistics() }
  }

  /// Maps the rings and binds the ports, each queue on a thread of its own as far as there are threads.
  /// `done` is called once, from a data thread: with nil, or with what failed after everything was undone.
  func open(
    on threads: [DataThread<NetQueue>], firstThread: Int, done: @escaping @Sendable (VifError?) -> Void
  ) {
    precondition(!threads.isEmpty)
    let queues = plan.parameters.queues
    let countdown = Countdown<VifError>(queues.count) { [self] failure in
      if let failure {
        close { done(failure) }
      } else {
        done(nil)
      }
    }
    for index in queues.indices {
      let thread = threads[(firstThread + index) % threads.count]
      let wasAccepted = thread.perform { loop in
        do throws(VifError) {
          let (key, queue) = try self.openQueue(index, on: loop, thread)
          let opened = LiveQueue(thread: thread, key: key, reference: QueueReference(queue))
          self.live.withLock { $0.append(opened) }
          countdown.answer()
        } catch {
          countdown.answer(error)
        }
      }
      if !wasAccepted { countdown.answer(VifError("the daemon is stopping")) }
    }
  }

  /// Stops taking packets, finishes what is under way, then unbinds and unmaps everything; `done` is called
  /// once after that, from a data thread or at once when there is nothing to close.
  func close(done: @escaping @Sendable () -> Void) {
    let closing = live.withLock { live in
      defer { live = [] }
      return live
    }
    guard !closing.isEmpty else {
      done()
      return
    }
    let countdown = Countdown<VifError>(closing.count) { _ in done() }
    for queue in closing {
      let wasAccepted = queue.thread.perform { loop in
        queue.reference.queue?.close {
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

  /// Has received data begin `byteCount` bytes into its pages from here on.
  func setHeadroom(_ byteCount: Int, done: @escaping @Sendable () -> Void) {
    ask({ $0.setHeadroom(byteCount) }, done: done)
  }

  /// Lets packets pass, or drops them all.
  func setLinkUp(_ isUp: Bool) { ask { $0.setLinkUp(isUp) } }

  /// The link's largest frame is another one.
  func setFrameByteCount(_ byteCount: Int) { ask { $0.setFrameByteCount(byteCount) } }

  /// Packets that wait for the rate may go on earlier.
  func limitsChanged() { ask { _ in } }

  /// Has every queue do something on its thread; `done` is called once, from any thread.
  private func ask(
    _ question: @escaping @Sendable (NetQueue) -> Void, done: @escaping @Sendable () -> Void = {}
  ) {
    let asked = live.withLock { $0 }
    guard !asked.isEmpty else {
      done()
      return
    }
    let countdown = Countdown<VifError>(asked.count) { _ in done() }
    for queue in asked {
      let wasAccepted = queue.thread.perform { loop in
        if let living = queue.reference.queue {
          question(living)
          loop.wake(queue.key)
        }
        countdown.answer()
      }
      if !wasAccepted { countdown.answer() }
    }
  }

  /// Makes one queue on the thread that will own it.
  private func openQueue(
    _ index: Int, on loop: DataLoop<NetQueue>, _ thread: DataThread<NetQueue>
  ) throws(VifError) -> (QueueKey, NetQueue) {
    let parameters = plan.parameters.queues[index]
    do {
      // A ring that another daemon served goes on where that one stopped answering.
      let transmit = try BackRing(
        attaching: loop.grants.map([parameters.transmitReference], of: plan.domain, access: .readWrite),
        slotByteCount: NetTxRequest.byteCount)
      let receive = try BackRing(
        attaching: loop.grants.map([parameters.receiveReference], of: plan.domain, access: .readWrite),
        slotByteCount: NetRxRequest.byteCount)
      // A queue's name comes first, because its I/O carries it.
      guard let key = loop.reserve() else {
        throw VifError(
          "data thread \(loop.number) owns as many queues as it can; start the daemon with more threads")
      }
      do {
        let queue = try NetQueue(
          loop: loop, key: key, transmit: transmit, receive: receive, index: index, plan: plan,
          statistics: statistics[index]
        ) { [self] in heard($0, from: index) }
        loop.install(queue, as: key)
        let port = try loop.bind(key, domain: plan.domain, remotePort: parameters.port)
        let second = try parameters.receivePort.map { remote throws(EventChannelError) in
          try loop.bind(key, domain: plan.domain, remotePort: remote)
        }
        queue.adopt(port: port, receivePort: second ?? port)
        return (key, queue)
      } catch {
        loop.remove(key)
        throw error
      }
    } catch let error as VifError {
      throw error
    } catch {
      throw VifError("\(error)")
    }
  }

  /// An interface has stalled when all of its queues have.
  private func heard(_ news: NetConnectionNews, from index: Int) {
    guard case .stalled(let isStalled) = news else { return report(news) }
    let count = plan.parameters.queues.count
    let changed = stalled.withLock { stalled in
      let before = stalled.count == count
      if isStalled { stalled.insert(index) } else { stalled.remove(index) }
      return before != (stalled.count == count)
    }
    if changed { report(.stalled(isStalled)) }
  }
}
