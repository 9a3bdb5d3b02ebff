import Netback
import RingKit
import Testing

@Suite struct OffloadReceiveTests {
  let memory: FrameMemory

  init() throws { memory = try FrameMemory() }

  /// A frame as a link hands it over, with its state.
  func received(
    _ frame: TestFrame, size: UInt16? = nil
  ) throws -> (frame: PrivateBytes, offload: PacketOffload) {
    let bytes = memory.load(frame.bytes)
    let extra = size.map { NetExtraInfo(segmentation: frame.segmentationType, size: $0) }
    let offload = try TransmitOffload.prepare(
      bytes, flags: .checksumBlank, segmentation: extra, hash: nil)
    return (bytes, offload)
  }

  @Test func aChecksumGoesBlankToThoseWhoTakeItsFamily() throws {
    for frame in FrameShapes.all(payload: 30) {
      let (bytes, offload) = try received(frame)
      let own: NetOffloads = frame.network == .ipv4 ? .checksumIPv4 : .checksumIPv6
      let blank = ReceiveAction.send(flags: [.checksumBlank, .dataValidated], segmentation: nil)
      #expect(ReceiveOffload.action(for: offload, frame: bytes, accepted: own) == blank)
      let others = NetOffloads.all.subtracting(own)
      #expect(ReceiveOffload.action(for: offload, frame: bytes, accepted: others) == .completeChecksum)
      let front = FrontendAction.send(flags: [.checksumBlank, .dataValidated], segmentation: nil)
      #expect(FrontendOffload.action(for: offload, frame: bytes, offered: own) == front)
      #expect(FrontendOffload.action(for: offload, frame: bytes, offered: others) == .completeChecksum)
    }
  }

