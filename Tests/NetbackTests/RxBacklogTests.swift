import Netback
import RingKit
import Testing

@Suite struct RxBacklogTests {
  let pool: BufferPool

  init() throws { pool = try BufferPool(byteCount: 1 << 20) }

  func packet(_ byteCount: Int) throws -> NetPacket {
    NetPacket(
      buffer: try #require(pool.allocate(byteCount: byteCount)), start: 0, byteCount: byteCount)
  }

  /// First come, first served, round and round the table.
  @Test func packetsKeepTheirOrder() throws {
    var backlog = RxBacklog(capacity: 5)
    var next = 14
    var expected = 14
    for round in 0..<50 {
      for _ in 0..<(round % 5 + 1) {
        let packet = try packet(next)
        if backlog.append(packet) { next += 1 } else { pool.release(packet.buffer) }
      }
      #expect(backlog.count <= 5)
      for _ in 0..<(round % 3 + 1) {
        guard let first = backlog.first else { break }
        let taken = backlog.removeFirst()
        #expect(taken == first && first.byteCount == expected)
        pool.release(first.buffer)
        expected += 1
      }
    }
    while let packet = backlog.removeFirst() { pool.release(packet.buffer) }
    #expect(backlog.count == 0 && backlog.byteCount == 0 && backlog.first == nil)
    #expect(pool.freeByteCount == 1 << 20)
  }

  /// Whole buffers count, not the frames in them.
  @Test func bytesAreBounded() throws {
    var backlog = RxBacklog(capacity: 100, byteLimit: 5 * 4096)
    for _ in 0..<5 {
      let fits = backlog.append(try packet(60))
      #expect(fits)
    }
    let sixth = backlog.append(try packet(60))
    #expect(!sixth && backlog.byteCount == 5 * 4096 && backlog.count == 5)
    _ = backlog.removeFirst()
    let two = backlog.append(try packet(5000))
    #expect(!two)
    let one = backlog.append(try packet(4096))
    #expect(one && backlog.count == 5)
  }
}
