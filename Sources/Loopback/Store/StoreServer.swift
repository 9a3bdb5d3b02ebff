import Glibc
import Synchronization

/// A xenstore server for any Linux machine. It speaks the wire protocol of `xs_wire.h` on unix sockets, one
/// socket for each domain, so that libxenstore and xenstore-utils are its clients:
/// `XENSTORED_PATH=<directory>/xenstored xenstore-ls -f`.
///
/// A domain is who connects to its socket; sockets are made with mode 0600. All calls are thread-safe.
public final class StoreServer: Sendable {
  private enum Phase {
    case ready
    case running(pthread_t)
    case stopped
  }

  private let loop: StoreLoop
  private let directory: String?
  private let phase = Mutex(Phase.ready)

  /// A server whose sockets are in `directory`, which must exist: `xenstored` for domain 0, and
  /// `xenstored-<domid>` for each introduced domain. Clients can connect at once and are
  /// served after `start`.
  public init(directory: String, quota: StoreQuota = StoreQuota()) throws(StoreServerError) {
    self.directory = directory
    loop = try StoreLoop(core: StoreCore(quota: quota), directory: directory)
    try addSocket(path: Self.socketPath(in: directory, domain: 0), domain: 0)
  }

  /// A server without sockets; `addSocket` makes them.
  public init(quota: StoreQuota = StoreQuota()) throws(StoreServerError) {
    directory = nil
    loop = try StoreLoop(core: StoreCore(quota: quota), directory: nil)
  }

  deinit { stop() }

  /// Where `StoreServer(directory:)` puts the socket of a domain: the value for `XENSTORED_PATH`.
  public static func socketPath(in directory: String, domain: UInt16) -> String {
    directory + (domain == 0 ? "/xenstored" : "/xenstored-\(domain)")
  }

  /// The path of a domain's socket, nil when it has none (or the server has stopped).
  public func socketPath(domain: UInt16) -> String? {
    loop.withState { state in
      state.listeners.first { $0.domain == domain && !$0.isDoomed }?.path
    }
  }

  /// Listens on one more socket; whoever connects to it is `domain`. At most 107 bytes of path.
  public func addSocket(path: String, domain: UInt16) throws(StoreServerError) {
    try loop.withState { state throws(StoreServerError) in try state.listen(at: path, domain: domain) }
  }

  /// Starts the thread that serves all sockets.
  public func start() throws(StoreServerError) {
    try phase.withLock { phase throws(StoreServerError) in
      guard case .ready = phase else { throw .notStartable }
      // The thread starts with every signal blocked: signals are for the program's own threads. Both sets are
      // local, and the thread takes over the reference that is retained for it.
      var all = sigset_t()
      var former = sigset_t()
      unsafe sigfillset(&all)
      unsafe pthread_sigmask(SIG_SETMASK, &all, &former)
      defer { unsafe pthread_sigmask(SIG_SETMASK, &former, nil) }
      var thread = pthread_t()
      let context = unsafe Unmanaged.passRetained(loop)
      let result = unsafe pthread_create(
        &thread, nil,
        { context in
          guard let context = unsafe context else { return nil }
          unsafe Unmanaged<StoreLoop>.fromOpaque(context).takeRetainedValue().run()
          return nil
        }, context.toOpaque())
      guard result == 0 else {
        unsafe context.release()
        throw .system(call: "pthread_create", path: "the store server", errno: result, reason: "no thread")
      }
      phase = .running(thread)
    }
  }

  /// Ends the thread, closes every connection and removes the sockets. Does nothing the second time.
  public func stop() {
    let thread: pthread_t? = phase.withLock { phase in
      defer { phase = .stopped }
      if case .running(let thread) = phase { return thread }
      return nil
    }
    loop.withState { $0.isStopping = true }
    // Joined by nobody else: the phase gave the thread away only once.
    if let thread { pthread_join(thread, nil) }
  }

  /// What a toolstack does for a new domain: makes `/local/domain/<domid>`, owned by the domain and closed to
  /// other guests, opens its socket (in a server with a directory) and fires `@introduceDomain`.
  public func introduce(domain: UInt16) throws(StoreServerError) {
    try loop.withState { state throws(StoreServerError) in
      guard domain != 0 else { return }
      state.dropReleased()
      try state.listenInDirectory(domain: domain)
      state.core.makeHome(of: domain)
      state.core.introduce(domain: domain)
    }
  }

  /// What happens when a domain is destroyed: its connections, watches, transactions, sockets and nodes go,
  /// and `@releaseDomain` fires. Domain 0 stays.
  public func release(domain: UInt16) {
    loop.withState { state in
      guard domain != 0 else { return }
      state.core.release(domain: domain)
      state.dropReleased()
    }
  }
}