  @Test func theOtherStatesAreTold() {
    let bytes = memory.load(TestFrame(payload: [1]).bytes)
    var offload = PacketOffload()
    #expect(
      ReceiveOffload.action(for: offload, frame: bytes, accepted: .all) == .send(flags: [], segmentation: nil)
    )
    #expect(
      FrontendOffload.action(for: offload, frame: bytes, offered: .all) == .send(flags: [], segmentation: nil)
    )
    offload.checksum = .validated
    #expect(
      ReceiveOffload.action(for: offload, frame: bytes, accepted: [])
        == .send(flags: .dataValidated, segmentation: nil))
    #expect(
      FrontendOffload.action(for: offload, frame: bytes, offered: [])
        == .send(flags: .dataValidated, segmentation: nil))
  }

  @Test func trap19_onlyWhatAParserFindsGoesBlank() throws {
    // Another start, another field, a protocol without a parser, a packet that no length fits.
    let (bytes, offload) = try received(TestFrame(payload: TestFrame.payload(60)))
    for (start, offset) in [(offload.checksumStart + 2, offload.checksumOffset), (offload.checksumStart, 6)] {
      var other = offload
      (other.checksumStart, other.checksumOffset) = (start, offset)
      #expect(ReceiveOffload.action(for: other, frame: bytes, accepted: .all) == .completeChecksum)
    }
    for number in [UInt8(47), 132, 33] {
      let frame = memory.load(TestFrame(transport: .other(number), payload: TestFrame.payload(60)).bytes)
      #expect(ReceiveOffload.action(for: offload, frame: frame, accepted: .all) == .completeChecksum)
    }
    let cut = memory.load(Array(TestFrame(payload: TestFrame.payload(60)).bytes.dropLast()))
    #expect(ReceiveOffload.action(for: offload, frame: cut, accepted: .all) == .completeChecksum)
  }

  @Test func trap32_segmentationGoesToNobodyWhoDidNotAskForIt() throws {
    for frame in FrameShapes.all(payload: 100) where frame.transport == .tcp {
      let (bytes, offload) = try received(frame, size: 60)
      for bits in 0..<UInt8(32) {
        let accepted = NetOffloads(rawValue: bits)
        let needed: NetOffloads =
          frame.network == .ipv4
          ? [.scatterGather, .checksumIPv4, .segmentationIPv4]
          : [.scatterGather, .checksumIPv6, .segmentationIPv6]
        let extra = NetExtraInfo(segmentation: frame.segmentationType, size: 60)
        let isTaken = accepted.isSuperset(of: needed)
        #expect(
          ReceiveOffload.action(for: offload, frame: bytes, accepted: accepted)
            == (isTaken ? .send(flags: [.checksumBlank, .dataValidated], segmentation: extra) : .segment))
        #expect(
          FrontendOffload.action(for: offload, frame: bytes, offered: accepted)
            == (isTaken ? .send(flags: [.checksumBlank, .dataValidated], segmentation: extra) : .segment))
      }
    }
  }

  @Test func trap33_segmentationAlwaysHasBothChecksumFlags() throws {
    let (bytes, offload) = try received(TestFrame(payload: TestFrame.payload(100)), size: 60)
    for checksum in [PacketOffload.Checksum.unknown, .validated, .partial] {
      var told = offload
      told.checksum = checksum
      switch ReceiveOffload.action(for: told, frame: bytes, accepted: .all) {
      case .send(let flags, let segmentation):
        #expect(segmentation != nil && flags == [.checksumBlank, .dataValidated] && checksum == .partial)
      case .segment: #expect(checksum != .partial)
      case .completeChecksum: Issue.record("a packet to be cut has no checksum of its own")
      }
    }
  }

  @Test func whatTheTypeDoesNotFitIsCutOrDropped() throws {
    let (bytes, offload) = try received(TestFrame(payload: TestFrame.payload(100)), size: 60)
    var other = offload
    other.segmentation = .tcpIPv6
    #expect(ReceiveOffload.action(for: other, frame: bytes, accepted: .all) == .segment)
    #expect(Segmenter(frame: bytes, offload: other).segmentCount == 0)
    other = offload
    other.segmentSize = 100
    #expect(ReceiveOffload.action(for: other, frame: bytes, accepted: .all) == .segment)
    #expect(Segmenter(frame: bytes, offload: other).segmentCount == 1)
    other.segmentSize = 0
    #expect(ReceiveOffload.action(for: other, frame: bytes, accepted: .all) == .segment)
    #expect(Segmenter(frame: bytes, offload: other).segmentCount == 0)
  }

  @Test func trap19_aFrontendReadsTheOtherBits() throws {
    for frame in FrameShapes.all(payload: 100) {
      let sent = memory.load(frame.bytes)
      let extra =
        frame.transport == .tcp ? NetExtraInfo(segmentation: frame.segmentationType, size: 60) : nil
      let offload = try TransmitOffload.prepare(
        sent, flags: .checksumBlank, segmentation: extra, hash: nil)
      let prepared = sent.array
      guard
        case .send(let flags, let segmentation) = ReceiveOffload.action(
          for: offload, frame: sent, accepted: .all)
      else {
        Issue.record("\(offload)")
        continue
      }
      #expect(flags.rawValue == 3 && segmentation == extra)
      let got = memory.load(frame.bytes)
      let hash = NetHash(type: .ipv4, algorithm: 1, value: 9)
      var received = try FrontendOffload.received(
        got, flags: .checksumBlank, segmentation: segmentation, hash: hash)
      #expect(received.hash == hash)
      received.hash = nil
      #expect(received == offload && got.array == prepared)
    }
    let plain = memory.load(TestFrame(payload: [1]).bytes)
    let validated = try FrontendOffload.received(
      plain, flags: NetRxFlags(rawValue: 1), segmentation: nil, hash: nil)
    #expect(validated.checksum == .validated)
    let blank = try FrontendOffload.received(
      plain, flags: NetRxFlags(rawValue: 2), segmentation: nil, hash: nil)
    #expect(blank.checksum == .partial)
  }
}
