/// Why the store's sockets could not be set up.
public enum StoreServerError: Error, Equatable, CustomStringConvertible {
  /// A unix socket's path has at most 107 bytes (`sun_path` of `sockaddr_un`, with its NUL).
  case pathTooLong(path: String, bytes: Int)
  /// A live server listens there already.
  case pathInUse(path: String)
  /// A system call failed with this errno.
  case system(call: String, path: String, errno: Int32, reason: String)
  /// `start` was called twice, or after `stop`.
  case notStartable

  public var description: String {
    switch self {
    case .pathTooLong(let path, let bytes):
      "socket path \(path) has \(bytes) bytes, a unix socket's at most 107: use a shorter directory"
    case .pathInUse(let path):
      "\(path): another xenstore server listens there; stop it or choose another directory"
    case .system(let call, let path, let errno, let reason):
      "\(call) of \(path) failed: \(reason) (errno \(errno))"
    case .notStartable:
      "a store server starts once; make a new one instead"
    }
  }
}
