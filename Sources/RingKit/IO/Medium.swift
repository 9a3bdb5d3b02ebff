import CUring
import Glibc

/// What the kernel says of the medium behind an open descriptor.
struct Medium {
  let isBlockDevice: Bool
  let byteCount: UInt64
  let logicalBlockByteCount: Int
  let physicalBlockByteCount: Int

  /// Asks the kernel, checks that this can be a disk, and drops a block device's page cache.
  init(path: String, descriptor: Int32, readOnly: Bool) throws(StorageError) {
    let status = unsafe StorageFile.status { unsafe fstat(descriptor, $0) }
    // Asked again: what the path names may have been exchanged since it was looked at.
    try StorageFile.checkKind(path: path, status)
    let isBlockDevice = status.map { $0.st_mode & S_IFMT == S_IFBLK } ?? false
    try self.init(path: path, descriptor: descriptor, isBlockDevice: isBlockDevice)
    // The protocol counts in 512-byte sectors, whatever the medium's block (blkif.h, "sectors").
    guard byteCount % 512 == 0 else {
      throw StorageError(path: path, reason: .ragged(byteCount: byteCount, multiple: 512))
    }
    if isBlockDevice {
      // The kernel lets a write-protected device be opened for writing, and refuses the writes.
      if !readOnly && ringback_is_read_only(descriptor) != 0 {
        throw StorageError(path: path, reason: .readOnlyMedium)
      }
      // The flush needs CAP_SYS_ADMIN; without it, what is dirty is written and the clean rest is let go.
      if !readOnly { _ = fsync(descriptor) }
      if ringback_drop_block_cache(descriptor) != 0 {
        _ = posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED)
      }
    }
  }

  /// Asks the kernel for sizes.
  init(path: String, descriptor: Int32, isBlockDevice: Bool) throws(StorageError) {
    self.isBlockDevice = isBlockDevice
    if isBlockDevice {
      var bytes: UInt64 = 0
      var logical: Int32 = 0
      var physical: UInt32 = 0
      // Sound: the call fills the three local variables.
      guard unsafe ringback_block_size(descriptor, &bytes, &logical, &physical) == 0 else {
        throw StorageError(path: path, call: "BLKGETSIZE64", errno: errno)
      }
      byteCount = bytes
      logicalBlockByteCount = max(Int(logical), 512)
      physicalBlockByteCount = max(Int(physical), logicalBlockByteCount)
    } else {
      guard let status = unsafe StorageFile.status({ unsafe fstat(descriptor, $0) }) else {
        throw StorageError(path: path, call: "fstat", errno: errno)
      }
      byteCount = UInt64(status.st_size)
      logicalBlockByteCount = 512
      physicalBlockByteCount = max(512, min(Int(status.st_blksize), 4096))
    }
    guard byteCount > 0 else { throw StorageError(path: path, reason: .empty) }
  }
}

/// What direct transfers of a file must be aligned to, in bytes.
struct DirectAlignment {
  let memory: Int
  let offset: Int

  /// Buffered transfers take any alignment; whole blocks spare the page cache a read before a write.
  static func buffered(blockByteCount: Int) -> DirectAlignment {
    DirectAlignment(memory: 1, offset: blockByteCount)
  }

  /// The alignment of an O_DIRECT descriptor, nil when direct transfers are refused. Whatever the kernel
  /// says, the smallest such read is tried, because file systems differ in when they refuse.
  static func probe(descriptor: Int32, medium: Medium) -> DirectAlignment? {
    var memory: UInt32 = 0
    var offset: UInt32 = 0
    // Sound: the call fills the two local variables.
    let answered = unsafe ringback_direct_alignment(descriptor, &memory, &offset) != 0
    if answered && offset == 0 && !medium.isBlockDevice { return nil }
    var candidates = [512, 4096].filter { $0 >= medium.logicalBlockByteCount }
    if answered && offset > 0 {
      let told = max(512, Int(offset))
      guard told.nonzeroBitCount == 1 && told <= 65536 else { return nil }
      candidates = [max(told, medium.logicalBlockByteCount)]
    }
    for candidate in candidates where canRead(descriptor, byteCount: candidate) {
      // Where the kernel does not tell the memory's alignment, the block's own always suffices.
      let aligned = answered && memory > 0 && memory.nonzeroBitCount == 1 ? Int(memory) : candidate
      return DirectAlignment(memory: aligned, offset: candidate)
    }
    return nil
  }

  private static func canRead(_ descriptor: Int32, byteCount: Int) -> Bool {
    // Sound: the buffer is ours and as long as the read.
    guard let buffer = unsafe aligned_alloc(max(byteCount, 4096), max(byteCount, 4096)) else { return false }
    defer { unsafe free(buffer) }
    return unsafe pread(descriptor, buffer, byteCount, 0) >= 0
  }
}
