import RingKit

/// Bytes and words of pages that stand for a guest's memory, as the other side would write and see them.
extension MappedPages {
  /// `count` bytes at `offset`.
  func bytes(at offset: Int = 0, count: Int) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count)
    var span = bytes.mutableSpan
    // Sound: bytes have no padding.
    var raw = unsafe span.mutableBytes
    copyOut(offset: offset, into: &raw)
    return bytes
  }

  /// All bytes of the pages.
  func allBytes() -> [UInt8] { bytes(count: byteCount) }

  /// Overwrites bytes beginning at `offset`.
  func write(_ bytes: [UInt8], at offset: Int) {
    // Sound: bytes have no padding.
    copyIn(offset: offset, from: unsafe bytes.span.bytes)
  }

  /// Fills all pages with `byte`.
  func fill(_ byte: UInt8) { write([UInt8](repeating: byte, count: byteCount), at: 0) }

  /// The 32-bit word at `offset`.
  func word(at offset: Int) -> UInt32 {
    bytes(at: offset, count: 4).reversed().reduce(0) { $0 << 8 | UInt32($1) }
  }

  /// Overwrites the 32-bit word at `offset`.
  func setWord(_ value: UInt32, at offset: Int) {
    write((0..<4).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) }, at: offset)
  }
}
