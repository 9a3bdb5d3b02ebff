import RingKit
import Testing

/// Slot counts against ring.h's own rule, spelled out in numbers.
struct RingGeometryTests {
  /// block.md's table: blkif rings of order 0 to 5 hold 32 to 1024 requests in both layouts.
  @Test(arguments: [108, 112], 0...5)
  func blockRingsDoubleWithEachOrder(slotByteCount: Int, order: Int) {
    let geometry = RingGeometry(pageCount: 1 << order, slotByteCount: slotByteCount)
    #expect(geometry.slotCount == 32 << order)
    #expect(geometry.slotByteCount == slotByteCount)
  }

  /// netif.h: 256 slots a page in both directions; the control ring's 16-byte slots fill 252 places, so 128.
  @Test(arguments: [(12, 256), (8, 256), (16, 128), (4, 512), (128, 16), (64, 32)])
  func singlePageRings(slotByteCount: Int, slots: Int) {
    #expect(RingGeometry(pageCount: 1, slotByteCount: slotByteCount).slotCount == slots)
  }

  /// Every slot lies behind the header and within the pages, and one more power of two would not fit.
  @Test(arguments: 1...33, [4, 8, 12, 16, 108, 112, 128])
  func asManySlotsAsFit(pageCount: Int, slotByteCount: Int) {
    let slots = RingGeometry(pageCount: pageCount, slotByteCount: slotByteCount).slotCount
    #expect(slots & (slots - 1) == 0)
    #expect(64 + slots * slotByteCount <= pageCount * 4096)
    #expect(64 + 2 * slots * slotByteCount > pageCount * 4096)
  }

  @Test func slotOffsetsWrap() {
    let geometry = RingGeometry(pageCount: 1, slotByteCount: 108)
    #expect(geometry.slotOffset(at: 0) == 64)
    #expect(geometry.slotOffset(at: 31) == 64 + 31 * 108)
    #expect(geometry.slotOffset(at: 32) == 64)
    #expect(geometry.slotOffset(at: .max) == 64 + 31 * 108)
  }
}
