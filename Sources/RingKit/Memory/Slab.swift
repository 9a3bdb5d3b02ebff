import CUring
import Glibc

/// A table of fixed capacity and fixed layout in memory of its own, zeroed at first.
///
/// It lies in a memfd, so that a later process can take the table over after this one was killed.
@safe
public struct Slab<Element: BitwiseCopyable>: ~Copyable {
  // Sound: the mapping holds `capacity` elements, is never moved, and every index is checked.
  @usableFromInline let base: UnsafeMutablePointer<Element>
  /// Elements in the table.
  public let capacity: Int
  /// The memfd that holds the table.
  public let descriptor: Int32
  private let byteCount: Int

  /// Allocates a table; `name` shows in /proc/PID/maps. Throws the failing call's error.
  public init(name: String, capacity: Int) throws(SystemError) {
    precondition(capacity > 0)
    let bytes = capacity * MemoryLayout<Element>.stride
    // Sound: the name is a valid C string for the call, and the mapping is ours until deinit.
    let fd = unsafe ringback_memfd_create(name, UInt32(MFD_CLOEXEC))
    guard fd >= 0 else { throw SystemError(call: "memfd_create", errno: errno) }
    guard ftruncate(fd, bytes) == 0 else {
      let failure = SystemError(call: "ftruncate", errno: errno)
      close(fd)
      throw failure
    }
    let mapping = unsafe mmap(nil, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
    guard let mapping = unsafe mapping, unsafe mapping != MAP_FAILED else {
      let failure = SystemError(call: "mmap", errno: errno)
      close(fd)
      throw failure
    }
    unsafe self.base = mapping.bindMemory(to: Element.self, capacity: capacity)
    self.capacity = capacity
    self.descriptor = fd
    self.byteCount = bytes
  }

  deinit {
    unsafe munmap(base, byteCount)
    close(descriptor)
  }

  /// The element at `index`, checked.
  @inlinable
  public subscript(index: Int) -> Element {
    get {
      precondition(index >= 0 && index < capacity)
      return unsafe base[index]
    }
    _modify {
      precondition(index >= 0 && index < capacity)
      yield unsafe &base[index]
    }
  }
}
