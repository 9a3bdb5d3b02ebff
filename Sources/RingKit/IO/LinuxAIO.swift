import CAIO
import CUring
import Glibc

/// Stands where io_uring's kernel side would be: takes requests from the submission queue, has libaio, threads
/// and a list of deadlines carry them out, and puts completions into the completion queue.
///
/// Nothing here waits except ``enter(minimum:)``, and nothing is allocated for a request unless more are in
/// flight than the context holds. Used by the ring's one thread.
@safe
final class LinuxAIO {
  /// A request under way.
  @unsafe
  struct Slot {
    enum Phase: BitwiseCopyable {
      case free
      /// In the kernel, or about to go there.
      case transfer, poll
      /// In the list of deadlines.
      case timer
      /// With a thread.
      case blocking
    }

    var phase = Phase.free
    var isCancelled = false
    var request = io_uring_sqe()
    var control = unsafe iocb()
    var descriptor: Int32 = -1
    var deadline: UInt64 = 0

    init() {}
  }

  /// What the kernel gives back for the poll of the threads' descriptor.
  static var callsMark: UInt { .max }
  static var eventCapacity: Int { 256 }
  /// Slots kept for deadlines: time passes even when nothing in flight ends.
  static var timerReserve: Int { 32 }

  let queues: AIOQueues
  let files = AIOFiles()
  let calls: BlockingCalls
  // Sound: allocated from init to deinit. The kernel copies a control block when it takes it, and is given
  // addresses of blocks only as names; indices come from the free list and from the kernel, and are checked.
  let slots: UnsafeMutablePointer<Slot>
  let slotCapacity: Int
  var free: [UInt16] = []
  /// Control blocks for the next io_submit.
  private let batch: UnsafeMutablePointer<UnsafeMutablePointer<iocb>?>
  private var batchCount = 0
  private let events: UnsafeMutablePointer<io_event>
  private let context: io_context_t
  private let callsControl: UnsafeMutablePointer<iocb>
  private var isWatchingCalls = false
  /// Slots to be handed over once more.
  private var retries: [UInt16] = []
  /// Requests that found no free slot, oldest first.
  var backlog: [io_uring_sqe] = []
  /// Completions that found the queue full, oldest first.
  private var overflow: [IOCompletion] = []
  /// Slots with a deadline, in no order: a loop has one of them.
  var timers: [UInt16] = []
  /// Control blocks the kernel holds.
  private var kernelCount = 0
  private var isClosed = false
  private var ring: UnsafeMutablePointer<io_uring>?

  /// Makes a context for twice as many requests as there are submission slots; for fewer where the machine's
  /// limit (fs.aio-max-nr) is near.
  init(entries: UInt32) throws(SystemError) {
    queues = AIOQueues(entries: entries)
    var capacity = min(max(Int(queues.entries) * 2, 256), 8192)
    var context: io_context_t?
    var result = Int32(0)
    while true {
      // Sound: the call fills the local variable. One more for the threads' descriptor.
      result = unsafe io_setup(Int32(capacity + 1), &context)
      guard result == -EAGAIN && capacity > 64 else { break }
      capacity /= 2
    }
    guard result == 0, let made = unsafe context else {
      throw SystemError(call: "io_setup", errno: -result)
    }
    do throws(SystemError) {
      calls = try BlockingCalls()
    } catch {
      unsafe io_destroy(made)
      throw error
    }
    unsafe self.context = made
    slotCapacity = capacity
    unsafe slots = .allocate(capacity: capacity)
    unsafe slots.initialize(repeating: Slot(), count: capacity)
    unsafe batch = .allocate(capacity: capacity + 1)
    unsafe batch.initialize(repeating: nil, count: capacity + 1)
    unsafe events = .allocate(capacity: Self.eventCapacity)
    unsafe events.initialize(repeating: io_event(), count: Self.eventCapacity)
    unsafe callsControl = .allocate(capacity: 1)
    unsafe callsControl.initialize(to: iocb())
    free = (0..<UInt16(capacity)).reversed()
    timers.reserveCapacity(64)
    backlog.reserveCapacity(64)
    overflow.reserveCapacity(64)
  }

  deinit {
    close()
    unsafe slots.deallocate()
    unsafe batch.deallocate()
    unsafe events.deallocate()
    unsafe callsControl.deallocate()
  }

  /// Tells where liburing's functions count submissions. The pointer stays valid until ``close()``.
  @unsafe
  func attach(_ ring: UnsafeMutablePointer<io_uring>) { unsafe self.ring = ring }

