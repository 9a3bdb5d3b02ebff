import RingKit
import Testing

@Suite struct BufferPoolTests {
  /// Buffers taken, by page, and which pages are free.
  struct Model {
    let pool: BufferPool
    var taken: [IOBuffer] = []
    var isFree: [Bool]

    init(pool: BufferPool) {
      self.pool = pool
      isFree = Array(repeating: true, count: pool.byteCount / 4096)
    }

    func pages(_ buffer: IOBuffer) -> Range<Int> {
      let first = Int(buffer.segment.address - pool.arena.address) / 4096
      return first..<(first + Int(buffer.segment.length) / 4096)
    }

    /// Joining free runs eagerly means: a run can be had exactly if an aligned one is free.
    func hasRun(order: Int) -> Bool {
      let count = 1 << order
      return stride(from: 0, to: isFree.count, by: count).contains { start in
        start + count <= isFree.count && isFree[start..<(start + count)].allSatisfy { $0 }
      }
    }

    mutating func allocate(byteCount: Int) throws {
      let order = (0...8).first { 4096 << $0 >= byteCount } ?? 8
      let expected = hasRun(order: order)
      guard let buffer = pool.allocate(byteCount: byteCount) else {
        #expect(!expected, "no buffer of \(byteCount) bytes, though a run is free")
        return
      }
      #expect(expected)
      try #require(pool.contains(buffer.segment))
      #expect(Int(buffer.order) == order && buffer.segment.length == 4096 << order)
      let pages = pages(buffer)
      #expect(pages.lowerBound % pages.count == 0)
      try #require(pages.allSatisfy { isFree[$0] }, "pages handed out twice")
      for page in pages { isFree[page] = false }
      taken.append(buffer)
    }

    mutating func release(at index: Int) {
      let buffer = taken.remove(at: index)
      for page in pages(buffer) { isFree[page] = true }
      pool.release(buffer)
    }

    func check() {
      #expect(pool.freeByteCount == isFree.count { $0 } * 4096)
    }
  }

  @Test(arguments: [1, 2, 3, 7, 255, 256, 257, 700], [UInt64(1), 2, 3])
  func agreesWithAModel(pageCount: Int, seed: UInt64) throws {
    var generator = SeededGenerator(state: seed)
    var model = Model(pool: try BufferPool(byteCount: pageCount * 4096))
    model.check()
    for step in 0..<600 {
      // Phases that fill and phases that empty, so that both ends are reached.
      let fills = step / 100 % 2 == 0
      if model.taken.isEmpty || Int.random(in: 0..<10, using: &generator) < (fills ? 8 : 2) {
        let order = Int.random(in: 0...8, using: &generator)
        try model.allocate(
          byteCount: Int.random(in: max(1, 2048 << order)...(4096 << order), using: &generator))
      } else {
        model.release(at: Int.random(in: 0..<model.taken.count, using: &generator))
      }
      model.check()
    }
    while !model.taken.isEmpty { model.release(at: 0) }
    model.check()
    // Everything has been joined again: the largest run that fits can be had.
    let largest = (0...8).last { 1 << $0 <= pageCount } ?? 0
    #expect(model.pool.allocate(byteCount: 4096 << largest) != nil)
  }

  @Test(arguments: [
    (1, 4096), (4095, 4096), (4096, 4096), (4097, 8192), (8193, 16384), (45056, 65536), (1 << 20, 1 << 20),
    ((1 << 19) + 1, 1 << 20),
  ]) func sizesAreRoundedUpToPowersOfTwo(byteCount: Int, rounded: Int) throws {
    let pool = try BufferPool(byteCount: 1 << 20)
    #expect(BufferPool.roundedByteCount(byteCount) == rounded)
    let buffer = try #require(pool.allocate(byteCount: byteCount))
    #expect(buffer.segment.length == UInt(rounded))
    #expect(pool.freeByteCount == (1 << 20) - rounded)
  }

  /// The largest request of blkif.h is 16 MiB, and the medium's blocks that it covers in part.
  @Test func theLargestBufferHoldsTheLargestRequest() throws {
    #expect(BufferPool.largestByteCount == 32 << 20)
    #expect(BufferPool.largestByteCount >= 4096 * 4096 + 2 * 65536)
    let pool = try BufferPool(byteCount: 40 << 20)
    #expect(pool.largestRunByteCount == 32 << 20)
    let buffer = try #require(pool.allocate(byteCount: 4096 * 4096 + 8192))
    #expect(buffer.segment.length == 32 << 20 && pool.freeByteCount == 8 << 20)
    #expect(pool.allocate(byteCount: 16 << 20) == nil)
    let rest = try #require(pool.allocate(byteCount: 8 << 20))
    pool.release(buffer)
    pool.release(rest)
    // Joined again.
    #expect(pool.allocate(byteCount: 32 << 20) != nil)
  }

  /// What is said to fit can be had from an untouched pool, and the next size cannot.
  @Test(arguments: [0, 1, 4095, 4096, 4097, 8191, 8192, 12288, 1 << 20, 3 << 20, 33 << 20, 65 << 20])
  func largestRuns(_ byteCount: Int) throws {
    let whole = BufferPool.wholeRunByteCount(within: byteCount)
    #expect(whole <= byteCount && (whole == 0) == (byteCount < 4096))
    guard whole > 0 else { return }
    #expect(whole == BufferPool.largestByteCount || whole * 2 > byteCount - byteCount % 4096)
    let pool = try BufferPool(byteCount: byteCount)
    #expect(pool.allocate(byteCount: whole) != nil)
    var share = BufferShare(limitByteCount: byteCount)
    let other = try BufferPool(byteCount: 64 << 20)
    #expect(other.allocate(byteCount: whole, share: &share) != nil)
  }

