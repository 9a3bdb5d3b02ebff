import CUring
import Glibc

/// Whether transfers bypass the page cache (O_DIRECT).
public enum DirectPolicy: String, Sendable, CaseIterable {
  /// Direct, or the disk is refused.
  case always
  /// Direct where it works, else buffered with a warning.
  case preferred
  /// Buffered.
  case never
}

/// An open disk image or block device, taken byte for byte: no format is ever guessed from its contents,
/// which a guest writes.
///
/// Its descriptor is open for as long as this object lives; the caller keeps it until its last request
/// completed.
@safe
public final class StorageFile: Sendable {
  /// The path it was opened by.
  public let path: String
  /// The open descriptor, for requests.
  public let descriptor: Int32
  /// True when it was opened for reading only.
  public let isReadOnly: Bool
  /// True for a block device, false for a regular file.
  public let isBlockDevice: Bool
  /// Size in bytes when it was opened, a multiple of 512.
  public let byteCount: UInt64
  /// True when transfers bypass the page cache.
  public let isDirect: Bool
  /// Why it is buffered although direct was preferred; nil when it is as asked.
  public let directFallback: String?
  /// Bytes that offset and length of every transfer must be a multiple of; a power of two, at least 512.
  public let logicalBlockByteCount: Int
  /// Bytes that every buffer's address must be a multiple of; a power of two.
  public let memoryAlignment: Int
  /// Bytes the medium writes at once without reading them first; at least ``logicalBlockByteCount``.
  public let physicalBlockByteCount: Int
  /// Why nothing keeps a second writer out; nil when something does, or nothing was asked for.
  public var lockWarning: String? { lock?.warning }
  private let lock: ImageLock?

  /// Opens a disk. Only regular files and block devices are opened, through symbolic links too. A block
  /// device's page cache is written back and dropped first, so that nothing stale is served.
  ///
  /// `sharing` claims it against other users, nil does not. Whoever is about to let go of it is waited for, up
  /// to `patienceNanoseconds`.
  public init(
    path: String, readOnly: Bool, direct: DirectPolicy, sharing: ImageSharing? = nil,
    patienceNanoseconds: UInt64 = StorageFile.usualPatienceNanoseconds
  ) throws(StorageError) {
    // Looked at before it is opened: opening a fifo would block, and a device node may act on it.
    let status = unsafe Self.status { unsafe stat(path, $0) }
    try Self.checkKind(path: path, status)
    var access = (readOnly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY
    // Of a device, the kernel knows who has it mounted.
    if sharing == .nobody, let status, status.st_mode & S_IFMT == S_IFBLK { access |= O_EXCL }
    let deadline = MonotonicClock.nowNanoseconds() &+ patienceNanoseconds
    func open(_ flags: Int32) -> Int32 {
      while true {
        let fd = unsafe Glibc.open(path, access | flags)
        guard fd < 0, errno == EBUSY, access & O_EXCL != 0 else { return fd }
        guard MonotonicClock.nowNanoseconds() < deadline else { return fd }
        _ = poll(nil, 0, 10)
      }
    }
    var fd: Int32 = -1
    var refusal: String?
    if direct != .never {
      fd = open(ringback_o_direct())
      if fd < 0 && errno == EINVAL { refusal = "the file system refuses O_DIRECT" }
    }
    if fd < 0 && (direct == .never || refusal != nil) {
      if direct == .always { throw StorageError(path: path, reason: .directRefused) }
      fd = open(0)
    }
    guard fd >= 0 else { throw StorageError(path: path, call: "open", errno: errno) }
    do throws(StorageError) {
      lock = try sharing.map { (sharing) throws(StorageError) in
        try ImageLock(
          path: path, descriptor: fd, readOnly: readOnly, sharing: sharing,
          patienceNanoseconds: patienceNanoseconds)
      }
      let medium = try Medium(path: path, descriptor: fd, readOnly: readOnly)
      var alignment = DirectAlignment.buffered(blockByteCount: medium.logicalBlockByteCount)
      if direct != .never && refusal == nil {
        let probe = DirectAlignment.probe(descriptor: fd, medium: medium)
        if let found = probe, medium.byteCount % UInt64(found.offset) == 0 {
          alignment = found
        } else {
          refusal =
            probe.map {
              "its size is not a multiple of the \($0.offset) bytes that direct I/O transfers"
            } ?? "direct reads are refused"
          if direct == .always {
            let ragged = probe.map {
              StorageError.Reason.ragged(byteCount: medium.byteCount, multiple: $0.offset)
            }
            throw StorageError(path: path, reason: ragged ?? .directRefused)
          }
          _ = fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~ringback_o_direct())
        }
      }
      self.path = path
      descriptor = fd
      isReadOnly = readOnly
      isBlockDevice = medium.isBlockDevice
      byteCount = medium.byteCount
      isDirect = direct != .never && refusal == nil
      directFallback = refusal.map {
        "\(path): \($0); buffered I/O is used, so the host's page cache holds its data"
      }
      logicalBlockByteCount = alignment.offset
      memoryAlignment = alignment.memory
      physicalBlockByteCount = max(medium.physicalBlockByteCount, alignment.offset)
    } catch {
      close(fd)
      throw error
    }
  }

  deinit {
    lock?.release()
    close(descriptor)
  }

  /// Opens a disk; see ``init(path:readOnly:direct:sharing:patienceNanoseconds:)``.
  public static func open(
    path: String, readOnly: Bool, direct: DirectPolicy = .preferred, sharing: ImageSharing? = nil,
    patienceNanoseconds: UInt64 = StorageFile.usualPatienceNanoseconds
  ) throws(StorageError) -> StorageFile {
    try StorageFile(
      path: path, readOnly: readOnly, direct: direct, sharing: sharing,
      patienceNanoseconds: patienceNanoseconds)
  }

  /// How long a daemon that stops may take to let go of an image.
  public static var usualPatienceNanoseconds: UInt64 { 2_000_000_000 }

  /// The size in bytes now, which changes when the image or device is resized: whole blocks, of
  /// ``logicalBlockByteCount`` bytes each.
  public func currentByteCount() throws(StorageError) -> UInt64 { try currentSize().byteCount }

  /// The size in whole blocks now, and how many bytes at the end belong to none.
  public func currentSize() throws(StorageError) -> (byteCount: UInt64, tailByteCount: Int) {
    let medium = try Medium(path: path, descriptor: descriptor, isBlockDevice: isBlockDevice)
    let block = UInt64(max(512, logicalBlockByteCount))
    let whole = medium.byteCount & ~(block - 1)
    guard whole > 0 else { throw StorageError(path: path, reason: .empty) }
    return (whole, Int(medium.byteCount - whole))
  }

  /// Throws unless a status is that of a regular file or a block device.
  static func checkKind(path: String, _ status: stat?) throws(StorageError) {
    guard let status else { throw StorageError(path: path, call: "stat", errno: errno) }
    let kind: String
    switch status.st_mode & S_IFMT {
    case S_IFREG, S_IFBLK: return
    case S_IFDIR: kind = "a directory"
    case S_IFIFO: kind = "a fifo"
    case S_IFSOCK: kind = "a socket"
    case S_IFCHR: kind = "a character device"
    default: kind = "of an unknown kind"
    }
    throw StorageError(path: path, reason: .unsuitable(kind))
  }

  static func status(_ call: (UnsafeMutablePointer<stat>) -> Int32) -> stat? {
    var status = stat()
    // Sound: the call fills the local variable and keeps no pointer.
    return unsafe call(&status) == 0 ? status : nil
  }
}