  /// Ends the context; the kernel waits for the requests it has.
  func close() {
    if isClosed { return }
    isClosed = true
    unsafe io_destroy(context)
    unsafe ring = nil
  }

  /// Takes all requests, hands them over, and waits until `minimum` completions are there. False when the
  /// kernel was not entered.
  func enter(minimum: UInt32) throws(SystemError) -> Bool {
    flushOverflow()
    takeRequests()
    let ready = queues.completionCount
    // What the kernel has now may have ended before the return.
    let isWithKernel = kernelCount > 0
    try reap(minimum: minimum)
    return minimum > ready || isWithKernel || kernelCount > 0
  }

  /// Takes all requests off the submission queue and hands them over.
  func takeRequests() {
    let tail = unsafe ring?.pointee.sq.sqe_tail ?? 0
    while let request = queues.takeRequest(tail: tail) { begin(request) }
    handOver()
  }

  /// Ends a request that has a slot.
  func finish(_ index: Int, _ result: Int32) {
    let request = unsafe slots[index].request
    if unsafe request.flags & 1 != 0 && slots[index].descriptor >= 0 { files.endUse(request.fd) }
    unsafe slots[index].phase = .free
    free.append(UInt16(index))
    post(request.user_data, result)
  }

  /// Adds a completion.
  func post(_ token: UInt64, _ result: Int32) {
    if overflow.isEmpty && queues.complete(token: token, result: result) { return }
    overflow.append(IOCompletion(token: token, result: result))
    // As the kernel tells that it keeps completions back: the next look at the ring comes here.
    unsafe ring?.pointee.sq.kflags.pointee |= UInt32(IORING_SQ_CQ_OVERFLOW)
  }

  private func flushOverflow() {
    guard !overflow.isEmpty else { return }
    var moved = 0
    while moved < overflow.count,
      queues.complete(token: overflow[moved].token, result: overflow[moved].result)
    {
      moved += 1
    }
    overflow.removeFirst(moved)
    if overflow.isEmpty { unsafe ring?.pointee.sq.kflags.pointee &= ~UInt32(IORING_SQ_CQ_OVERFLOW) }
  }

  // MARK: The kernel

  /// Puts a slot's control block into the next batch.
  func enqueue(_ index: Int) {
    unsafe slots[index].control.data = UnsafeMutableRawPointer(bitPattern: UInt(index + 1))
    let control = unsafe UnsafeMutableRawPointer(slots + index) + Self.controlOffset
    unsafe batch[batchCount] = control.assumingMemoryBound(to: iocb.self)
    batchCount += 1
  }

  static let controlOffset = unsafe MemoryLayout<Slot>.offset(of: \Slot.control) ?? 0

  /// The control block of a slot, as the kernel knows it.
  func cancelInKernel(_ index: Int) {
    let control = unsafe UnsafeMutableRawPointer(slots + index) + Self.controlOffset
    var event = unsafe io_event()
    // Sound: the kernel reads one word of the block; the end comes as an event of the context.
    _ = unsafe io_cancel(context, control.assumingMemoryBound(to: iocb.self), &event)
  }

  /// Hands everything over, and has the kernel tell when a thread's call has ended, while there are any.
  private func handOver() {
    while !backlog.isEmpty && free.count > Self.timerReserve { begin(backlog.removeFirst()) }
    submit()
    // A refusal may have become another try or a thread's call.
    while !retries.isEmpty || (calls.inFlightCount > 0 && !isWatchingCalls) {
      for index in retries { enqueue(Int(index)) }
      retries.removeAll(keepingCapacity: true)
      if calls.inFlightCount > 0 && !isWatchingCalls {
        isWatchingCalls = true
        unsafe io_prep_poll(callsControl, calls.descriptor, POLLIN)
        unsafe callsControl.pointee.data = UnsafeMutableRawPointer(bitPattern: Self.callsMark)
        unsafe batch[batchCount] = callsControl
        batchCount += 1
      }
      submit()
    }
  }

  /// Hands the batch over; what the kernel has no room for stays in it.
  func submit() {
    var first = 0
    while first < batchCount {
      let result = unsafe io_submit(context, batchCount - first, batch + first)
      if result > 0 {
        first += Int(result)
        kernelCount += Int(result)
      } else if result == 0 || result == -EAGAIN {
        break
      } else {
        unsafe refused(batch[first], Int32(-result))
        first += 1
      }
    }
    let left = batchCount - first
    if first > 0 { for place in 0..<left { unsafe batch[place] = batch[first + place] } }
    batchCount = left
  }

