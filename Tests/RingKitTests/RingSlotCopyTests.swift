import RingKit
import Testing

/// The private copy of a slot: fields at every offset, and nothing beyond it.
struct RingSlotCopyTests {
  @Test func layout() {
    #expect(MemoryLayout<SlotCopy>.size == SlotCopy.capacity)
    #expect(MemoryLayout<SlotCopy>.stride == 128)
    #expect(MemoryLayout<SlotCopy>.alignment == 8)
    #expect(SlotCopy().bytes(count: 128) == [UInt8](repeating: 0, count: 128))
  }

  /// Little-endian fields at every offset, aligned or not (x86_32 has 64-bit fields at multiples of 4).
  @Test func readsFieldsAtEveryOffset() {
    let copy = SlotCopy(seed: 3, byteCount: 128)
    let bytes = copy.bytes(count: 128)
    func field(_ offset: Int, _ count: Int) -> UInt64 {
      bytes[offset..<(offset + count)].reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }
    for offset in 0..<128 {
      #expect(UInt64(copy.uint8(at: offset)) == field(offset, 1))
      if offset <= 126 { #expect(UInt64(copy.uint16(at: offset)) == field(offset, 2)) }
      if offset <= 124 { #expect(UInt64(copy.uint32(at: offset)) == field(offset, 4)) }
      if offset <= 120 { #expect(copy.uint64(at: offset) == field(offset, 8)) }
    }
  }

  /// A field that is written changes its own bytes only.
  @Test func writesFieldsAtEveryOffset() {
    let value: UInt64 = 0xF1E2_D3C4_B5A6_9788
    for offset in 0...120 {
      for width in [1, 2, 4, 8] {
        var copy = SlotCopy(seed: 5, byteCount: 128)
        var expected = copy.bytes(count: 128)
        for index in 0..<width { expected[offset + index] = UInt8(truncatingIfNeeded: value >> (index * 8)) }
        switch width {
        case 1: copy.setUInt8(UInt8(truncatingIfNeeded: value), at: offset)
        case 2: copy.setUInt16(UInt16(truncatingIfNeeded: value), at: offset)
        case 4: copy.setUInt32(UInt32(truncatingIfNeeded: value), at: offset)
        default: copy.setUInt64(value, at: offset)
        }
        #expect(copy.bytes(count: 128) == expected)
      }
    }
  }

  @Test func trapsOutsideTheCopy() async {
    await #expect(processExitsWith: .failure) { _ = SlotCopy().uint64(at: 121) }
    await #expect(processExitsWith: .failure) { _ = SlotCopy().uint32(at: 125) }
    await #expect(processExitsWith: .failure) { _ = SlotCopy().uint16(at: 127) }
    await #expect(processExitsWith: .failure) { _ = SlotCopy().uint8(at: 128) }
    await #expect(processExitsWith: .failure) { _ = SlotCopy().uint8(at: -1) }
    await #expect(processExitsWith: .failure) {
      var copy = SlotCopy()
      copy.setUInt64(1, at: 121)
    }
    await #expect(processExitsWith: .failure) {
      var copy = SlotCopy()
      copy.setUInt8(1, at: -1)
    }
  }
}
