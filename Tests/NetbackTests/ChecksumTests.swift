import Netback
import RingKit
import Simulator
import Testing

@Suite struct ChecksumTests {
  let memory: FrameMemory

  init() throws { memory = try FrameMemory() }

  @Test func theExampleOfRFC1071() {
    let bytes = memory.load([0x00, 0x01, 0xF2, 0x03, 0xF4, 0xF5, 0xF6, 0xF7])
    #expect(bytes.internetSum(from: 0, count: 8) == 0xDDF2)
    #expect(bytes.internetSum(from: 1, count: 0) == 0)
    #expect(bytes.internetSum(from: 1, count: 1) == 0x0100)
    #expect(bytes.internetSum(from: 2, count: 3) == UInt64(naiveSum([0xF2, 0x03, 0xF4])))
  }

  @Test func anIPv4HeaderFromAWire() {
    // UDP from 192.168.0.1 to 192.168.0.199, 115 bytes; its checksum is 0xB861.
    let header: [UInt8] = [
      0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0xB8, 0x61, 0xC0, 0xA8, 0, 1, 0xC0, 0xA8, 0, 0xC7,
    ]
    let bytes = memory.load(header)
    #expect(bytes.internetSum(from: 0, count: 20) == 0xFFFF)
    #expect(InternetChecksum.ofIPv4Header(bytes, at: 0, byteCount: 20) == 0xB861)
    bytes.setUInt16(0x1234, at: 10)
    #expect(InternetChecksum.ofIPv4Header(bytes, at: 0, byteCount: 20) == 0xB861)
  }

  @Test func everyLengthAtEveryAlignmentIsAsOneByOne() {
    var numbers = SeededNumbers(seed: 1071)
    let bytes = (0..<220).map { _ in numbers.any(UInt8.self) }
    let frame = memory.load(bytes)
    for start in 0..<17 {
      for count in 0...(bytes.count - start) {
        let sum = frame.internetSum(from: start, count: count)
        #expect(sum == UInt64(naiveSum(bytes[start..<start + count])))
      }
    }
  }

  @Test func theLargestSumsCarryRight() {
    for count in [65535, 65534, 4096, 33] {
      let ones = memory.room(count)
      for index in 0..<count { ones[index] = 0xFF }
      #expect(ones.internetSum(from: 0, count: count) == (count % 2 == 0 ? 0xFFFF : 0xFF00))
      ones[count / 2] = 0xFE
      #expect(ones.internetSum(from: 0, count: count) == UInt64(naiveSum(ones.array)))
    }
    #expect(memory.room(64).internetSum(from: 0, count: 64) == 0)
  }

  @Test func foldingKeepsWhatTheSumIsWorth() {
    for (sum, folded) in [
      (UInt64(0), UInt16(0)), (0xFFFF, 0xFFFF), (0x10000, 1), (0x1_FFFE, 0xFFFF), (.max, 0xFFFF),
      (0xFFFF_FFFF_0000_0001, 1), (0x0001_0001_0001_0001, 4), (0xFFFF_0001_0000_0000, 1),
    ] {
      #expect(InternetChecksum.folded(sum) == folded)
    }
  }

  @Test func completingMakesWhatAReceiverComputes() throws {
    for padding in [0, 9] {
      for payload in [0, 1, 33, 1400] {
        for var frame in FrameShapes.all(payload: payload) {
          frame.padding = [UInt8](repeating: 0xEE, count: padding)
          let bytes = memory.load(frame.bytes)
          var offload = try TransmitOffload.prepare(
            bytes, flags: .checksumBlank, segmentation: nil, hash: nil)
          #expect(SoftwareChecksum.complete(bytes, &offload))
          #expect(naiveTransportSum(bytes.array, PacketHeaders(bytes)) == 0xFFFF)
          var expected = PacketOffload()
          expected.checksum = .validated
          expected.headerByteCount = UInt16(frame.headerByteCount)
          #expect(offload == expected)
          // A second time there is nothing to do.
          let once = bytes.array
          #expect(SoftwareChecksum.complete(bytes, &offload) && bytes.array == once)
        }
      }
    }
  }

  @Test func aSumOfZeroIsSentAsAllOnes() throws {
    var frame = TestFrame(transport: .udp, payload: [0, 0])
    let blank = memory.load(frame.bytes)
    var offload = try TransmitOffload.prepare(blank, flags: .checksumBlank, segmentation: nil, hash: nil)
    #expect(SoftwareChecksum.complete(blank, &offload))
    // What the checksum lacks to 0xFFFF goes into the payload.
    let checksum = blank.uint16(at: frame.transportStart + 6)
    frame.payload = checksum.wire
    let bytes = memory.load(frame.bytes)
    offload = try TransmitOffload.prepare(bytes, flags: .checksumBlank, segmentation: nil, hash: nil)
    #expect(SoftwareChecksum.complete(bytes, &offload))
    #expect(bytes.uint16(at: frame.transportStart + 6) == 0xFFFF)
    #expect(naiveTransportSum(bytes.array, PacketHeaders(bytes)) == 0xFFFF)
  }

  @Test func whatLiesOutsideTheFrameIsLeftToTheReceiver() {
    let bytes = TestFrame(payload: [1, 2, 3]).bytes
    for (start, offset) in [(bytes.count, 0), (bytes.count - 1, 0), (34, bytes.count), (0xFFFF, 0xFFFF)] {
      let frame = memory.load(bytes)
      var offload = PacketOffload()
      offload.checksum = .partial
      offload.checksumStart = UInt16(start)
      offload.checksumOffset = UInt16(offset)
      #expect(!SoftwareChecksum.complete(frame, &offload))
      #expect(offload == PacketOffload() && frame.array == bytes)
    }
  }

  @Test func aChecksumWithinATunnelIsSummedToTheEnd() {
    // UDP that carries UDP: the inner one is partial, the outer one has no checksum.
    let inner: [UInt8] = [0x12, 0x34, 0x56, 0x78, 0, 13, 0xAB, 0xCD, 1, 2, 3, 4, 5]
    let frame = TestFrame(transport: .udp, payload: inner, checksum: 0)
    let bytes = memory.load(frame.bytes)
    var offload = PacketOffload()
    offload.checksum = .partial
    offload.checksumStart = 42
    offload.checksumOffset = 6
    #expect(
      ReceiveOffload.action(for: offload, frame: bytes, accepted: [.checksumIPv4]) == .completeChecksum)
    #expect(SoftwareChecksum.complete(bytes, &offload) && offload.checksum == .validated)
    #expect(bytes.uint16(at: 48) == ~naiveSum(inner))
  }

  @Test func aPacketToBeSegmentedIsNotSummedAsAWhole() throws {
    let frame = TestFrame(payload: TestFrame.payload(100))
    let bytes = memory.load(frame.bytes)
    var offload = try TransmitOffload.prepare(
      bytes, flags: [], segmentation: NetExtraInfo(segmentation: .tcpIPv4, size: 50), hash: nil)
    let (before, state) = (bytes.array, offload)
    #expect(!SoftwareChecksum.complete(bytes, &offload))
    #expect(offload == state && bytes.array == before)
  }
}
