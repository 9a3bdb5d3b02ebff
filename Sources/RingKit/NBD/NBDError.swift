import CNBD
import Glibc

/// Why a server of network block devices cannot be used: libnbd's words, and the error number where there is
/// one.
public struct NBDError: Error, Equatable, CustomStringConvertible {
  /// The message.
  public let description: String
  /// The error number, positive; EIO where libnbd gave none.
  public let errno: Int32

  /// Joins a message and an error number.
  public init(_ description: String, errno: Int32) {
    self.description = description
    self.errno = errno
  }

  /// Something that cannot work as it was asked for (EINVAL).
  public init(_ description: String) { self.init(description, errno: EINVAL) }

  /// What the last call of libnbd on this thread complained of.
  static func last() -> NBDError {
    // Sound: the string stays valid until the next call of libnbd on this thread.
    let text = unsafe nbd_get_error().map { unsafe String(cString: $0) }
    return NBDError(text ?? "no reason given", errno: lastErrno())
  }

  /// The error number of the last call of libnbd on this thread.
  static func lastErrno() -> Int32 { nbd_get_errno() > 0 ? nbd_get_errno() : EIO }
}
