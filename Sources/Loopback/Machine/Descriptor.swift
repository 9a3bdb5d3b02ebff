import CUring
import Glibc
import RingKit

/// An open file of this process, closed with this object.
final class Descriptor: Sendable {
  /// The number, valid while this object lives.
  let raw: Int32

  /// Takes over `raw`.
  init(owning raw: Int32) { self.raw = raw }

  deinit { close(raw) }

  /// Zeroed shared memory whose size nobody can change: a peer that shrank it could crash us with SIGBUS.
  static func sharedMemory(name: String, byteCount: Int) throws(SystemError) -> Descriptor {
    // linux/fcntl.h; glibc shows these only with _GNU_SOURCE.
    let addSeals: Int32 = 1033, fixedSize: Int32 = 0x0001 | 0x0002 | 0x0004
    // Sound: the name is a C string for the call.
    let raw = unsafe ringback_memfd_create(name, UInt32(MFD_CLOEXEC) | UInt32(MFD_ALLOW_SEALING))
    guard raw >= 0 else { throw SystemError(call: "memfd_create", errno: errno) }
    let memory = Descriptor(owning: raw)
    guard ftruncate(raw, byteCount) == 0 else { throw SystemError(call: "ftruncate", errno: errno) }
    guard fcntl(raw, addSeals, fixedSize) == 0 else { throw SystemError(call: "F_ADD_SEALS", errno: errno) }
    return memory
  }

  /// An eventfd that never blocks.
  static func event() throws(SystemError) -> Descriptor {
    let raw = eventfd(0, Int32(EFD_NONBLOCK) | Int32(EFD_CLOEXEC))
    guard raw >= 0 else { throw SystemError(call: "eventfd", errno: errno) }
    return Descriptor(owning: raw)
  }

  /// The same file opened again for reading only, so that the kernel refuses a writable mapping of it.
  func reopenedForReading() throws(SystemError) -> Descriptor {
    let raw = unsafe open("/proc/self/fd/\(raw)", O_RDONLY | O_CLOEXEC)
    guard raw >= 0 else { throw SystemError(call: "open /proc/self/fd", errno: errno) }
    return Descriptor(owning: raw)
  }

  /// Maps the first `byteCount` bytes, shared.
  @unsafe
  func map(byteCount: Int, protection: Int32) throws(SystemError) -> UnsafeMutableRawPointer {
    let base = unsafe mmap(nil, byteCount, protection, MAP_SHARED, raw, 0)
    guard let base = unsafe base, unsafe base != MAP_FAILED else {
      throw SystemError(call: "mmap", errno: errno)
    }
    return unsafe base
  }

  /// Adds one to an eventfd's count. A full counter is an event already pending.
  func signal() {
    var one: UInt64 = 1
    _ = unsafe write(raw, &one, 8)
  }
}
