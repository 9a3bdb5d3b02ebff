import RingKit

/// Messages as byte arrays, so that a test compares them whole.
extension SlotCopy {
  /// A message of which every byte follows from `seed`, and differs from the next seed's.
  init(seed: Int, byteCount: Int) {
    self.init()
    for offset in 0..<byteCount {
      setUInt8(UInt8(truncatingIfNeeded: seed &* 131 &+ offset &* 7 &+ 1), at: offset)
    }
  }

  func bytes(count: Int) -> [UInt8] { (0..<count).map { uint8(at: $0) } }
}

extension BackRing {
  /// The next request's bytes, or nil if there is none.
  mutating func nextRequest() -> [UInt8]? {
    var copy = SlotCopy()
    return take(into: &copy) ? copy.bytes(count: slotByteCount) : nil
  }
}

extension FrontRing {
  /// The next response's bytes, or nil if there is none.
  mutating func nextResponse(byteCount: Int) -> [UInt8]? {
    var copy = SlotCopy()
    return takeResponse(into: &copy, byteCount: byteCount) ? copy.bytes(count: byteCount) : nil
  }
}
