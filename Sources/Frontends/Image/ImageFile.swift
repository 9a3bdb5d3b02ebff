import Glibc
import RingKit

/// A file that an image is copied from or to.
final class ImageFile {
  let descriptor: Int32
  private let path: String

  /// Opens a file to read, or makes one to write.
  init(path: String, writing: Bool) throws(SystemError) {
    self.path = path
    // Sound: the path is a C string for the call.
    descriptor = unsafe open(path, (writing ? O_RDWR | O_CREAT | O_TRUNC : O_RDONLY) | O_CLOEXEC, 0o644)
    guard descriptor >= 0 else { throw SystemError(call: "open \(path)", errno: errno) }
  }

  deinit { close(descriptor) }

  /// The file's size in bytes.
  func byteCount() throws(SystemError) -> UInt64 {
    var status = stat()
    // Sound: the call fills the local variable.
    guard unsafe fstat(descriptor, &status) == 0 else {
      throw SystemError(call: "stat \(path)", errno: errno)
    }
    return UInt64(max(0, status.st_size))
  }

  /// Reads into all of `segment`, with zeroes after the file's end. The segment's owner must be kept
  /// meanwhile.
  func read(into segment: IOSegment, at offset: UInt64) throws(SystemError) {
    var left = segment
    while left.length > 0 {
      // Sound: whoever made the segment keeps its memory, and says how long it is.
      guard let target = unsafe UnsafeMutableRawPointer(bitPattern: left.address) else { return }
      let position = off_t(offset + UInt64(segment.length - left.length))
      let count = unsafe pread(descriptor, target, Int(left.length), position)
      if count > 0 {
        left = left.dropping(first: UInt(count))
      } else if count == 0 {
        unsafe memset(target, 0, Int(left.length))
        return
      } else if errno != EINTR {
        throw SystemError(call: "read \(path)", errno: errno)
      }
    }
  }

  /// Writes all of `segment`. The segment's owner must be kept meanwhile.
  func write(_ segment: IOSegment, at offset: UInt64) throws(SystemError) {
    var left = segment
    while left.length > 0 {
      // Sound: as in read.
      guard let source = unsafe UnsafeRawPointer(bitPattern: left.address) else { return }
      let position = off_t(offset + UInt64(segment.length - left.length))
      let count = unsafe pwrite(descriptor, source, Int(left.length), position)
      if count >= 0 {
        left = left.dropping(first: UInt(count))
      } else if errno != EINTR {
        throw SystemError(call: "write \(path)", errno: errno)
      }
    }
  }
}
