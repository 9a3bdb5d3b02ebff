import CUring
import Glibc
import Synchronization

/// A call that may keep its thread waiting, for ``BlockingCalls``.
struct BlockingCall: BitwiseCopyable, Sendable {
  /// What to do.
  enum Kind: BitwiseCopyable, Sendable {
    /// Transfers to or from one piece of memory at `address`, `count` bytes long.
    case read, write
    /// Transfers to or from the `count` vectors at `address`.
    case readv, writev
    case fsync, fdatasync
    /// fallocate(2) with these mode bits.
    case allocate(mode: Int32)
    /// Makes a file's range read as zeros, by either way the file system knows.
    case zeroFile
    /// Calls of block devices (linux/fs.h).
    case discardDevice, secureDiscardDevice, zeroDevice
  }

  var kind: Kind
  var descriptor: Int32
  var offset: UInt64 = 0
  var byteCount: UInt64 = 0
  var address: UInt64 = 0
  var count: UInt32 = 0
  var token: UInt64

  /// Does it; bytes moved, or a negative error number.
  func perform() -> Int32 {
    while true {
      let result = attempt()
      if result >= 0 { return Int32(clamping: result) }
      if errno != EINTR { return -errno }
    }
  }

  private func attempt() -> Int {
    let place = off_t(bitPattern: UInt(offset))
    let length = off_t(bitPattern: UInt(byteCount))
    // Sound: who asked for the transfer keeps its memory and vectors until it was told of the end.
    let memory = unsafe UnsafeMutableRawPointer(bitPattern: UInt(address))
    switch kind {
    case .read: return unsafe pread(descriptor, memory, Int(count), place)
    case .write: return unsafe pwrite(descriptor, memory, Int(count), place)
    case .readv:
      return unsafe preadv(descriptor, memory?.assumingMemoryBound(to: iovec.self), Int32(count), place)
    case .writev:
      return unsafe pwritev(descriptor, memory?.assumingMemoryBound(to: iovec.self), Int32(count), place)
    case .fsync: return Int(Glibc.fsync(descriptor))
    case .fdatasync: return Int(Glibc.fdatasync(descriptor))
    case .allocate(let mode): return Int(ringback_fallocate(descriptor, mode, Int64(place), Int64(length)))
    case .zeroFile:
      let result = ringback_fallocate(
        descriptor, IOAllocation.zero.rawValue, Int64(place), Int64(length))
      guard result < 0 && errno == EOPNOTSUPP else { return Int(result) }
      // A hole reads as zeros as well; tmpfs, for one, knows only holes.
      return Int(
        ringback_fallocate(descriptor, IOAllocation.punchHole.rawValue, Int64(place), Int64(length)))
    case .discardDevice: return Int(ringback_discard(descriptor, offset, byteCount))
    case .secureDiscardDevice: return Int(ringback_secure_discard(descriptor, offset, byteCount))
    case .zeroDevice: return Int(ringback_zero_out(descriptor, offset, byteCount))
    }
  }
}

/// A few threads that do what would keep a data thread waiting, and announce the ends through a descriptor.
///
/// One thread hands calls over and takes their ends; nothing is allocated for a call once the lists have grown
/// to what is in flight.
@safe
final class BlockingCalls {
  private final class Shared: Sendable {
    struct State {
      var waiting: [BlockingCall] = []
      /// Calls of `waiting` that were taken already.
      var taken = 0
      var ended: [IOCompletion] = []
      var isStopping = false

      mutating func take() -> BlockingCall? {
        guard taken < waiting.count else { return nil }
        let call = waiting[taken]
        taken += 1
        // Half of it behind us: moving the rest up costs no more than what was taken.
        if taken * 2 >= waiting.count { compact() }
        return call
      }

      mutating func compact() {
        waiting.removeFirst(taken)
        taken = 0
      }
    }

    let state = Mutex(State())
    let work: Semaphore
    let descriptor: Int32

    init() throws(SystemError) {
      work = Semaphore()
      descriptor = eventfd(0, Int32(EFD_CLOEXEC | EFD_NONBLOCK))
      guard descriptor >= 0 else { throw SystemError(call: "eventfd", errno: errno) }
      state.withLock { state in
        state.waiting.reserveCapacity(256)
        state.ended.reserveCapacity(256)
      }
    }

    deinit { close(descriptor) }

    func main() {
      while true {
        work.wait()
        let (next, isStopping) = state.withLock { ($0.take(), $0.isStopping) }
        if let next {
          end(IOCompletion(token: next.token, result: next.perform()))
        } else if isStopping {
          return
        }
      }
    }

    func end(_ completion: IOCompletion) {
      let wasEmpty = state.withLock { state in
        state.ended.append(completion)
        return state.ended.count == 1
      }
      if wasEmpty { eventfd_write(descriptor, 1) }
    }
  }

  private let shared: Shared
  private let threads: [OSThread]
  private var taken: [IOCompletion] = []
  /// Calls handed over whose end was not taken.
  private(set) var inFlightCount = 0
  /// Readable when calls have ended.
  var descriptor: Int32 { shared.descriptor }

  /// Starts the threads.
  init(threadCount: Int = 2) throws(SystemError) {
    shared = try Shared()
    var threads: [OSThread] = []
    do throws(SystemError) {
      for number in 0..<threadCount {
        threads.append(try OSThread(name: "ringback-call-\(number)") { [shared] in shared.main() })
      }
    } catch {
      Self.stop(shared, threads)
      throw error
    }
    self.threads = threads
    taken.reserveCapacity(256)
  }

  /// Waits for the calls under way.
  deinit { Self.stop(shared, threads) }

  private static func stop(_ shared: Shared, _ threads: [OSThread]) {
    shared.state.withLock { $0.isStopping = true }
    for _ in threads { shared.work.post() }
    for thread in threads { thread.join() }
  }

  /// Hands a call over.
  func submit(_ call: BlockingCall) {
    inFlightCount += 1
    shared.state.withLock { $0.waiting.append(call) }
    shared.work.post()
  }

  /// Ends the calls that no thread has begun and whose token `isMeant` accepts, with -ECANCELED; returns how
  /// many those are.
  func cancel(where isMeant: (UInt64) -> Bool) -> Int {
    let tokens = shared.state.withLock { state in
      state.compact()
      let tokens = state.waiting.map(\.token).filter(isMeant)
      state.waiting.removeAll { isMeant($0.token) }
      return tokens
    }
    for token in tokens { shared.end(IOCompletion(token: token, result: -ECANCELED)) }
    return tokens.count
  }

  /// Takes the ends that came since the last time.
  func takeEnded(_ body: (IOCompletion) -> Void) {
    var count: eventfd_t = 0
    // Sound: one counter is read into a local variable. Emptied first: an end that comes later signals again.
    _ = unsafe eventfd_read(shared.descriptor, &count)
    swapEnded()
    inFlightCount -= taken.count
    for index in taken.indices { body(taken[index]) }
    taken.removeAll(keepingCapacity: true)
  }

  private func swapEnded() {
    var mine: [IOCompletion] = []
    swap(&mine, &taken)
    shared.state.withLock { swap(&$0.ended, &mine) }
    swap(&mine, &taken)
  }
}
