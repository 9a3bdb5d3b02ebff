import CUring
import Glibc

/// What has to be known of an image's file before a program is started to serve it.
public struct ImageFacts: Equatable, Sendable {
  /// The user who owns it.
  public var owner: UInt32
  /// The group it belongs to.
  public var group: UInt32
  /// True for a block device, false for a regular file.
  public var isBlockDevice: Bool
  /// True when it can be opened past the page cache.
  public var takesDirect: Bool

  /// States facts.
  public init(owner: UInt32, group: UInt32, isBlockDevice: Bool, takesDirect: Bool) {
    self.owner = owner
    self.group = group
    self.isBlockDevice = isBlockDevice
    self.takesDirect = takesDirect
  }

  /// Looks at the regular file or block device at `path`, through symbolic links; its contents are not read.
  public init(path: String) throws(StorageError) {
    let status = unsafe StorageFile.status { unsafe stat(path, $0) }
    try StorageFile.checkKind(path: path, status)
    guard let status else { throw StorageError(path: path, reason: .missing) }
    let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | ringback_o_direct())
    if descriptor >= 0 { close(descriptor) }
    self.init(
      owner: status.st_uid, group: status.st_gid, isBlockDevice: status.st_mode & S_IFMT == S_IFBLK,
      takesDirect: descriptor >= 0)
  }

  /// Up to `byteCount` bytes from the beginning of the file at `path`.
  public static func beginning(of path: String, byteCount: Int) throws(StorageError) -> [UInt8] {
    // A fifo that is named there would make the call wait.
    let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK)
    guard descriptor >= 0 else { throw StorageError(path: path, call: "open", errno: errno) }
    defer { close(descriptor) }
    var count = 0
    // Sound: the array's storage is ours for the call and its size is the one passed.
    let bytes = unsafe [UInt8](unsafeUninitializedCapacity: byteCount) { buffer, initialized in
      count = unsafe pread(descriptor, buffer.baseAddress, byteCount, 0)
      initialized = max(0, count)
    }
    guard count >= 0 else { throw StorageError(path: path, call: "read", errno: errno) }
    return bytes
  }

  /// True when this process can change its user and drop capabilities of others.
  public static var isPrivileged: Bool { geteuid() == 0 }

  /// True when there is a program at `path` that can be run.
  public static func isProgram(_ path: String) -> Bool { unsafe access(path, X_OK) == 0 }
}
