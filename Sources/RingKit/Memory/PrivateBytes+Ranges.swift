/// What acts on a range of the bytes at once: checked once, not byte by byte.
extension PrivateBytes {
  /// The ones' complement sum (RFC 1071) of `length` bytes that begin at `offset`, taken as 16-bit numbers in
  /// network byte order, the last one filled up with a zero byte where `length` is odd: 0...65535, so that
  /// sums of several ranges, each but the last of an even length, can be added. Not inverted.
  public func internetSum(from offset: Int, count length: Int) -> UInt64 {
    let bytes = slice(from: offset, count: length)
    let end = bytes.count
    // The sum is the same in the other byte order but for a swap at the end (RFC 1071, 2 (B)), and a 64-bit
    // word is a sum of 16-bit ones. Halves of words in separate sums have no carry to look after, which the
    // compiler turns into vectors. No sum overflows: there are at most 2^32 words in 32 GiB.
    var low: UInt64 = 0
    var high: UInt64 = 0
    var at = 0
    while at &+ 32 <= end {
      // Sound: at + 32 bytes lie within the slice, which was checked.
      let word0 = unsafe bytes.base.loadUnaligned(fromByteOffset: at, as: UInt64.self)
      let word1 = unsafe bytes.base.loadUnaligned(fromByteOffset: at &+ 8, as: UInt64.self)
      let word2 = unsafe bytes.base.loadUnaligned(fromByteOffset: at &+ 16, as: UInt64.self)
      let word3 = unsafe bytes.base.loadUnaligned(fromByteOffset: at &+ 24, as: UInt64.self)
      low &+= (word0 & 0xFFFF_FFFF) &+ (word1 & 0xFFFF_FFFF)
      low &+= (word2 & 0xFFFF_FFFF) &+ (word3 & 0xFFFF_FFFF)
      high &+= (word0 >> 32) &+ (word1 >> 32)
      high &+= (word2 >> 32) &+ (word3 >> 32)
      at &+= 32
    }
    while at &+ 8 <= end {
      let word: UInt64 = bytes.load(at: at)
      low &+= word & 0xFFFF_FFFF
      high &+= word >> 32
      at &+= 8
    }
    if at &+ 4 <= end {
      let word: UInt32 = bytes.load(at: at)
      low &+= UInt64(word)
      at &+= 4
    }
    if at &+ 2 <= end {
      let word: UInt16 = bytes.load(at: at)
      low &+= UInt64(word)
      at &+= 2
    }
    if at < end { low &+= UInt64(UInt16(littleEndian: UInt16(bytes[at]))) }
    var sum = (low >> 32) &+ (low & 0xFFFF_FFFF) &+ (high >> 32) &+ (high & 0xFFFF_FFFF)
    // 34 bits become 19, then 17, then 16.
    for _ in 0..<3 { sum = (sum >> 16) &+ (sum & 0xFFFF) }
    return UInt64(UInt16(truncatingIfNeeded: sum).bigEndian)
  }

  /// Appends the first `length` bytes to an array.
  public func append(first length: Int, to array: inout [UInt8]) {
    let bytes = slice(from: 0, count: length)
    // Sound: the slice was checked.
    unsafe array.append(contentsOf: UnsafeRawBufferPointer(start: bytes.base, count: bytes.count))
  }

  /// Sets `length` bytes that begin at `offset` to zero.
  public func zero(from offset: Int, count length: Int) {
    let bytes = slice(from: offset, count: length)
    // Sound: the slice was checked.
    unsafe bytes.base.initializeMemory(as: UInt8.self, repeating: 0, count: bytes.count)
  }
}
