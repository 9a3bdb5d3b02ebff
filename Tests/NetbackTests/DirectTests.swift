import Netback
import RingKit
import Simulator
import Testing

/// Packets from the pages of one guest to those of another: one copy, the same bytes, in their order, and the
/// right one is told of a grant that fails.
struct DirectTests {
  static let sizes = [2049, 4096, 4097, 8192, 16_000, 40_001, 65_535]

  @Test(arguments: sizes, [(0, 100, 0), (256, 66, 30), (0, 14, 4082), (2048, 4096, 0)])
  func longFramesAreCopiedOnce(size: Int, layout: (headroom: Int, first: Int, offset: Int)) throws {
    // More than 18 pages of data are no packet for anybody.
    guard (size + 4095 - layout.headroom) / (4096 - layout.headroom) <= 18 else { return }
    let fixture = try DirectFixture(headroom: layout.headroom)
    fixture.post(256)
    let frame = RxFrameBytes.frame(7, byteCount: size)
    let pieces = DirectFixture.pieces(size, first: layout.first)
    fixture.place(frame, pieces: pieces, offset: layout.offset)
    try fixture.send()
    #expect(fixture.takeStatuses() == [NetStatus](repeating: .okay, count: pieces.count))
    #expect(try fixture.received().map(\.bytes) == [frame])
    #expect(fixture.counters.directPackets == 1 && fixture.host.wholeCount == 0)
    // The leading bytes in, the leading bytes out, and the rest past us.
    #expect(fixture.host.calls.map(\.into).reduce(0, +) <= 16)
    #expect(fixture.host.calls.count == 2 && fixture.host.calls[1].past > 0)
    fixture.expectClean()
  }

  @Test func shortFramesGoByPrivateMemory() throws {
    let fixture = try DirectFixture()
    fixture.post(64)
    let frames = [14, 60, 1514, 2048].map { RxFrameBytes.frame(UInt64($0), byteCount: $0) }
    for frame in frames { fixture.place(frame, pieces: [frame.count]) }
    try fixture.send()
    #expect(try fixture.received().map(\.bytes) == frames)
    #expect(fixture.counters.directPackets == 0 && fixture.host.wholeCount == 4)
    fixture.expectClean()
  }

  /// What the receiver gets of the headers was checked; the sender has changed its page since.
  @Test func headersAreThoseThatWereChecked() throws {
    let fixture = try DirectFixture()
    fixture.post(64)
    let frame = RxFrameBytes.frame(3, byteCount: 5000)
    fixture.host.onSenderRead = { page in
      fixture.sender.memory.setBytes([UInt8](repeating: 0xEE, count: 4096), at: page * 4096)
    }
    fixture.place(frame, pieces: [4096, 904])
    try fixture.send()
    let received = try #require(try fixture.received().first)
    #expect(Array(received.bytes[..<256]) == Array(frame[..<256]))
    #expect(received.bytes[256...].prefix(3840).allSatisfy { $0 == 0xEE })
    fixture.expectClean()
  }

  // MARK: Offloads

  @Test(arguments: [TestFrame.Network.ipv4, .ipv6])
  func blankChecksumsAndSegmentationPassOn(network: TestFrame.Network) throws {
    let fixture = try DirectFixture(accepted: [
      .scatterGather, .checksumIPv4, .checksumIPv6, .segmentationIPv4, .segmentationIPv6,
    ])
    fixture.post(64)
    var frame = TestFrame()
    frame.network = network
    frame.payload = TestFrame.payload(30_000)
    let bytes = frame.bytes
    fixture.place(
      bytes, pieces: DirectFixture.pieces(bytes.count, first: 100), flags: .checksumBlank,
      extra: NetExtraInfo(segmentation: frame.segmentationType, size: 1448))
    try fixture.send()
    let received = try #require(try fixture.received().first)
    #expect(fixture.counters.directPackets == 1)
    #expect(received.flags == [.checksumBlank, .dataValidated])
    #expect(received.extras == [NetExtraInfo(segmentation: frame.segmentationType, size: 1448)])
    // The same but for the sum of the pseudo header, which the frontend had left out.
    let field = frame.transportStart + 16
    #expect(received.bytes[field..<field + 2] != bytes[field..<field + 2])
    var expected = bytes
    expected.replaceSubrange(field..<field + 2, with: received.bytes[field..<field + 2])
    #expect(received.bytes == expected)
    fixture.expectClean()
  }

