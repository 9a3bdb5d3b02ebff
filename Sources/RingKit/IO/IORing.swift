public import CUring
import Glibc

/// What the kernel reports about one finished request.
@frozen
public struct IOCompletion: BitwiseCopyable, Sendable, Equatable {
  /// The token the request was prepared with.
  public let token: UInt64
  /// Bytes moved (or the operation's own positive result), or a negative error number.
  public let result: Int32

  /// Joins a token and a result.
  @inlinable
  public init(token: UInt64, result: Int32) {
    self.token = token
    self.result = result
  }
}

/// A ring of requests and completions on io_uring or on libaio, used by the one thread that created it.
///
/// On libaio the two queues lie in memory of our own, laid out as io_uring's are, and ``LinuxAIO`` stands where
/// the kernel would: preparing a request and taking a completion are the same instructions on both.
///
/// Requests are prepared without a system call and handed over together by ``submitAndWait(minimum:)``. Every
/// request yields exactly one completion with its token. The caller keeps all memory that a request names
/// alive and in place until that completion was taken.
@safe
public final class IORing {
  /// What changes with every request; outside the object, so that no access check is paid for it.
  @usableFromInline
  struct State {
    @usableFromInline var prepared: UInt64 = 0
    @usableFromInline var completed: UInt64 = 0
    @usableFromInline var enters: UInt64 = 0
    @usableFromInline init() {}
  }

  // Sound: the four allocations live from init to deinit, are never replaced, and one thread uses them.
  @usableFromInline let ring: UnsafeMutablePointer<io_uring>
  @usableFromInline let state: UnsafeMutablePointer<State>
  /// One deadline a submission slot: the kernel reads it when it takes the slot, and only then the slot is
  /// reused.
  @usableFromInline let deadlines: UnsafeMutablePointer<__kernel_timespec>
  /// Submission slots: requests that can wait for one ``submitAndWait(minimum:)``.
  public let entries: UInt32
  /// The kernel flags the ring was made with (IORING_SETUP_...).
  public let setupFlags: UInt32
  let fileSlots: IOFileSlots
  /// What stands in for io_uring in the kernel; nil where that is there.
  let aio: LinuxAIO?
  @usableFromInline let isEmulated: Bool
  /// Why the ring is on libaio although the choice was left to it.
  public let fallbackReason: HostError?

  /// The engine below: uring or aio.
  public var engine: IOEngine { aio == nil ? .uring : .aio }

  /// Flag sets to try, best first: Linux 6.1, 5.19, and what every kernel with CQSIZE knows.
  static var flagChoices: [UInt32] {
    let always = IORING_SETUP_CLAMP | IORING_SETUP_CQSIZE
    let quiet = always | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_TASKRUN_FLAG
    return [
      quiet | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN, quiet | IORING_SETUP_COOP_TASKRUN,
      always,
    ]
  }

  /// Makes a ring with room for `entries` unsubmitted requests (1...32768, rounded up to a power of two) and
  /// four times as many completions; more completions than that wait in the kernel. The calling thread
  /// becomes the only one that may use it. Throws the kernel's refusal; ``open(entries:engine:)`` says what
  /// to do about it.
  init(entries: UInt32) throws(SystemError) {
    precondition(entries > 0 && entries <= 32768)
    unsafe ring = .allocate(capacity: 1)
    unsafe ring.initialize(to: io_uring())
    var failure: Int32 = -EINVAL
    var flags: UInt32 = 0
    for choice in Self.flagChoices where failure == -EINVAL {
      var parameters = io_uring_params()
      parameters.flags = choice
      parameters.cq_entries = min(entries * 4, 65536)
      flags = choice
      failure = unsafe io_uring_queue_init_params(entries, ring, &parameters)
    }
    guard failure == 0 else {
      unsafe ring.deallocate()
      throw SystemError(call: "io_uring_setup", errno: -failure)
    }
    aio = nil
    isEmulated = false
    fallbackReason = nil
    setupFlags = flags
    self.entries = unsafe ring.pointee.sq.ring_entries
    unsafe state = .allocate(capacity: 1)
    unsafe state.initialize(to: State())
    unsafe deadlines = .allocate(capacity: Int(self.entries))
    unsafe deadlines.initialize(repeating: __kernel_timespec(), count: Int(self.entries))
    fileSlots = IOFileSlots()
  }

  /// Puts a ring over libaio.
  init(_ aio: LinuxAIO, fallbackReason: HostError?) {
    self.aio = aio
    isEmulated = true
    self.fallbackReason = fallbackReason
    setupFlags = 0
    entries = aio.queues.entries
    unsafe ring = .allocate(capacity: 1)
    unsafe ring.initialize(to: aio.queues.ring)
    unsafe aio.attach(ring)
    unsafe state = .allocate(capacity: 1)
    unsafe state.initialize(to: State())
    unsafe deadlines = .allocate(capacity: Int(entries))
    unsafe deadlines.initialize(repeating: __kernel_timespec(), count: Int(entries))
    fileSlots = IOFileSlots()
  }

