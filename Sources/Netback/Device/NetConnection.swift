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
  /// Who watches the interface's frames from the beginning.
  var captures: [FrameCapture] = []
  /// Whether all queues have to be on one thread.
  var isOnOneThread = false
}

/// What a connection's queues report of themselves.
enum NetConnectionNews: Sendable {
  /// The frontend broke the rules of a ring.
  case fault(VifError)
  /// The frontend takes no packets any more (true), or does so again, on all of its queues.
  case stalled(Bool)
}

/// The queues of one connection of an interface, spread over data threads, or on one thread if they belong to a
/// switch (``SwitchFabric``), or together with the control ring if the frontend has one (``NetQueueGroup``). Held by control work; all it does happens on the
/// threads, and what comes of it is reported by call-backs from there.
final class NetConnection: Sendable {
  /// A queue that lives on a thread.
  private struct LiveQueue: Sendable {
    let thread: DataThread<NetQueue>
    let key: QueueKey
    let reference: QueueReference
    let isControl: Bool
  }

  /// Names a queue to its own thread.
  private final class QueueReference: @unchecked Sendable {
    // Sound: only the thread that owns the queue reads this. Its loop alone keeps the queue, so that it ends there.
    weak let queue: NetQueue?
    init(_ queue: NetQueue) { self.queue = queue }
  }

