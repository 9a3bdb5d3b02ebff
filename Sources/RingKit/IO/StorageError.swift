import Glibc

/// Why an image or a device cannot serve as a disk: which path, what is wrong, and what to do.
public struct StorageError: Error, Equatable, CustomStringConvertible {
  /// What kind of trouble it is.
  public enum Reason: Equatable, Sendable {
    /// Nothing is there.
    case missing
    /// This process may not open it.
    case permission
    /// Neither a regular file nor a block device: what it is instead.
    case unsuitable(String)
    /// A drive without a medium, or a device without a driver.
    case noMedium
    /// No bytes in it.
    case empty
    /// Its size in bytes is not a multiple of what it must be a multiple of.
    case ragged(byteCount: UInt64, multiple: Int)
    /// Writing was asked for and its medium or file system is read-only.
    case readOnlyMedium
    /// Direct I/O was demanded and is refused.
    case directRefused
    /// The device or file is in use in a way that excludes us.
    case busy
    /// Another user of the image excludes us, or we exclude him.
    case inUse(ImageConflict)
    /// Another failure: the call and error number.
    case system(SystemError)
  }

  /// The path as it was given.
  public let path: String
  /// The kind of trouble.
  public let reason: Reason

  /// Joins a path and a reason.
  public init(path: String, reason: Reason) {
    self.path = path
    self.reason = reason
  }

  /// Sorts the error number of an open that failed.
  init(path: String, call: String, errno code: Int32) {
    self.path = path
    switch code {
    case ENOENT, ENOTDIR: reason = .missing
    case EACCES, EPERM: reason = .permission
    case EROFS: reason = .readOnlyMedium
    case EISDIR: reason = .unsuitable("a directory")
    case EBUSY, ETXTBSY: reason = .busy
    case ENXIO, ENOMEDIUM: reason = .noMedium
    default: reason = .system(SystemError(call: call, errno: code))
    }
  }

  /// "path: what is wrong; what to do".
  public var description: String {
    switch reason {
    case .missing:
      return "\(path): does not exist; create it (`truncate -s 10G \(path)`) or correct the path"
    case .permission:
      return "\(path): permission denied; give this daemon's user read and write access (only read for a"
        + " read-only disk) to it and search access to its directories"
    case .unsuitable(let kind):
      return "\(path): is \(kind); a disk is a regular file or a block device"
    case .noMedium:
      return "\(path): is a device without a medium or a driver; a disk is a regular file or a block device"
    case .empty:
      return "\(path): is empty; give it a size first (`truncate -s 10G \(path)`)"
    case .ragged(let byteCount, let multiple):
      return "\(path): its size, \(byteCount) bytes, is not a multiple of \(multiple); extend it"
        + " (`truncate -s %\(multiple) \(path)` rounds it up)"
    case .readOnlyMedium:
      return "\(path): is on a read-only medium; attach it read-only (mode r) or make the medium writable"
    case .directRefused:
      return "\(path): direct I/O was demanded, but the file system refuses it; use another file system, or"
        + " allow buffered I/O"
    case .busy:
      return "\(path): is busy, mounted or in exclusive use; detach it wherever else it is in use"
    case .inUse(let conflict):
      return "\(path): \(conflict.words)"
    case .system(let failure):
      return "\(path): \(failure)"
    }
  }
}

extension StorageError.Reason {
  /// The error number that comes closest.
  public var errno: Int32 {
    switch self {
    case .missing: ENOENT
    case .permission: EACCES
    case .unsuitable, .empty, .ragged, .directRefused: EINVAL
    case .noMedium: ENOMEDIUM
    case .readOnlyMedium: EROFS
    case .busy, .inUse: EBUSY
    case .system(let failure): failure.errno
    }
  }
}
