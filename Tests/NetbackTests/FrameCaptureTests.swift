import Netback
import RingKit
import Synchronization
import Testing

/// A capture's buffer: bounded, whole blocks, and what did not fit is counted.
struct FrameCaptureTests {
  let memory: FrameMemory

  init() throws { memory = try FrameMemory() }

  private func capture(
    snapLength: Int = PcapngWriter.largestSnapLength, frameLimit: UInt64? = nil,
    wake: @escaping @Sendable () -> Void = {}
  ) -> FrameCapture {
    FrameCapture(
      name: "vif1.0", snapLength: snapLength, frameLimit: frameLimit, epoch: 1000, wake: wake)
  }

  private func taken(_ capture: FrameCapture) -> [UInt8] {
    var bytes: [UInt8] = []
    capture.take(into: &bytes)
    return bytes
  }

  /// Types of the blocks; nil if they are not whole.
  private func types(_ bytes: [UInt8]) -> [UInt32]? {
    var types: [UInt32] = []
    var words = PcapngTests.words(bytes)[...]
    while words.count >= 3 {
      let first = words.startIndex
      let count = Int(words[first + 1] / 4)
      guard count >= 3, count <= words.count, words[first + count - 1] == words[first + 1] else { return nil }
      types.append(words[first])
      words = words.dropFirst(count)
    }
    return words.isEmpty ? types : nil
  }

  @Test func whatIsTakenIsAFile() {
    let capture = capture()
    let frame = memory.load(PcapngTests.frame)
    capture.note(frame, .inbound, atNanoseconds: 5)
    #expect(types(taken(capture)) == [0x0A0D_0D0A, 1, 6])
    #expect(taken(capture).isEmpty)
    capture.note(frame, .outbound, atNanoseconds: 6)
    var expected: [UInt8] = []
    var writer = PcapngWriter()
    let interface = writer.addInterface(name: "vif1.0").interface
    writer.append(PcapngTests.frame, of: interface, .outbound, atNanoseconds: 1006, to: &expected)
    #expect(taken(capture) == expected)
    let end = PcapngTests.words(capture.ending(atNanoseconds: 7))
    #expect(end == [5, 52, 0, 0, 1007, 4 | 8 << 16, 2, 0, 5 | 8 << 16, 0, 0, 0, 52])
    #expect(capture.counts == FrameCapture.Counts(captured: 2, dropped: 0))
  }

  /// Nobody takes: the buffer keeps its bound and its blocks, the rest is counted.
  @Test(arguments: [14, 1000, 65_535]) func theBufferIsBounded(size: Int) {
    let wakes = Atomic<Int>(0)
    let capture = capture(snapLength: size) { wakes.add(1, ordering: .relaxed) }
    let frame = memory.load([UInt8](repeating: 0xA5, count: size))
    var noted = 0
    while capture.counts.dropped < 3 {
      capture.note(frame, .inbound, atNanoseconds: 0)
      noted += 1
    }
    let bytes = taken(capture)
    #expect(bytes.count <= FrameCapture.byteLimit && bytes.count > FrameCapture.byteLimit - size - 100)
    let counts = capture.counts
    #expect(types(bytes)?.count == Int(counts.captured) + 2)
    #expect(counts.captured + counts.dropped == UInt64(noted) && counts.dropped == 3)
    // The head was there from the beginning: nobody had to be woken.
    #expect(wakes.load(ordering: .relaxed) == 0)
    // There is room again.
    capture.note(frame, .inbound, atNanoseconds: 0)
    capture.note(frame, .inbound, atNanoseconds: 0)
    #expect(types(taken(capture)) == [6, 6] && wakes.load(ordering: .relaxed) == 1)
  }

  @Test func afterTheLastFrameNoneIsKept() {
    let wakes = Atomic<Int>(0)
    let capture = capture(frameLimit: 3) { wakes.add(1, ordering: .relaxed) }
    let frame = memory.load(PcapngTests.frame)
    for number in 1...5 {
      #expect(capture.isFull == (number > 3))
      capture.note(frame, .inbound, atNanoseconds: 0)
    }
    #expect(capture.counts == FrameCapture.Counts(captured: 3, dropped: 0))
    #expect(types(taken(capture)) == [0x0A0D_0D0A, 1, 6, 6, 6])
    // Whoever waits for the end is told.
    #expect(wakes.load(ordering: .relaxed) == 1)
  }

  /// Threads that come at once keep blocks whole, and what they could not put in is counted.
  @Test func threadsDoNotWaitForEachOther() async throws {
    let capture = capture(snapLength: 64)
    let count = 20_000
    let total = try await withThrowingTaskGroup(of: [UInt8].self) { group in
      for _ in 0..<2 {
        group.addTask {
          let memory = try FrameMemory()
          let frame = memory.load(PcapngTests.frame)
          for _ in 0..<count { capture.note(frame, .inbound, atNanoseconds: 0) }
          return withExtendedLifetime(memory) { [] }
        }
      }
      group.addTask {
        var all: [UInt8] = []
        for _ in 0..<200 {
          var bytes: [UInt8] = []
          capture.take(into: &bytes)
          all += bytes
        }
        return all
      }
      return try await group.reduce(into: []) { $0 += $1 }
    }
    let counts = capture.counts
    #expect(counts.captured + counts.dropped == UInt64(2 * count))
    #expect(types(total + taken(capture))?.count == Int(counts.captured) + 2)
  }
}
