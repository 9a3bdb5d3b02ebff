import Glibc

/// What others may do with an image while we use it.
public enum ImageSharing: Sendable, CaseIterable {
  /// Others may read, nobody may write (mode r).
  case readers
  /// Nobody else may read or write (mode w).
  case nobody
  /// Others may read and write, if they allow the same (mode w!).
  case everybody
}

/// Somebody whose use of an image excludes ours.
public enum ImageConflict: Equatable, Sendable {
  /// It is written elsewhere.
  case writer
  /// It is read elsewhere, by somebody who allows no writer beside him.
  case reader
  /// It is used elsewhere in a way that excludes us.
  case exclusive
  /// It is read or about to be used elsewhere, by somebody who would allow a writer; but we share it with nobody.
  case claimed

  var words: String {
    switch self {
    case .writer:
      "is in use by another writer; detach it there, or attach it everywhere with mode w! if what is on it"
        + " allows several writers (a cluster file system)"
    case .reader:
      "is in use by a reader that allows no writer beside it; detach it there, or attach it read-only (mode r)"
    case .claimed:
      "is in use by a reader, or by another writer who is about to begin; detach it there"
    case .exclusive:
      "is in use elsewhere by somebody who shares it with nobody; detach it there"
    }
  }
}

/// A claim on an image, by which daemons (and disks within one) keep out of each other's way.
///
/// The rules are those of QEMU, so that its tools keep out of ours too (docs/system/qemu-block-drivers,
/// "Disk image file locking"): a shared lock on byte 100+n of the file says that permission n is used, one on
/// byte 200+n that nobody else may use it, for n of: 0 consistent read, 1 write, 2 write unchanged, 3 resize.
/// Nobody ever holds an exclusive lock; asking for one finds the others. The locks belong to the open file
/// description, so they count within one process too, and vanish with a killed one (fcntl(2), F_OFD_SETLK).
@safe
struct ImageLock {
  private let descriptor: Int32
  /// Why the image is not protected; nil when it is.
  let warning: String?

  private static var permissions: Range<Int> { 0..<4 }
  private static func used(_ permission: Int) -> off_t { off_t(100 + permission) }
  private static func unshared(_ permission: Int) -> off_t { off_t(200 + permission) }

  // fcntl.h hides these behind _GNU_SOURCE (asm-generic/fcntl.h).
  private static var getLock: Int32 { 36 }
  private static var setLock: Int32 { 37 }

  /// Claims the image open as `descriptor`, waiting up to `patienceNanoseconds` for somebody who is about to
  /// let go of it, such as the daemon whose place we take.
  init(
    path: String, descriptor: Int32, readOnly: Bool, sharing: ImageSharing, patienceNanoseconds: UInt64
  ) throws(StorageError) {
    self.descriptor = descriptor
    let uses = readOnly ? [0] : [0, 1]
    let excludes =
      switch sharing {
      case .readers: [1, 3]
      case .nobody: [0, 1, 3]
      case .everybody: readOnly ? [] : [3]
      }
    let deadline = MonotonicClock.nowNanoseconds() &+ patienceNanoseconds
    while true {
      for byte in uses.map(Self.used) + excludes.map(Self.unshared) {
        guard Self.lock(descriptor, F_RDLCK, byte) else {
          let code = errno
          Self.unlock(descriptor)
          // A file system without locks protects nobody; QEMU goes on without them too.
          warning =
            "\(path): the file system has no locks (\(SystemError(call: "F_OFD_SETLK", errno: code))), so"
            + " nothing keeps a second writer out"
          return
        }
      }
      guard let conflict = Self.conflict(descriptor, uses: uses, excludes: excludes) else { break }
      Self.unlock(descriptor)
      guard MonotonicClock.nowNanoseconds() < deadline else {
        throw StorageError(path: path, reason: .inUse(conflict))
      }
      // Nothing tells of a lock that ends; two who ask at the same time must not meet again.
      _ = poll(nil, 0, Int32.random(in: 5...25))
    }
    warning = nil
  }

  /// Lets go. Needed although closing does the same: a ring that had the file registered keeps it open for a
  /// while longer.
  func release() { Self.unlock(descriptor) }

  private static func conflict(_ descriptor: Int32, uses: [Int], excludes: [Int]) -> ImageConflict? {
    for permission in excludes where isLocked(descriptor, used(permission)) {
      guard permission == 0, !isLocked(descriptor, used(1)) else { return .writer }
      return isLocked(descriptor, unshared(1)) ? .reader : .claimed
    }
    for permission in uses where isLocked(descriptor, unshared(permission)) {
      if permission == 0 { return .exclusive }
      return isLocked(descriptor, used(1)) ? .writer : .reader
    }
    return nil
  }

  /// True when somebody else holds a lock on the byte.
  private static func isLocked(_ descriptor: Int32, _ byte: off_t) -> Bool {
    var request = flock()
    request.l_type = Int16(F_WRLCK)
    request.l_whence = Int16(SEEK_SET)
    request.l_start = byte
    request.l_len = 1
    // Sound: the call reads and fills the local variable.
    let answered = unsafe fcntl(descriptor, getLock, &request) == 0
    return answered && request.l_type != Int16(F_UNLCK)
  }

  private static func lock(_ descriptor: Int32, _ type: Int32, _ byte: off_t) -> Bool {
    var request = flock()
    request.l_type = Int16(type)
    request.l_whence = Int16(SEEK_SET)
    request.l_start = byte
    request.l_len = 1
    // Sound: the call reads the local variable.
    return unsafe fcntl(descriptor, setLock, &request) == 0
  }

  private static func unlock(_ descriptor: Int32) {
    for permission in permissions {
      _ = lock(descriptor, F_UNLCK, used(permission))
      _ = lock(descriptor, F_UNLCK, unshared(permission))
    }
  }
}
