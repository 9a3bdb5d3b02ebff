public import CUring
import Glibc

/// Segments for vectored requests, in a table of fixed capacity whose addresses never change.
@safe
public struct IOVectorTable: ~Copyable {
  // Sound: the allocation lives as long as the table, IOSegment has the layout of struct iovec (checked in
  // init), and every index is checked.
  @usableFromInline let base: UnsafeMutablePointer<IOSegment>
  /// Segments in the table.
  public let capacity: Int

  /// Allocates `capacity` empty segments.
  public init(capacity: Int) {
    precondition(capacity > 0)
    precondition(unsafe MemoryLayout<IOSegment>.size == MemoryLayout<iovec>.size)
    precondition(unsafe MemoryLayout<IOSegment>.stride == MemoryLayout<iovec>.stride)
    precondition(
      unsafe MemoryLayout<IOSegment>.offset(of: \.address) == MemoryLayout<iovec>.offset(of: \.iov_base))
    precondition(
      unsafe MemoryLayout<IOSegment>.offset(of: \.length) == MemoryLayout<iovec>.offset(of: \.iov_len))
    self.capacity = capacity
    unsafe base = .allocate(capacity: capacity)
    unsafe base.initialize(repeating: IOSegment(address: 0, length: 0), count: capacity)
  }

  deinit { unsafe base.deallocate() }

  /// The segment at `index`.
  @inlinable
  public subscript(index: Int) -> IOSegment {
    get {
      precondition(index >= 0 && index < capacity)
      return unsafe base[index]
    }
    nonmutating set {
      precondition(index >= 0 && index < capacity)
      unsafe base[index] = newValue
    }
  }

  /// Bytes in `count` segments beginning with `first`.
  @inlinable
  public func byteCount(first: Int, count: Int) -> UInt {
    precondition(first >= 0 && count >= 0 && first <= capacity && count <= capacity - first)
    var total: UInt = 0
    for index in first..<(first + count) { total += unsafe base[index].length }
    return total
  }

  /// A run of segments as the kernel takes it.
  @unsafe @inlinable
  func vectors(first: Int, count: Int) -> UnsafePointer<iovec> {
    precondition(first >= 0 && count > 0 && first < capacity && count <= capacity - first)
    return unsafe UnsafeRawPointer(base + first).assumingMemoryBound(to: iovec.self)
  }
}
