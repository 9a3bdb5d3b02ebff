import Netback
import RingKit
import Testing

/// The layout of linux/virtio_net.h and what its fields become.
@Suite struct VirtioHeaderTests {
  let memory: FrameMemory

  init() throws { memory = try FrameMemory() }

  @Test func fieldsLieWhereTheHeaderPutsThemInLittleEndian() {
    var header = VirtioNetHeader()
    header.flags = 1
    header.segmentationType = 0x84
    header.headerByteCount = 0x0203
    header.segmentSize = 0x0405
    header.checksumStart = 0x0607
    header.checksumOffset = 0x0809
    let bytes = memory.room(16)
    for index in 0..<16 { bytes[index] = 0xEE }
    header.write(to: bytes, at: 2)
    let wire: [UInt8] = [0xEE, 0xEE, 1, 0x84, 3, 2, 5, 4, 7, 6, 9, 8, 1, 0, 0xEE, 0xEE]
    #expect(bytes.array == wire)
    #expect(VirtioNetHeader(reading: bytes, at: 2) == header)
    for index in 0..<16 { bytes[index] = 0xEE }
    header.write(to: bytes, at: 2, byteCount: 10)
    #expect(bytes.array == wire[0..<12] + [0xEE, 0xEE, 0xEE, 0xEE])
    #expect(VirtioNetHeader.byteCount == 12)
  }

  @Test func eachStateHasItsFlagsAndComesBack() throws {
    for frame in FrameShapes.all(payload: 100) {
      let bytes = memory.load(frame.bytes)
      for (flags, virtio) in [(NetTxFlags(), UInt8(0)), (.dataValidated, 2), (.checksumBlank, 1)] {
        for size in [nil, 40] as [UInt16?] where size == nil || frame.transport == .tcp {
          let extra = size.map { NetExtraInfo(segmentation: frame.segmentationType, size: $0) }
          let offload = try TransmitOffload.prepare(
            bytes, flags: flags, segmentation: extra, hash: nil)
          let header = VirtioNetHeader(offload)
          #expect(header.flags == (size == nil ? virtio : 1))
          let type: UInt8 = frame.network == .ipv4 ? 1 : 4
          #expect(header.segmentationType == (size == nil ? 0 : type))
          #expect(header.segmentSize == size ?? 0)
          #expect(Int(header.headerByteCount) == frame.headerByteCount)
          if header.flags == 1 {
            #expect(Int(header.checksumStart) == frame.transportStart)
            #expect(Int(header.checksumOffset) == frame.checksumOffset)
          }
          #expect(try header.offload(frame: bytes) == offload)
        }
      }
    }
  }

  @Test func whatNetifCannotCarryIsRefused() {
    let frame = memory.load(TestFrame(payload: TestFrame.payload(100)).bytes)
    var header = VirtioNetHeader()
    header.flags = 1
    header.checksumStart = 34
    header.checksumOffset = 16
    header.segmentSize = 10
    // UFO, USO, TCP in a tunnel of UDP, and a type that does not exist.
    for type in [UInt8(3), 5, 0x21, 0x41, 2, 0x83] {
      header.segmentationType = type
      #expect(throws: PacketRefusal.segmentationMismatch) { try header.offload(frame: frame) }
    }
    header.segmentationType = 4
    #expect(throws: PacketRefusal.segmentationMismatch) { try header.offload(frame: frame) }
    header.segmentationType = 1
    for size in [UInt16(0), 0xFFFF] {
      header.segmentSize = size
      #expect(throws: PacketRefusal.badSegmentSize) { try header.offload(frame: frame) }
    }
    let sctp = memory.load(TestFrame(transport: .other(132), payload: TestFrame.payload(40)).bytes)
    header = VirtioNetHeader()
    header.flags = 1
    header.checksumStart = 34
    header.checksumOffset = 8
    #expect(throws: PacketRefusal.checksumWithoutProtocol) { try header.offload(frame: sctp) }
  }

  @Test func aFieldOutsideTheFrameIsRefused() throws {
    let bytes = TestFrame(payload: [1, 2, 3]).bytes
    let frame = memory.load(bytes)
    var header = VirtioNetHeader()
    header.flags = 1
    for (start, offset) in [(bytes.count - 1, 0), (0xFFFF, 0xFFFF), (34, bytes.count - 35)] {
      header.checksumStart = UInt16(start)
      header.checksumOffset = UInt16(offset)
      #expect(throws: PacketRefusal.truncatedHeaders) { try header.offload(frame: frame) }
    }
    header.checksumStart = UInt16(bytes.count - 2)
    header.checksumOffset = 0
    #expect(try header.offload(frame: frame).checksum == .partial)
    for count in 0..<14 {
      let short = memory.load([UInt8](repeating: 1, count: count))
      #expect(throws: PacketRefusal.truncatedHeaders) { try VirtioNetHeader().offload(frame: short) }
    }
  }

  @Test func theECNBitIsDropped() throws {
    let frame = memory.load(TestFrame(payload: TestFrame.payload(100)).bytes)
    var header = VirtioNetHeader()
    header.flags = 1
    header.checksumStart = 34
    header.checksumOffset = 16
    header.segmentationType = 0x81
    header.segmentSize = 50
    let offload = try header.offload(frame: frame)
    #expect(offload.segmentation == .tcpIPv4 && VirtioNetHeader(offload).segmentationType == 1)
  }

  @Test func trap20_aHeaderThatForgetsTheChecksumIsMended() throws {
    let frame = TestFrame(payload: TestFrame.payload(100))
    let blank = memory.load(frame.bytes)
    let expected = try TransmitOffload.prepare(
      blank, flags: .checksumBlank, segmentation: NetExtraInfo(segmentation: .tcpIPv4, size: 50), hash: nil)
    let expectedBytes = blank.array
    let bytes = memory.load(frame.bytes)
    var header = VirtioNetHeader()
    header.segmentationType = 1
    header.segmentSize = 50
    #expect(try header.offload(frame: bytes) == expected && bytes.array == expectedBytes)
  }
}
