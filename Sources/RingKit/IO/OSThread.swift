import CUring
import Glibc
import Synchronization

/// A POSIX thread with a name and with all signals blocked, so that only the control thread is interrupted.
public final class OSThread: Sendable {
  private final class Start: Sendable {
    let name: String
    let body: @Sendable () -> Void
    init(name: String, body: @escaping @Sendable () -> Void) {
      self.name = name
      self.body = body
    }
  }

  private let thread: pthread_t
  private let isJoined = Mutex(false)

  /// Starts a thread; of its name, 15 bytes show.
  public init(name: String, body: @escaping @Sendable () -> Void) throws(SystemError) {
    var all = sigset_t()
    var former = sigset_t()
    // Sound: the two sets are local; the box is passed on retained and taken over by the new thread, or by us
    // when there is none.
    unsafe sigfillset(&all)
    unsafe pthread_sigmask(SIG_SETMASK, &all, &former)
    let start = unsafe Unmanaged.passRetained(Start(name: name, body: body))
    var thread = pthread_t()
    let failure = unsafe pthread_create(
      &thread, nil,
      { argument in
        guard let argument = unsafe argument else { return nil }
        let start = unsafe Unmanaged<Start>.fromOpaque(argument).takeRetainedValue()
        unsafe ringback_name_thread(start.name)
        start.body()
        return nil
      }, start.toOpaque())
    unsafe pthread_sigmask(SIG_SETMASK, &former, nil)
    guard failure == 0 else {
      unsafe start.release()
      throw SystemError(call: "pthread_create", errno: failure)
    }
    self.thread = thread
  }

  /// True on the thread itself.
  var isCurrent: Bool { pthread_equal(thread, pthread_self()) != 0 }

  /// Waits for the thread's end; later calls return at once or wait with the first.
  public func join() {
    precondition(!isCurrent, "a thread cannot wait for its own end")
    isJoined.withLock { isJoined in
      if !isJoined { _ = pthread_join(thread, nil) }
      isJoined = true
    }
  }

  deinit {
    isJoined.withLock { if !$0 { pthread_detach(thread) } }
  }
}

/// A counting semaphore.
@safe
final class Semaphore: @unchecked Sendable {
  // Sound: initialised in init, destroyed in deinit, and made for use by several threads.
  private let semaphore: UnsafeMutablePointer<sem_t>

  init() {
    unsafe semaphore = .allocate(capacity: 1)
    unsafe semaphore.initialize(to: sem_t())
    unsafe sem_init(semaphore, 0, 0)
  }

  deinit {
    unsafe sem_destroy(semaphore)
    unsafe semaphore.deallocate()
  }

  func post() { unsafe sem_post(semaphore) }

  func wait() {
    while unsafe sem_wait(semaphore) != 0 && errno == EINTR {}
  }
}

/// One value handed from one thread to another, which waits for it.
final class Handoff<Value: Sendable>: Sendable {
  private let arrived = Semaphore()
  private let value = Mutex<Value?>(nil)

  /// Hands the value over, once.
  func put(_ value: Value) {
    self.value.withLock { $0 = value }
    arrived.post()
  }

  /// Waits for the value.
  func take() -> Value? {
    arrived.wait()
    return value.withLock { $0 }
  }
}
