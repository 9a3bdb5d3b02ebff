import Netback
import RingKit
import Testing

@Suite struct SegmenterTests {
  let memory: FrameMemory

  init() throws { memory = try FrameMemory() }

  /// All segments of a frame, as bytes.
  func segments(_ frame: TestFrame, size: UInt16) -> [[UInt8]] {
    var offload = PacketOffload()
    offload.segmentation = frame.segmentationType
    offload.segmentSize = size
    let segmenter = Segmenter(frame: memory.load(frame.bytes), offload: offload)
    return (0..<segmenter.segmentCount).map { index in
      let room = memory.room(segmenter.byteCount(of: 0))
      let (count, offload) = segmenter.write(index, to: room)
      #expect(count == segmenter.byteCount(of: index) && count <= room.count)
      #expect(offload.checksum == .validated && offload.segmentation == .none)
      #expect(Int(offload.headerByteCount) == frame.headerByteCount)
      return Array(room.array[0..<count])
    }
  }

  @Test func everySegmentIsAPacketOfItsOwn() {
    for (payload, size, padding) in [(100, 33, 0), (99, 33, 0), (100, 99, 5), (1, 1, 0), (5, 1, 0)] {
      for var frame in FrameShapes.all(payload: payload) where frame.transport == .tcp {
        frame.transportFlags = 0xFF
        frame.padding = [UInt8](repeating: 0xEE, count: padding)
        let all = segments(frame, size: UInt16(size))
        #expect(all.count == (payload + size - 1) / size)
        var rest = frame.payload[...]
        for (index, segment) in all.enumerated() {
          // What a sender without offloads would have made of it.
          var expected = frame
          expected.padding = []
          expected.payload = Array(rest.prefix(size))
          rest = rest.dropFirst(size)
          expected.sequence = frame.sequence &+ UInt32(index * size)
          if index > 0 { expected.transportFlags &= 0x7F }
          if index < all.count - 1 { expected.transportFlags &= 0xF6 }
          var bytes = expected.bytes
          let start = frame.transportStart
          bytes.replaceSubrange(start + 16..<start + 18, with: segment[start + 16..<start + 18])
          if frame.network == .ipv4 {
            let network = frame.networkStart
            bytes.replaceSubrange(network + 4..<network + 6, with: (UInt16(0xFFFE) &+ UInt16(index)).wire)
            bytes.replaceSubrange(network + 10..<network + 12, with: [0, 0])
            let sum = naiveSum(bytes[network..<network + 20 + frame.options.count])
            bytes.replaceSubrange(network + 10..<network + 12, with: (~sum).wire)
          }
          #expect(segment == bytes)
          #expect(naiveTransportSum(segment, PacketHeaders(memory.load(segment))) == 0xFFFF)
        }
        #expect(rest.isEmpty)
      }
    }
  }

  @Test func whatFitsComesOutAsOneWithoutPadding() {
    for size in [UInt16(100), 101, 0xFFFF] {
      var frame = TestFrame(transportFlags: 0x99, payload: TestFrame.payload(100))
      let alone = segments(frame, size: size)
      frame.padding = [1, 2, 3]
      #expect(alone.count == 1 && segments(frame, size: size) == alone)
      #expect(alone[0].count == frame.headerByteCount + 100)
      #expect(alone[0][frame.transportStart + 13] == 0x99)
    }
    #expect(segments(TestFrame(), size: 10).count == 1)
  }

  @Test func theLargestPacketIsCutToTheLastByte() throws {
    let payload = 65535 - 14 - 20 - 20
    let frame = TestFrame(payload: TestFrame.payload(payload))
    let all = segments(frame, size: 1448)
    #expect(all.count == 46)
    #expect(all.flatMap { $0[frame.headerByteCount...] } == frame.payload)
    var offload = PacketOffload()
    offload.segmentation = .tcpIPv4
    offload.segmentSize = 1
    let segmenter = Segmenter(frame: memory.load(frame.bytes), offload: offload)
    #expect(segmenter.segmentCount == payload && segmenter.byteCount(of: payload - 1) == 55)
  }

  @Test func whatIsNotAsItWasToldBecomesNothing() {
    let frames = [
      TestFrame(transport: .udp), TestFrame(flagsAndOffset: 0x2000), TestFrame(transport: .other(6)),
      TestFrame(network: .ipv6, extensions: [FrameShapes.atomicFragment]),
    ]
    for var frame in frames {
      frame.payload = TestFrame.payload(10)
      #expect(segments(frame, size: 5).isEmpty)
    }
    #expect(segments(TestFrame(payload: [1, 2]), size: 0).isEmpty)
  }

  @Test func theSendersHashGoesWithEachSegment() {
    var offload = PacketOffload()
    offload.segmentation = .tcpIPv4
    offload.segmentSize = 4
    offload.hash = NetHash(type: .ipv4TCP, algorithm: 1, value: 0xDEAD)
    let segmenter = Segmenter(
      frame: memory.load(TestFrame(payload: TestFrame.payload(9)).bytes), offload: offload)
    #expect(segmenter.segmentCount == 3)
    for index in 0..<3 {
      #expect(segmenter.write(index, to: memory.room(100)).offload.hash == offload.hash)
    }
  }
}
