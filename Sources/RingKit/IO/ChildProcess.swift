import CUring
import Glibc

/// A program started by this one, in a process group of its own, with a clean environment and no descriptor
/// but those it is given; what it says on standard error can be read.
///
/// Signals that end with a thread (prctl(2), PR_SET_PDEATHSIG) follow the thread that starts it.
@safe
public final class ChildProcess: Sendable {
  /// How a process ended.
  public enum End: Equatable, Sendable, CustomStringConvertible {
    /// By itself, with a status.
    case exited(status: Int32)
    /// By a signal.
    case killed(signal: Int32)

    /// "it ended with status 1", "it was ended by signal 9".
    public var description: String {
      switch self {
      case .exited(let status): "it ended with status \(status)"
      case .killed(let signal): "it was ended by signal \(signal)"
      }
    }
  }

  /// What can be asked of it.
  public enum Request: Sendable {
    /// SIGTERM: end in order.
    case end
    /// SIGKILL.
    case kill
  }

  /// Its process ID, which names it until ``reap()`` gave its end.
  public let processID: Int32
  /// Readable when it said something on standard error, and at its end.
  public let errorDescriptor: Int32

  /// Starts the program at `path`; `arguments` come after its name, `environment` is all it gets
  /// ("NAME=VALUE"), and `passing` become its descriptors 3, 4, ... Throws the failing call's error.
  public init(
    path: String, arguments: [String], environment: [String] = [], passing: [Int32] = []
  ) throws(SystemError) {
    var pipes: (Int32, Int32) = (-1, -1)
    // Sound: pipe2 fills the two integers.
    let piped = unsafe withUnsafeMutablePointer(to: &pipes) { pointer in
      unsafe pointer.withMemoryRebound(to: Int32.self, capacity: 2) { unsafe pipe($0) }
    }
    guard piped == 0 else { throw SystemError(call: "pipe", errno: errno) }
    _ = fcntl(pipes.0, F_SETFD, FD_CLOEXEC)
    _ = fcntl(pipes.0, F_SETFL, O_NONBLOCK)
    // Out of the way of the numbers that the child's descriptors get.
    let sources = ([pipes.1] + passing).map { fcntl($0, F_DUPFD_CLOEXEC, 64) }
    close(pipes.1)
    defer { for source in sources where source >= 0 { close(source) } }
    var process: pid_t = 0
    let failure =
      sources.contains { $0 < 0 }
      ? errno : Self.spawn(&process, path, [path] + arguments, environment, sources)
    guard failure == 0 else {
      close(pipes.0)
      throw SystemError(call: "start \(path)", errno: failure)
    }
    processID = process
    errorDescriptor = pipes.0
  }

  deinit { close(errorDescriptor) }

  private static func spawn(
    _ process: inout pid_t, _ path: String, _ arguments: [String], _ environment: [String],
    _ sources: [Int32]
  ) -> Int32 {
    var actions = unsafe posix_spawn_file_actions_t()
    var attributes = posix_spawnattr_t()
    var none = sigset_t()
    var all = sigset_t()
    // Sound: all four are local and initialised before use; the strings live until the call is over.
    unsafe posix_spawn_file_actions_init(&actions)
    unsafe posix_spawnattr_init(&attributes)
    defer {
      unsafe posix_spawn_file_actions_destroy(&actions)
      unsafe posix_spawnattr_destroy(&attributes)
    }
    unsafe posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDWR, 0)
    unsafe posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_RDWR, 0)
    for (index, source) in sources.enumerated() {
      unsafe posix_spawn_file_actions_adddup2(&actions, source, Int32(2 + index))
    }
    unsafe posix_spawn_file_actions_addclosefrom_np(&actions, Int32(2 + sources.count))
    unsafe sigemptyset(&none)
    unsafe sigfillset(&all)
    unsafe posix_spawnattr_setsigmask(&attributes, &none)
    unsafe posix_spawnattr_setsigdefault(&attributes, &all)
    unsafe posix_spawnattr_setpgroup(&attributes, 0)
    let flags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP
    unsafe posix_spawnattr_setflags(&attributes, Int16(flags))
    let words = CStrings(arguments)
    let variables = CStrings(environment)
    return unsafe posix_spawn(&process, path, &actions, &attributes, words.base, variables.base)
  }

  /// What it said on standard error since the last call, up to 4 KiB; empty at the end, nil when nothing is
  /// there yet.
  public func readErrors() -> [UInt8]? {
    var count = 0
    // Sound: the array's storage is ours for the call and its size is the one passed.
    let bytes = unsafe [UInt8](unsafeUninitializedCapacity: 4096) { buffer, initialized in
      count = unsafe read(errorDescriptor, buffer.baseAddress, buffer.count)
      initialized = max(0, count)
    }
    return count < 0 && (errno == EAGAIN || errno == EINTR) ? nil : bytes
  }

  /// Asks it to end. Only before ``reap()`` gave its end.
  public func ask(_ request: Request) { kill(processID, request == .end ? SIGTERM : SIGKILL) }

  /// How it ended; nil while it runs. Once it gave an end, the process ID means nothing any more.
  public func reap() -> End? { wait(WNOHANG) }

  /// Waits for its end, however long that takes; nil when that was reaped before.
  public func waitForEnd() -> End? { wait(0) }

  /// Kills what still runs, and waits for the end.
  public func killAndReap() -> End? {
    ask(.kill)
    return wait(0)
  }

  private func wait(_ options: Int32) -> End? {
    var status: Int32 = 0
    // Sound: the call fills the local variable.
    guard unsafe waitpid(processID, &status, options) == processID else { return nil }
    let signal = status & 0x7F
    return signal == 0 ? .exited(status: (status >> 8) & 0xFF) : .killed(signal: signal)
  }
}

/// A list of C strings with nil behind the last.
@safe
private struct CStrings: ~Copyable {
  // Sound: the allocation and its strings live as long as this value.
  let base: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>
  private let count: Int

  init(_ strings: [String]) {
    count = strings.count
    unsafe base = .allocate(capacity: strings.count + 1)
    unsafe base.initialize(repeating: nil, count: strings.count + 1)
    for (index, string) in strings.enumerated() { unsafe base[index] = strdup(string) }
  }

  deinit {
    for index in 0..<count { unsafe free(base[index]) }
    unsafe base.deallocate()
  }
}