  @Test func wordsAreReadWhereTheyLie() throws {
    let pool = try BufferPool(byteCount: 8 * 4096)
    _ = pool.allocate(byteCount: 4096)
    let buffer = try #require(pool.allocate(byteCount: 8192))
    pool.fill(buffer.segment, pattern(0..<8192))
    for index in [0, 1, 511, 512, 1023] {
      let bytes = pool.bytes(buffer.segment.slice(offset: UInt(index * 8), count: 8))
      let expected = bytes.reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
      #expect(pool.word(at: index, in: buffer) == expected)
    }
  }

  @Test(arguments: [-1, 512]) func wordsBeyondTheBufferTrap(_ index: Int) async {
    await #expect(processExitsWith: .failure) { [index] in
      let pool = try BufferPool(byteCount: 8 * 4096)
      guard let buffer = pool.allocate(byteCount: 4096) else { return }
      _ = pool.word(at: index, in: buffer)
    }
  }

  @Test func aShareBoundsWhatAGuestHolds() throws {
    let pool = try BufferPool(byteCount: 64 * 4096)
    var share = BufferShare(limitByteCount: 3 * 4096)
    let first = try #require(pool.allocate(byteCount: 5000, share: &share))
    #expect(share.usedByteCount == 8192)
    #expect(pool.allocate(byteCount: 5000, share: &share) == nil)
    let second = try #require(pool.allocate(byteCount: 1, share: &share))
    #expect(pool.allocate(byteCount: 1, share: &share) == nil)
    #expect(share.usedByteCount == 3 * 4096)
    pool.release(first, share: &share)
    #expect(share.usedByteCount == 4096)
    pool.release(second, share: &share)
    #expect(share.usedByteCount == 0)
    // An empty pool charges nothing.
    var rest: [IOBuffer] = []
    while let buffer = pool.allocate(byteCount: 4096) { rest.append(buffer) }
    #expect(rest.count == 64)
    #expect(pool.allocate(byteCount: 1, share: &share) == nil)
    #expect(share.usedByteCount == 0)
  }

  @Test func bytesAreCopiedAndZeroed() throws {
    let pool = try BufferPool(byteCount: 8 * 4096)
    let first = try #require(pool.allocate(byteCount: 4096))
    let second = try #require(pool.allocate(byteCount: 4096))
    #expect(pool.bytes(first.segment) == [UInt8](repeating: 0, count: 4096))
    pool.fill(first.segment, pattern(0..<4096))
    pool.copy(
      from: first.segment.slice(offset: 100, count: 700), to: second.segment.slice(offset: 9, count: 700))
    #expect(pool.bytes(second.segment.slice(offset: 9, count: 700)) == pattern(100..<800))
    #expect(pool.bytes(second.segment.slice(offset: 0, count: 9)) == [UInt8](repeating: 0, count: 9))
    pool.zero(first.segment.slice(offset: 1, count: 4))
    #expect(pool.bytes(first.segment.slice(offset: 0, count: 6)) == [0, 0, 0, 0, 0, 35])
    pool.zero(second)
    #expect(pool.bytes(second.segment) == [UInt8](repeating: 0, count: 4096))
  }

  @Test func anotherPoolIsOutside() throws {
    let pool = try BufferPool(byteCount: 4096)
    let end = pool.arena.address + 4096
    #expect(pool.contains(pool.arena))
    #expect(!pool.contains(IOSegment(address: pool.arena.address - 1, length: 2)))
    #expect(!pool.contains(IOSegment(address: end - 1, length: 2)))
    #expect(!pool.contains(IOSegment(address: end - 1, length: .max)))
    #expect(!pool.contains(IOSegment(address: .max, length: 1)))
  }

  @Test func releasingTwiceTraps() async {
    await #expect(processExitsWith: .failure) {
      let pool = try BufferPool(byteCount: 4096)
      guard let buffer = pool.allocate(byteCount: 1) else { return }
      pool.release(buffer)
      pool.release(buffer)
    }
  }

  @Test func releasingAfterTheNextHolderTookItTraps() async {
    await #expect(processExitsWith: .failure) {
      let pool = try BufferPool(byteCount: 4096)
      guard let buffer = pool.allocate(byteCount: 1) else { return }
      pool.release(buffer)
      guard pool.allocate(byteCount: 1) != nil else { return }
      pool.release(buffer)
    }
  }

  @Test func releasingToAnotherPoolTraps() async {
    await #expect(processExitsWith: .failure) {
      let pool = try BufferPool(byteCount: 4096)
      let other = try BufferPool(byteCount: 4096)
      guard let buffer = pool.allocate(byteCount: 1), other.allocate(byteCount: 1) != nil else { return }
      other.release(buffer)
    }
  }

  @Test func copyingOutsideThePoolTraps() async {
    await #expect(processExitsWith: .failure) {
      let pool = try BufferPool(byteCount: 4096)
      let other = try BufferPool(byteCount: 8192)
      pool.copy(
        from: other.arena.slice(offset: 0, count: 8), to: other.arena.slice(offset: 4096, count: 8))
    }
  }
}
