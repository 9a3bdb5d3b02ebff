import Glibc

/// A system call that failed: which, and how.
public struct SystemError: Error, Equatable, CustomStringConvertible {
  /// Name of the call.
  public let call: String
  /// The error number, positive.
  public let errno: Int32

  /// Records that `call` failed with `errno`.
  public init(call: String, errno: Int32) {
    self.call = call
    self.errno = errno
  }

  /// "call: message".
  public var description: String {
    // Sound: strerror returns a C string that stays valid until the next call on this thread.
    unsafe "\(call): \(String(cString: strerror(errno)))"
  }
}