  /// Deals with a control block that io_submit did not take.
  private func refused(_ control: UnsafeMutablePointer<iocb>?, _ code: Int32) {
    guard let index = unsafe index(of: control?.pointee.data) else {
      isWatchingCalls = false
      return
    }
    if unsafe code == EOPNOTSUPP && slots[index].control.aio_rw_flags != 0
      && slots[index].request.rw_flags == 0
    {
      mayWait(index)
      retries.append(UInt16(index))
    } else if unsafe code == EINVAL && slots[index].request.opcode == UInt8(IORING_OP_FSYNC.rawValue) {
      callThread(index)
    } else {
      finish(index, -code)
    }
  }

  /// Lets the kernel wait for a transfer: its file knows no other way.
  private func mayWait(_ index: Int) {
    unsafe slots[index].control.aio_rw_flags = 0
    let request = unsafe slots[index].request
    if request.flags & 1 != 0 { files.noteWaits(request.fd) }
  }

  private func index(of data: UnsafeMutableRawPointer?) -> Int? {
    let number = UInt(bitPattern: data)
    return number > 0 && number <= UInt(slotCapacity) ? Int(number) - 1 : nil
  }

  /// Takes what has ended, and waits until `minimum` completions are there.
  private func reap(minimum: UInt32) throws(SystemError) {
    while true {
      expireTimers()
      let mustWait = queues.completionCount < minimum
      let count = try fetch(wait: mustWait)
      for position in 0..<count { unsafe take(events[position]) }
      expireTimers()
      handOver()
      if queues.completionCount >= minimum && count < Self.eventCapacity { return }
    }
  }

  private func fetch(wait: Bool) throws(SystemError) -> Int {
    var time = timespec()
    var hasLimit = true
    if wait {
      let nanoseconds = longestWait()
      hasLimit = nanoseconds != .max
      time = timespec(
        tv_sec: Int(nanoseconds / 1_000_000_000), tv_nsec: Int(nanoseconds % 1_000_000_000))
    }
    while true {
      // Sound: the events are ours, as many as said; the time is a local variable.
      let count = unsafe withUnsafeMutablePointer(to: &time) { time in
        unsafe io_getevents(context, wait ? 1 : 0, Self.eventCapacity, events, hasLimit ? time : nil)
      }
      if count >= 0 {
        kernelCount -= Int(count)
        return Int(count)
      }
      if count != -EINTR { throw SystemError(call: "io_getevents", errno: -count) }
    }
  }

  /// Nanoseconds until something other than the kernel needs a look; max for never.
  private func longestWait() -> UInt64 {
    // Not all is with the kernel: it had no memory for it, so it is asked again soon.
    var longest = batchCount > 0 ? 1_000_000 : UInt64.max
    guard !timers.isEmpty else { return longest }
    let now = MonotonicClock.nowNanoseconds()
    for index in timers {
      let deadline = unsafe slots[Int(index)].deadline
      longest = min(longest, deadline > now ? deadline - now : 0)
    }
    return min(longest, 1 << 62)
  }

  private func take(_ event: io_event) {
    let result = unsafe Int32(truncatingIfNeeded: event.res)
    guard let index = unsafe index(of: event.data) else {
      isWatchingCalls = false
      calls.takeEnded { ended in finish(Int(ended.token), ended.result) }
      return
    }
    switch unsafe slots[index].phase {
    case .poll:
      finish(index, unsafe slots[index].isCancelled && result == 0 ? -ECANCELED : result)
    case .transfer:
      // Ours to hide, unless the request itself asked for it.
      let refusesToWait =
        unsafe slots[index].control.aio_rw_flags != 0 && slots[index].request.rw_flags == 0
      if refusesToWait && result == -EAGAIN {
        callThread(index)
      } else if refusesToWait && result == -EOPNOTSUPP {
        mayWait(index)
        retries.append(UInt16(index))
      } else {
        finish(index, result)
      }
    case .free, .timer, .blocking:
      break
    }
  }

  private func expireTimers() {
    guard !timers.isEmpty else { return }
    let now = MonotonicClock.nowNanoseconds()
    var position = 0
    while position < timers.count {
      let index = Int(timers[position])
      if unsafe slots[index].deadline <= now {
        timers.swapAt(position, timers.count - 1)
        timers.removeLast()
        finish(index, -ETIME)
      } else {
        position += 1
      }
    }
  }
}