  deinit {
    if let aio { aio.close() } else { unsafe io_uring_queue_exit(ring) }
    unsafe ring.deallocate()
    unsafe state.deallocate()
    unsafe deadlines.deallocate()
  }

  /// Times the kernel was entered to hand requests over or to wait.
  @inlinable public var enterCount: UInt64 { unsafe state.pointee.enters }

  /// Requests prepared since the ring was made.
  @inlinable public var preparedCount: UInt64 { unsafe state.pointee.prepared }

  /// Requests prepared whose completion was not taken yet.
  @inlinable public var inFlightCount: UInt64 { unsafe state.pointee.prepared &- state.pointee.completed }

  /// Requests prepared but not handed to the kernel yet.
  @inlinable public var unsubmittedCount: UInt32 { unsafe io_uring_sq_ready(ring) }

  /// Completions the ring holds; more wait in the kernel.
  @inlinable public var completionCapacity: UInt32 { unsafe ring.pointee.cq.ring_entries }

  /// The oldest completion that has arrived, nil when there is none. Never enters the kernel.
  @inlinable
  public func nextCompletion() -> IOCompletion? {
    let taken = unsafe ringback_take_completion(ring)
    guard taken.valid != 0 else { return nil }
    unsafe state.pointee.completed &+= 1
    return IOCompletion(token: taken.token, result: taken.result)
  }

  /// True when a completion can be taken, or could after a ``submit()``. Does not enter the kernel, unless
  /// libaio has some.
  @inlinable public var hasCompletions: Bool {
    if unsafe io_uring_cq_ready(ring) > 0 || ringback_kernel_has_completions(ring) != 0 { return true }
    return isEmulated && reapEmulated()
  }

  @usableFromInline
  func reapEmulated() -> Bool {
    // A failure shows again when the loop waits.
    _ = try? aio?.enter(minimum: 0)
    return unsafe io_uring_cq_ready(ring) > 0
  }

  /// Hands all prepared requests to the kernel without waiting.
  public func submit() throws(SystemError) { try submitAndWait(minimum: 0) }

  /// Hands all prepared requests to the kernel and waits until `minimum` completions can be taken, in one
  /// system call; in none when there is nothing to hand over, to fetch or to wait for. May return early when
  /// the kernel could not take all requests yet; they stay prepared. Waiting with nothing in flight would
  /// last for ever.
  public func submitAndWait(minimum: UInt32) throws(SystemError) {
    if let aio {
      unsafe state.pointee.enters &+= try aio.enter(minimum: minimum) ? 1 : 0
      return
    }
    while true {
      let needed =
        unsafe minimum > 0 || io_uring_sq_ready(ring) > 0 || ringback_kernel_has_completions(ring) != 0
      guard needed else { return }
      unsafe state.pointee.enters &+= 1
      let result = unsafe io_uring_submit_and_wait(ring, minimum)
      // EAGAIN: no memory for a request. EBUSY: completions must be taken first. Both keep what was prepared.
      if result >= 0 || result == -EAGAIN || result == -EBUSY { return }
      if result != -EINTR { throw SystemError(call: "io_uring_enter", errno: -result) }
    }
  }

  /// A free submission slot; when all are taken, submits first, so that nothing is lost.
  @unsafe @inlinable @inline(__always)
  func claim() -> UnsafeMutablePointer<io_uring_sqe> {
    unsafe state.pointee.prepared &+= 1
    if let slot = unsafe io_uring_get_sqe(ring) { return unsafe slot }
    return unsafe claimAfterSubmitting()
  }

  @unsafe @usableFromInline @inline(never)
  func claimAfterSubmitting() -> UnsafeMutablePointer<io_uring_sqe> {
    while true {
      unsafe state.pointee.enters &+= 1
      if let aio {
        aio.takeRequests()
        if let slot = unsafe io_uring_get_sqe(ring) { return unsafe slot }
        continue
      }
      let result = unsafe io_uring_submit(ring)
      if let slot = unsafe io_uring_get_sqe(ring) { return unsafe slot }
      // Nothing else can refuse a full ring of valid requests: EEXIST, for one, means a second thread.
      precondition(
        result >= 0 || result == -EAGAIN || result == -EBUSY || result == -EINTR,
        "io_uring refused a submission: misuse of the ring")
      // The kernel has no memory for a request: the whole machine waits for that, so may this thread.
      sched_yield()
    }
  }
}
