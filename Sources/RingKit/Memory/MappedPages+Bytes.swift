/// Runs of bytes as arrays, for simulations and tests that play the other domain. Not for the data path: each
/// call allocates.
extension MappedPages {
  /// A copy of `count` bytes at `offset`, each read once.
  public func copyBytes(at offset: Int, count: Int) -> [UInt8] { copyElements(at: offset, count: count) }

  /// Overwrites bytes beginning at `offset`, each written once.
  public func setBytes(_ bytes: [UInt8], at offset: Int) { setElements(bytes, at: offset) }

  /// A copy of `count` 64-bit words in the machine's byte order, beginning at byte `offset`.
  public func copyWords(at offset: Int, count: Int) -> [UInt64] { copyElements(at: offset, count: count) }

  /// Overwrites 64-bit words beginning at byte `offset`.
  public func setWords(_ words: [UInt64], at offset: Int) { setElements(words, at: offset) }

  private func copyElements<Element: FixedWidthInteger & BitwiseCopyable>(at offset: Int, count: Int)
    -> [Element]
  {
    var elements = [Element](repeating: 0, count: count)
    var span = elements.mutableSpan
    // Sound: an integer has no padding, and any bits are a valid one.
    var raw = unsafe span.mutableBytes
    copyOut(offset: offset, into: &raw)
    return elements
  }

  private func setElements<Element: FixedWidthInteger & BitwiseCopyable>(
    _ elements: [Element], at offset: Int
  ) {
    // Sound: an integer has no padding.
    copyIn(offset: offset, from: unsafe elements.span.bytes)
  }
}
