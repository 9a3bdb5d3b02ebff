public import RingKit

/// Why a disk cannot be served: what, where, and what to do. Ends up in the log and in the device's error
/// node.
public struct VbdError: Error, Equatable, CustomStringConvertible {
  /// The message.
  public let description: String

  /// The error number behind it, if one is known.
  public let errno: Int32?

  /// Wraps a message.
  public init(_ description: String, errno: Int32? = nil) {
    self.description = description
    self.errno = errno
  }

  /// Takes over the words of another error.
  public init(_ error: some Error & CustomStringConvertible) { self.init(error.description) }

  /// Takes over words and number of a failed opening.
  public init(_ error: StorageError) { self.init(error.description, errno: error.reason.errno) }
}
