import CUring
import Glibc

/// A network namespace of its own: interfaces, addresses and routes that nothing outside can see
/// (network_namespaces(7)). It goes away with this object, the last thread and the last process inside.
///
/// Demonstrations and tests build their networks in one, so that they cannot touch the machine's.
@safe
public final class NetworkNamespace: Sendable {
  /// Tells one namespace from another while it exists.
  struct Identity: Equatable {
    let device: UInt64
    let inode: UInt64
  }

  /// Keeps the namespace.
  private let descriptor: Int32

  /// Makes one with a loopback interface that is down. Throws EPERM without CAP_SYS_ADMIN.
  public init() throws(SystemError) {
    let opened = Handoff<Result<Int32, SystemError>>()
    // The calling thread stays where it is: only the thread that asks moves.
    let thread = try OSThread(name: "new-network") {
      guard ringback_unshare_network() == 0 else {
        opened.put(.failure(SystemError(call: "unshare(CLONE_NEWNET)", errno: errno)))
        return
      }
      let fd = unsafe open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC)
      opened.put(
        fd >= 0 ? .success(fd) : .failure(SystemError(call: "open(/proc/thread-self/ns/net)", errno: errno)))
    }
    defer { thread.join() }
    guard let result = opened.take() else { throw SystemError(call: "unshare(CLONE_NEWNET)", errno: EAGAIN) }
    descriptor = try result.get()
  }

  deinit { close(descriptor) }

  /// The calling thread's; nil where /proc does not tell.
  static var currentIdentity: Identity? {
    unsafe StorageFile.status { unsafe stat("/proc/thread-self/ns/net", $0) }
      .map { Identity(device: UInt64($0.st_dev), inode: UInt64($0.st_ino)) }
  }

  /// Runs `body` inside on the calling thread, which is back where it was afterwards. For code that has to stay
  /// on its thread; the body must not give the capability CAP_SYS_ADMIN up, or there is no way back (a trap).
  public func inside<Value>(_ body: () throws -> Value) throws -> Value {
    let home = unsafe open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC)
    guard home >= 0 else { throw SystemError(call: "open(/proc/thread-self/ns/net)", errno: errno) }
    defer { close(home) }
    guard ringback_enter_network(descriptor) == 0 else {
      throw SystemError(call: "setns(CLONE_NEWNET)", errno: errno)
    }
    // A thread that went on in the wrong network could change another machine's interfaces than was meant.
    defer { precondition(ringback_enter_network(home) == 0, "no way back from a network namespace") }
    return try body()
  }

  /// Runs `body` on a thread of its own inside, and waits for it. Sockets, TAPs and processes that it makes
  /// belong to the namespace, also when they are used elsewhere later.
  public func run<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) throws -> Value {
    let result = Handoff<Result<Value, any Error>>()
    let descriptor = descriptor
    let thread = try OSThread(name: "in-network") {
      guard ringback_enter_network(descriptor) == 0 else {
        result.put(.failure(SystemError(call: "setns(CLONE_NEWNET)", errno: errno)))
        return
      }
      result.put(Result { try body() })
    }
    defer { thread.join() }
    guard let value = result.take() else { throw SystemError(call: "setns(CLONE_NEWNET)", errno: EAGAIN) }
    return try value.get()
  }
}