  private let plan: NetConnectionPlan
  private let group: NetQueueGroup?
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
    group =
      plan.parameters.control == nil
      ? nil
      : NetQueueGroup(count: plan.links.count, bufferShareByteCount: plan.bufferShareByteCount)
    statistics = plan.parameters.queues.map { _ in NetStatistics() }
  }

  /// Threads that the queues are spread over, if there are so many.
  var threadCount: Int { group == nil && !plan.isOnOneThread ? plan.links.count : 1 }

  /// Maps the rings and binds the ports, each queue on a thread of its own as far as there are threads, or all
  /// on one. `done` is called once, from a data thread: with nil, or with what failed after everything was
  /// undone.
  func open(
    on threads: [DataThread<NetQueue>], firstThread: Int, done: @escaping @Sendable (VifError?) -> Void
  ) {
    precondition(!threads.isEmpty)
    let queues = plan.parameters.queues
    let control = plan.parameters.control
    let countdown = Countdown<VifError>(queues.count + (control == nil ? 0 : 1)) { [self] failure in
      if let failure {
        close { done(failure) }
      } else {
        done(nil)
      }
    }
    for index in queues.indices {
      let thread = threads[(firstThread + index % threadCount) % threads.count]
      open(on: thread, isControl: false, countdown) { [self] (loop) throws(VifError) in
        try openQueue(index, on: loop)
      }
    }
    guard let control, let group else { return }
    // After the queues, which are on the same thread: what it stages goes to them.
    open(on: threads[firstThread % threads.count], isControl: true, countdown) {
      [self] (loop) throws(VifError) in
      try openControl(control, group, on: loop)
    }
  }

  private func open(
    on thread: DataThread<NetQueue>, isControl: Bool, _ countdown: Countdown<VifError>,
    _ make: @escaping @Sendable (DataLoop<NetQueue>) throws(VifError) -> (QueueKey, NetQueue)
  ) {
    let wasAccepted = thread.perform { loop in
      do throws(VifError) {
        let (key, queue) = try make(loop)
        let opened = LiveQueue(
          thread: thread, key: key, reference: QueueReference(queue), isControl: isControl)
        self.live.withLock { $0.append(opened) }
        countdown.answer()
      } catch {
        countdown.answer(error)
      }
    }
    if !wasAccepted { countdown.answer(VifError("the daemon is stopping")) }
  }

  /// Stops taking packets, finishes what is under way, then unbinds and unmaps everything; `done` is called
  /// once after that, from a data thread or at once when there is nothing to close.
  func close(done: @escaping @Sendable () -> Void) {
    let closing = live.withLock { live in
      defer { live = [] }
      return live
    }
    // The control ring goes first, and stages nothing any more; its pages go with the queues.
    close(closing.filter(\.isControl)) { [self] in
      close(closing.filter { !$0.isControl }, done: done)
    }
  }

  private func close(_ closing: [LiveQueue], done: @escaping @Sendable () -> Void) {
    guard !closing.isEmpty else {
      done()
      return
    }
    let countdown = Countdown<VifError>(closing.count) { _ in done() }
    for queue in closing {
      let wasAccepted = queue.thread.perform { loop in
        queue.reference.queue?.close {
          loop.remove(queue.key)
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

  /// From here on these watch the interface's frames.
  func setCaptures(_ captures: [FrameCapture]) { ask { $0.setCaptures(captures) } }

  /// The link's largest frame is another one.
  func setFrameByteCount(_ byteCount: Int) { ask { $0.setFrameByteCount(byteCount) } }

  /// Packets that wait for the rate may go on earlier.
  func limitsChanged() { ask { _ in } }

  /// Has every queue do something on its thread; `done` is called once, from any thread.
  private func ask(
    _ question: @escaping @Sendable (NetDataQueue) -> Void, done: @escaping @Sendable () -> Void = {}
  ) {
    let asked = live.withLock { $0 }
    guard !asked.isEmpty else {
      done()
      return
    }
    let countdown = Countdown<VifError>(asked.count) { _ in done() }
    for queue in asked {
      let wasAccepted = queue.thread.perform { loop in
        if let living = queue.reference.queue?.data {
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
    _ index: Int, on loop: DataLoop<NetQueue>
  ) throws(VifError) -> (QueueKey, NetQueue) {
    let parameters = plan.parameters.queues[index]
    return try place(on: loop) { key in
      let data = try NetDataQueue(
        loop: loop, key: key,
        transmit: attach(
          parameters.transmitReference, NetTxRequest.byteCount, loop, "transmit ring of queue \(index)"),
        receive: attach(
          parameters.receiveReference, NetRxRequest.byteCount, loop, "receive ring of queue \(index)"),
        index: index, plan: plan,
        group: group, statistics: statistics[index]
      ) { [self] in heard($0, from: index) }
      let queue = NetQueue(.data(data))
      loop.install(queue, as: key)
      let port = try loop.bind(key, domain: plan.domain, remotePort: parameters.port)
      let second = try parameters.receivePort.map { remote throws(EventChannelError) in
        try loop.bind(key, domain: plan.domain, remotePort: remote)
      }
      data.adopt(port: port, receivePort: second ?? port)
      return queue
    }
  }

  /// Makes the control ring on the thread of the queues.
  private func openControl(
    _ parameters: NetFrontendParameters.Control, _ group: NetQueueGroup, on loop: DataLoop<NetQueue>
  ) throws(VifError) -> (QueueKey, NetQueue) {
    try place(on: loop) { key in
      let control = try NetControlQueue(
        loop: loop, ring: attach(parameters.reference, NetControlRequest.byteCount, loop, "control ring"),
        plan: plan,
        group: group, report: report)
      let queue = NetQueue(.control(control))
      loop.install(queue, as: key)
      control.adopt(port: try loop.bind(key, domain: plan.domain, remotePort: parameters.port))
      return queue
    }
  }

  /// Maps a ring. One that another daemon served goes on where that one stopped answering.
  private func attach(
    _ reference: GrantReference, _ slotByteCount: Int, _ loop: DataLoop<NetQueue>, _ name: String
  ) throws(VifError) -> BackRing {
    do {
      return try BackRing(
        attaching: loop.grants.map([reference], of: plan.domain, access: .readWrite),
        slotByteCount: slotByteCount)
    } catch {
      throw VifError("\(name), grant reference \(reference.rawValue): \(error)")
    }
  }

  /// Finds a queue's name, which comes first because its I/O carries it, and gives it up if `make` fails.
  private func place(
    on loop: DataLoop<NetQueue>, make: (QueueKey) throws -> NetQueue
  ) throws(VifError) -> (QueueKey, NetQueue) {
    guard let key = loop.reserve() else {
      throw VifError(
        "data thread \(loop.number) owns as many queues as it can; start the daemon with more threads")
    }
    do {
      return (key, try make(key))
    } catch {
      loop.remove(key)
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