  /// A receiver that takes nothing gets segments with whole checksums, cut in private memory.
  @Test func whatAReceiverDoesNotTakeIsDoneHere() throws {
    let fixture = try DirectFixture(accepted: [])
    fixture.post(64)
    var frame = TestFrame()
    frame.payload = TestFrame.payload(10_000)
    let bytes = frame.bytes
    fixture.place(
      bytes, pieces: DirectFixture.pieces(bytes.count, first: 100), flags: .checksumBlank,
      extra: NetExtraInfo(segmentation: .tcpIPv4, size: 1448))
    try fixture.send()
    let received = try fixture.received()
    #expect(received.count == 7 && fixture.counters.directPackets == 0)
    #expect(received.flatMap { $0.bytes[frame.headerByteCount...] } == frame.payload)
    #expect(received.allSatisfy { !$0.flags.contains(.checksumBlank) })
    fixture.expectClean()
  }

  /// Headers that go on beyond the leading bytes, and padding, are for private memory.
  @Test func whatCannotBeSeenInTheLeadingBytesComesWhole() throws {
    let fixture = try DirectFixture()
    fixture.post(64)
    var long = TestFrame()
    long.network = .ipv6
    // A row of destination options of 264 bytes.
    long.extensions = [(60, [32] + [UInt8](repeating: 0, count: 262))]
    long.payload = TestFrame.payload(4000)
    var padded = TestFrame()
    padded.payload = TestFrame.payload(4000)
    padded.padding = [1, 2, 3, 4]
    for frame in [long.bytes, padded.bytes] {
      fixture.place(
        frame, pieces: DirectFixture.pieces(frame.count, first: 200), flags: .checksumBlank)
    }
    try fixture.send()
    let received = try fixture.received()
    #expect(received.count == 2 && fixture.counters.directPackets == 0 && fixture.host.wholeCount == 2)
    #expect(received.last?.bytes.suffix(4) == [0, 0, 0, 0])
    fixture.expectClean()
  }

  @Test func aRefusedHeaderIsAnError() throws {
    let fixture = try DirectFixture()
    fixture.post(64)
    fixture.place(RxFrameBytes.frame(1, byteCount: 5000), pieces: [4096, 904], flags: .checksumBlank)
    try fixture.send()
    #expect(fixture.takeStatuses() == [.error, .error])
    #expect(try fixture.received().isEmpty)
    #expect(fixture.counters.firstRefusal == .checksumWithoutProtocol)
    fixture.expectClean()
  }

  // MARK: Grants that fail

  @Test(arguments: [0, 1, 3]) func aSendersBadGrantIsItsOwnError(bad: Int) throws {
    let fixture = try DirectFixture()
    fixture.post(64)
    let frame = RxFrameBytes.frame(1, byteCount: 4 * 4096)
    let references = fixture.place(frame, pieces: [4096, 4096, 4096, 4096])
    fixture.sender.revoke(references[bad])
    let good = RxFrameBytes.frame(2, byteCount: 9000)
    fixture.place(good, pieces: [4096, 4096, 808])
    try fixture.send()
    var statuses = [NetStatus](repeating: .okay, count: 7)
    statuses[bad] = .error
    #expect(fixture.takeStatuses() == statuses)
    #expect(fixture.counters.failedCopies == 1 && fixture.counters.packets == 1)
    #expect(try fixture.received().map(\.bytes) == [good])
    #expect(fixture.frontend.failedCount == (bad == 0 ? 0 : 1))
    fixture.expectClean()
  }

  @Test(arguments: [SimulatedNetRxFrontend.Page.bad, .readOnly], [0, 2])
  func aReceiversBadGrantIsNoneOfTheSenders(kind: SimulatedNetRxFrontend.Page, place: Int) throws {
    let fixture = try DirectFixture()
    fixture.post(place)
    fixture.post(1, kind)
    fixture.post(60)
    let lost = RxFrameBytes.frame(1, byteCount: 4 * 4096)
    let good = RxFrameBytes.frame(2, byteCount: 9000)
    for frame in [lost, good] {
      fixture.place(frame, pieces: DirectFixture.pieces(frame.count, first: 200))
    }
    try fixture.send()
    #expect(fixture.takeStatuses().allSatisfy { $0 == .okay })
    #expect(try fixture.received().map(\.bytes) == [good])
    #expect(fixture.frontend.failedCount == 1 && fixture.counters.directPackets == 2)
    #expect(fixture.host.line.engine.counters.copyErrors == 1)
    fixture.expectClean()
  }

