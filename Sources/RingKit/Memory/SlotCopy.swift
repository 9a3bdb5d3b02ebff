/// Private copy of one ring slot: the only form in which a request or response is looked at (XSA-155).
///
/// It holds up to 128 bytes, more than any slot of blkif.h or netif.h. Fields are read in the byte order of
/// the machine, as the rings of Xen have it, and may lie at any offset: in the x86_32 layout of blkif.h a
/// 64-bit field lies at a multiple of 4.
@frozen @safe
public struct SlotCopy: BitwiseCopyable, Sendable {
  @usableFromInline var words: InlineArray<16, UInt64>

  /// Bytes that a copy can hold.
  public static var capacity: Int { @inlinable get { 128 } }

  /// A copy of zeroes.
  @inlinable @inline(__always)
  public init() { words = InlineArray(repeating: 0) }

  // Sound in all accessors: a raw span checks the offset, and any bit pattern is a valid integer.

  /// The byte at `offset`; traps past byte 127.
  @inlinable @inline(__always)
  public func uint8(at offset: Int) -> UInt8 {
    unsafe words.span.bytes.unsafeLoadUnaligned(fromByteOffset: offset, as: UInt8.self)
  }

  /// The 16-bit field at `offset`; traps unless it lies within the copy.
  @inlinable @inline(__always)
  public func uint16(at offset: Int) -> UInt16 {
    unsafe words.span.bytes.unsafeLoadUnaligned(fromByteOffset: offset, as: UInt16.self)
  }

  /// The 32-bit field at `offset`; traps unless it lies within the copy.
  @inlinable @inline(__always)
  public func uint32(at offset: Int) -> UInt32 {
    unsafe words.span.bytes.unsafeLoadUnaligned(fromByteOffset: offset, as: UInt32.self)
  }

  /// The 64-bit field at `offset`; traps unless it lies within the copy.
  @inlinable @inline(__always)
  public func uint64(at offset: Int) -> UInt64 {
    unsafe words.span.bytes.unsafeLoadUnaligned(fromByteOffset: offset, as: UInt64.self)
  }

  /// Writes the byte at `offset`; traps past byte 127.
  @inlinable @inline(__always)
  public mutating func setUInt8(_ value: UInt8, at offset: Int) { set(value, at: offset) }

  /// Writes the 16-bit field at `offset`; traps unless it lies within the copy.
  @inlinable @inline(__always)
  public mutating func setUInt16(_ value: UInt16, at offset: Int) { set(value, at: offset) }

  /// Writes the 32-bit field at `offset`; traps unless it lies within the copy.
  @inlinable @inline(__always)
  public mutating func setUInt32(_ value: UInt32, at offset: Int) { set(value, at: offset) }

  /// Writes the 64-bit field at `offset`; traps unless it lies within the copy.
  @inlinable @inline(__always)
  public mutating func setUInt64(_ value: UInt64, at offset: Int) { set(value, at: offset) }

  @inlinable @inline(__always)
  mutating func set<Field: FixedWidthInteger & BitwiseCopyable>(_ value: Field, at offset: Int) {
    var span = words.mutableSpan
    var bytes = unsafe span.mutableBytes
    bytes.storeBytes(of: value, toByteOffset: offset, as: Field.self)
  }
}
