public import CShared

/// Bytes of a buffer that is held, for reading and writing headers in place: every access is checked against
/// their number, and multi-byte fields are in network byte order.
///
/// It is a name, as ``IOSegment`` is: whoever holds the buffer gives it back only after the last use. No guest
/// can write this memory, so that what was read stays.
@frozen @safe
public struct PrivateBytes: BitwiseCopyable {
  // Sound: made by BufferPool alone, of memory inside its arena, which stays mapped as long as the pool.
  @usableFromInline let base: UnsafeMutableRawPointer
  /// Bytes.
  public let count: Int

  @unsafe @inlinable
  init(base: UnsafeMutableRawPointer, count: Int) {
    unsafe self.base = base
    self.count = count
  }

  /// The byte at `offset`; traps unless it is one of them, as the other accesses do.
  @inlinable
  public subscript(offset: Int) -> UInt8 {
    get {
      precondition(offset >= 0 && offset < count)
      return unsafe base.load(fromByteOffset: offset, as: UInt8.self)
    }
    nonmutating set {
      precondition(offset >= 0 && offset < count)
      unsafe base.storeBytes(of: newValue, toByteOffset: offset, as: UInt8.self)
    }
  }

  /// The 16-bit number at `offset`.
  @inlinable
  public func uint16(at offset: Int) -> UInt16 { UInt16(bigEndian: load(at: offset)) }

  /// The 32-bit number at `offset`.
  @inlinable
  public func uint32(at offset: Int) -> UInt32 { UInt32(bigEndian: load(at: offset)) }

  /// Writes the 16-bit number at `offset`.
  @inlinable
  public func setUInt16(_ value: UInt16, at offset: Int) { store(value.bigEndian, at: offset) }

  /// Writes the 32-bit number at `offset`.
  @inlinable
  public func setUInt32(_ value: UInt32, at offset: Int) { store(value.bigEndian, at: offset) }

  /// The 64-bit word at `offset` in the machine's byte order.
  @inlinable
  public func word(at offset: Int) -> UInt64 { load(at: offset) }

  /// `count` bytes beginning at `offset`.
  @inlinable
  public func slice(from offset: Int, count length: Int) -> PrivateBytes {
    precondition(offset >= 0 && length >= 0 && length <= count && offset <= count - length)
    return unsafe PrivateBytes(base: base + offset, count: length)
  }

  /// The bytes as a transfer names them.
  @inlinable
  public var segment: IOSegment {
    IOSegment(address: UInt(bitPattern: unsafe base), length: UInt(count))
  }

  /// Copies `length` bytes from `source` at `sourceOffset` to `offset`. The two do not overlap.
  @inlinable
  public func copy(_ length: Int, at offset: Int, from source: PrivateBytes, at sourceOffset: Int) {
    let (to, from) = (slice(from: offset, count: length), source.slice(from: sourceOffset, count: length))
    // Sound: both ranges were just checked.
    unsafe shared_copy_data(to.base, from.base, length)
  }

  @inlinable
  func load<Number: FixedWidthInteger & BitwiseCopyable>(at offset: Int) -> Number {
    precondition(offset >= 0 && offset <= count - MemoryLayout<Number>.size)
    return unsafe base.loadUnaligned(fromByteOffset: offset, as: Number.self)
  }

  @inlinable
  func store<Number: FixedWidthInteger & BitwiseCopyable>(_ value: Number, at offset: Int) {
    precondition(offset >= 0 && offset <= count - MemoryLayout<Number>.size)
    unsafe base.storeBytes(of: value, toByteOffset: offset, as: Number.self)
  }
}

extension BufferPool {
  /// All bytes of a buffer that is held.
  @inlinable
  public func bytes(of buffer: IOBuffer) -> PrivateBytes {
    precondition(contains(buffer.segment), "buffer of another pool")
    return unsafe PrivateBytes(
      base: base + Int(buffer.segment.address - arena.address), count: Int(buffer.segment.length))
  }
}
