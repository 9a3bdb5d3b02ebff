import Foundation

/// Why something could not be done with a tap: the words, and the error number that `tap-ctl` ends with, which
/// scripts and XenServer's storage manager look at.
struct TapError: Error, Equatable, CustomStringConvertible {
  /// A number of errno.h, positive.
  let errno: Int32
  let description: String

  init(_ errno: Int32, _ description: String) {
    self.errno = errno
    self.description = description
  }
}
