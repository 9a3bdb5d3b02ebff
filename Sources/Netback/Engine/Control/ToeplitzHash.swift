public import RingKit

/// The Toeplitz hash under one key (netif.h, XEN_NETIF_CTRL_HASH_ALGORITHM_TOEPLITZ): each set bit of the
/// input, first bit first, adds the 32 bits of the key that begin at its own position.
///
/// What the 16 values of each half byte add is worked out once for a key, so that a byte costs two look-ups.
public struct ToeplitzHash: Sendable {
  /// Bytes that can be hashed: addresses and ports of IPv6.
  @inlinable public static var inputByteCount: Int { 36 }

  // 16 sums for each half byte of the input.
  @usableFromInline let sums: [UInt32]

  /// The hash under `key`, which is followed by zeros without end.
  public init(key: [UInt8]) {
    var sums = [UInt32](repeating: 0, count: Self.inputByteCount * 2 * 16)
    for half in 0..<Self.inputByteCount * 2 {
      for value in 1..<16 {
        for bit in 0..<4 where value >> (3 - bit) & 1 == 1 {
          sums[half * 16 + value] ^= Self.window(of: key, at: half * 4 + bit)
        }
      }
    }
    self.sums = sums
  }

  /// The 32 bits of `key` that begin with bit `bit`, counted from the first byte's highest one.
  private static func window(of key: [UInt8], at bit: Int) -> UInt32 {
    var bits: UInt64 = 0
    for index in bit / 8...bit / 8 + 4 { bits = bits << 8 | UInt64(index < key.count ? key[index] : 0) }
    return UInt32(truncatingIfNeeded: bits >> UInt64(8 - bit % 8))
  }

  /// Adds `byteCount` bytes of a frame, which are the input's bytes from `position` on, to `value`: 0 before
  /// the first. Traps past the frame's end or past byte 35 of the input.
  @inlinable
  public func add(
    _ byteCount: Int, at offset: Int, of frame: PrivateBytes, position: Int, to value: inout UInt32
  ) {
    for index in 0..<byteCount {
      let byte = Int(frame[offset + index])
      let first = (position + index) * 32
      value ^= sums[first + byte >> 4] ^ sums[first + 16 + byte & 15]
    }
  }
}