  /// A hypervisor, or its policy, that does not copy between two other domains: everything still arrives.
  @Test func refusedCopiesGoInTwoSteps() throws {
    let fixture = try DirectFixture()
    fixture.host.refusesPageToPage = true
    fixture.post(256)
    let frames = (0..<12).map { RxFrameBytes.frame(UInt64($0), byteCount: 60_000) }
    for frame in frames { fixture.place(frame, pieces: DirectFixture.pieces(frame.count, first: 4096)) }
    try fixture.send()
    #expect(fixture.takeStatuses().allSatisfy { $0 == .okay })
    #expect(try fixture.received().map(\.bytes) == frames)
    fixture.expectClean()
  }

  // MARK: Order and room

  /// No slots: the frame waits as the receiver's, the sender is answered at once, and nothing overtakes it.
  @Test func nothingOvertakesWhatWaits() throws {
    let fixture = try DirectFixture()
    fixture.post(4)
    let frames = [9000, 9000, 100, 9000, 50, 3000].enumerated().map {
      RxFrameBytes.frame(UInt64($0), byteCount: $1)
    }
    for frame in frames { fixture.place(frame, pieces: DirectFixture.pieces(frame.count, first: 1000)) }
    try fixture.send()
    #expect(fixture.takeStatuses().allSatisfy { $0 == .okay })
    #expect(fixture.counters.directPackets == 1 && fixture.host.wholeCount == 5)
    var received = try fixture.received()
    #expect(received.map(\.bytes) == [frames[0]])
    fixture.post(64)
    received = try fixture.received()
    #expect(received.map(\.bytes) == Array(frames[1...]))
    // With nothing waiting it is direct again.
    fixture.place(frames[0], pieces: DirectFixture.pieces(9000, first: 1000))
    try fixture.send()
    #expect(fixture.counters.directPackets == 2)
    #expect(try fixture.received().map(\.bytes) == [frames[0]])
    fixture.expectClean()
  }

  /// Random frames, layouts and room: every frame arrives once, whole, in its order, and every slot is answered.
  @Test(arguments: 1...12 as ClosedRange<UInt64>) func walk(seed: UInt64) throws {
    var numbers = SeededNumbers(seed: seed)
    let headrooms = [0, 0, 256, 700]
    let headroom = headrooms[Int(seed) % headrooms.count]
    let fixture = try DirectFixture(headroom: headroom)
    fixture.post(Int.random(in: 0...256, using: &numbers))
    var (sent, received): ([[UInt8]], [[UInt8]]) = ([], [])
    var slotCount = 0
    for _ in 0..<60 {
      for _ in 0..<Int.random(in: 1...20, using: &numbers) {
        let isLong = numbers.chance(2, in: 3)
        let size = Int.random(in: isLong ? 2000...60_000 : 14...2100, using: &numbers)
        guard (size + 4095 - headroom) / (4096 - headroom) <= 18 else { continue }
        let frame = RxFrameBytes.frame(UInt64(sent.count), byteCount: size)
        var pieces: [Int] = []
        var rest = size
        while rest > 0 {
          let piece = min(rest, pieces.isEmpty ? Int.random(in: 14...4096, using: &numbers) : 4096)
          let isShort = !pieces.isEmpty && pieces.count < 30 && numbers.chance(1, in: 8)
          pieces.append(isShort ? min(piece, Int.random(in: 1...300, using: &numbers)) : piece)
          rest -= pieces[pieces.count - 1]
        }
        guard pieces.count <= 60, fixture.freeSlotCount >= pieces.count else { continue }
        fixture.place(frame, pieces: pieces, offset: Int.random(in: 0...4095, using: &numbers))
        sent.append(frame)
        slotCount += pieces.count
      }
      try fixture.send()
      if numbers.chance(3, in: 4) { fixture.post(Int.random(in: 1...256, using: &numbers)) }
      received += try fixture.received().map(\.bytes)
    }
    for _ in 0..<400 where received.count < sent.count {
      fixture.post(256)
      received += try fixture.received().map(\.bytes)
    }
    #expect(received.count == sent.count && received == sent)
    let statuses = fixture.takeStatuses()
    #expect(statuses.count == slotCount && statuses.allSatisfy { $0 == .okay })
    #expect(fixture.counters.directPackets > 20 && fixture.host.wholeCount > 20)
    fixture.expectClean()
  }
}
