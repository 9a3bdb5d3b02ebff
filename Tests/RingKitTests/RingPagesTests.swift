import RingKit
import Testing

/// Copies into and out of shared pages: whole, nothing else, and never past the mapping.
struct RingPagesTests {
  @Test func anonymousPagesAreZeroed() throws {
    let pages = try MappedPages.anonymous(pageCount: 3)
    #expect(pages.pageCount == 3)
    #expect(pages.allBytes() == [UInt8](repeating: 0, count: 3 * 4096))
  }

  /// Every count up to two vectors and more, at every alignment.
  @Test func copiesEveryCountAtEveryAlignment() throws {
    let pages = try MappedPages.anonymous(pageCount: 1)
    for offset in 0..<17 {
      for count in 0..<50 {
        let message = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 5 &+ offset &+ 1) }
        pages.fill(0xA5)
        pages.write(message, at: offset)
        var expected = [UInt8](repeating: 0xA5, count: 128)
        expected.replaceSubrange(offset..<(offset + count), with: message)
        #expect(pages.bytes(count: 128) == expected)
        #expect(pages.bytes(at: offset, count: count) == message)
      }
    }
  }

  @Test func trapsOutsideThePages() async {
    await #expect(processExitsWith: .failure) {
      try MappedPages.anonymous(pageCount: 1).write([1, 2], at: 4095)
    }
    await #expect(processExitsWith: .failure) {
      _ = try MappedPages.anonymous(pageCount: 1).bytes(at: -1, count: 1)
    }
    await #expect(processExitsWith: .failure) {
      _ = try MappedPages.anonymous(pageCount: 1).segment(offset: 1, length: 4096)
    }
  }
}
