import CUring

/// A submission and a completion queue in memory of our own, laid out as those that io_uring maps, so that
/// liburing's inline functions work on them.
@safe
struct AIOQueues: ~Copyable {
  private struct Words {
    var submissionHead: UInt32 = 0
    var submissionTail: UInt32 = 0
    var submissionFlags: UInt32 = 0
    var dropped: UInt32 = 0
    var completionHead: UInt32 = 0
    var completionTail: UInt32 = 0
    var completionFlags: UInt32 = 0
    var overflow: UInt32 = 0
  }

  // Sound: allocated from init to deinit, used by one thread alone; indices are masked by the sizes, which are
  // powers of two.
  private let words: UnsafeMutablePointer<Words>
  private let requests: UnsafeMutablePointer<io_uring_sqe>
  private let completions: UnsafeMutablePointer<io_uring_cqe>
  /// Submission slots.
  let entries: UInt32
  let completionEntries: UInt32

  init(entries wanted: UInt32) {
    precondition(wanted > 0 && wanted <= 32768)
    var entries: UInt32 = 1
    while entries < wanted { entries *= 2 }
    self.entries = entries
    completionEntries = min(entries * 4, 65536)
    unsafe words = .allocate(capacity: 1)
    unsafe words.initialize(to: Words())
    unsafe requests = .allocate(capacity: Int(entries))
    unsafe requests.initialize(repeating: io_uring_sqe(), count: Int(entries))
    unsafe completions = .allocate(capacity: Int(completionEntries))
    unsafe completions.initialize(repeating: io_uring_cqe(), count: Int(completionEntries))
  }

  deinit {
    unsafe words.deallocate()
    unsafe requests.deallocate()
    unsafe completions.deallocate()
  }

  private func word(_ path: PartialKeyPath<Words>) -> UnsafeMutablePointer<UInt32> {
    let offset = MemoryLayout<Words>.offset(of: path) ?? 0
    return unsafe (UnsafeMutableRawPointer(words) + offset).assumingMemoryBound(to: UInt32.self)
  }

  /// The structure that liburing's functions take; it points into these queues.
  var ring: io_uring {
    var ring = unsafe io_uring()
    unsafe ring.sq.khead = word(\.submissionHead)
    unsafe ring.sq.ktail = word(\.submissionTail)
    unsafe ring.sq.kflags = word(\.submissionFlags)
    unsafe ring.sq.kdropped = word(\.dropped)
    unsafe ring.sq.sqes = requests
    unsafe ring.sq.ring_mask = entries - 1
    unsafe ring.sq.ring_entries = entries
    unsafe ring.cq.khead = word(\.completionHead)
    unsafe ring.cq.ktail = word(\.completionTail)
    unsafe ring.cq.kflags = word(\.completionFlags)
    unsafe ring.cq.koverflow = word(\.overflow)
    unsafe ring.cq.cqes = completions
    unsafe ring.cq.ring_mask = completionEntries - 1
    unsafe ring.cq.ring_entries = completionEntries
    unsafe ring.ring_fd = -1
    unsafe ring.enter_ring_fd = -1
    return unsafe ring
  }

  /// The oldest request, when `tail` says there is one; its slot is free from here on.
  func takeRequest(tail: UInt32) -> io_uring_sqe? {
    let head = unsafe words.pointee.submissionHead
    guard head != tail else { return nil }
    let request = unsafe requests[Int(head & (entries - 1))]
    unsafe words.pointee.submissionHead = head &+ 1
    return request
  }

  /// Completions that were not taken yet.
  var completionCount: UInt32 {
    unsafe words.pointee.completionTail &- words.pointee.completionHead
  }

  /// Adds a completion; false when the queue is full.
  func complete(token: UInt64, result: Int32) -> Bool {
    guard completionCount < completionEntries else { return false }
    let tail = unsafe words.pointee.completionTail
    let place = unsafe completions + Int(tail & (completionEntries - 1))
    unsafe place.pointee.user_data = token
    unsafe place.pointee.res = result
    unsafe words.pointee.completionTail = tail &+ 1
    return true
  }
}
