import Netback
import RingKit
import Simulator
import Testing

@Suite struct OffloadTransmitTests {
  let memory: FrameMemory

  init() throws { memory = try FrameMemory() }

  func prepare(
    _ bytes: [UInt8], _ flags: NetTxFlags, _ segmentation: NetExtraInfo? = nil
  ) throws(PacketRefusal) -> PacketOffload {
    try TransmitOffload.prepare(memory.load(bytes), flags: flags, segmentation: segmentation, hash: nil)
  }

  @Test func aFrameThatAsksForNothingGoesAsItIs() throws {
    for var frame in FrameShapes.all(payload: 5) + [TestFrame(transport: .other(132)), TestFrame(tags: [1])] {
      frame.padding = [1, 2, 3]
      let hash = NetHash(type: .ipv4TCP, algorithm: 1, value: 7)
      for (flags, checksum) in [
        (NetTxFlags(), PacketOffload.Checksum.unknown), (.dataValidated, .validated),
      ] {
        let bytes = memory.load(frame.bytes)
        let offload = try TransmitOffload.prepare(bytes, flags: flags, segmentation: nil, hash: hash)
        #expect(offload.checksum == checksum && offload.segmentation == .none && offload.hash == hash)
        #expect(Int(offload.headerByteCount) == PacketHeaders(bytes).headerByteCount)
        #expect(bytes.array == frame.bytes)
      }
    }
    for count in 0..<14 {
      #expect(throws: PacketRefusal.truncatedHeaders) {
        try prepare([UInt8](repeating: 8, count: count), [])
      }
    }
  }

  @Test func trap17_aPacketWithoutPayloadIsSummedAndNeverCut() throws {
    for network in TestFrame.Network.allCases {
      let frame = TestFrame(network: network)
      let bytes = memory.load(frame.bytes)
      let offload = try TransmitOffload.prepare(
        bytes, flags: .checksumBlank,
        segmentation: NetExtraInfo(segmentation: frame.segmentationType, size: 1), hash: nil)
      #expect(offload.checksum == .partial && offload.segmentation == .none && offload.segmentSize == 0)
    }
  }

  @Test func trap19_aBlankChecksumGetsThePseudoHeadersSumAndItsPlace() throws {
    for padding in [0, 5] {
      for var frame in FrameShapes.all(payload: 41) {
        frame.padding = [UInt8](repeating: 0xEE, count: padding)
        for flags in [NetTxFlags.checksumBlank, [.checksumBlank, .dataValidated]] {
          let bytes = memory.load(frame.bytes)
          let offload = try TransmitOffload.prepare(bytes, flags: flags, segmentation: nil, hash: nil)
          #expect(offload.checksum == .partial)
          #expect(Int(offload.checksumStart) == frame.transportStart)
          #expect(Int(offload.checksumOffset) == frame.checksumOffset)
          #expect(Int(offload.headerByteCount) == frame.headerByteCount)
          let headers = PacketHeaders(bytes)
          let addresses = frame.bytes[
            headers.addressesStart..<headers.addressesStart + headers.addressesByteCount]
          let length = UInt16(headers.transportByteCount)
          frame.checksum = naiveSum(addresses + [0, frame.protocolNumber] + length.wire)
          frame.padding = [UInt8](repeating: 0, count: padding)
          #expect(bytes.array == frame.bytes)
        }
      }
    }
  }

  @Test func trap19_blankWithoutAProtocolIsRefused() {
    var refused = [
      TestFrame(transport: .other(132), payload: TestFrame.payload(40)),
      TestFrame(transport: .other(1), payload: TestFrame.payload(40)),
      TestFrame(flagsAndOffset: 0x2000, payload: TestFrame.payload(40)),
      TestFrame(options: [131, 3, 4, 0], payload: TestFrame.payload(40)),
      TestFrame(tags: [0x8100, 0x8100, 0x8100], payload: TestFrame.payload(40)),
    ].map(\.bytes)
    var other = TestFrame(payload: TestFrame.payload(40)).bytes
    other.replaceSubrange(12..<14, with: UInt16(0x0806).wire)
    var short = TestFrame(transport: .udp, payload: TestFrame.payload(40)).bytes
    short.replaceSubrange(38..<40, with: UInt16(20).wire)
    refused += [other, short, Array(TestFrame(payload: TestFrame.payload(40)).bytes.dropLast())]
    for bytes in refused {
      #expect(throws: PacketRefusal.checksumWithoutProtocol) { try prepare(bytes, .checksumBlank) }
    }
  }

  @Test func trap20_segmentationWithoutBlankIsMadePartial() throws {
    for frame in FrameShapes.all(payload: 100) where frame.transport == .tcp {
      let extra = NetExtraInfo(segmentation: frame.segmentationType, size: 60)
      let blank = memory.load(frame.bytes)
      let expected = try TransmitOffload.prepare(
        blank, flags: [.checksumBlank, .dataValidated], segmentation: extra, hash: nil)
      let expectedBytes = blank.array
      #expect(expected.checksum == .partial && expected.segmentation == frame.segmentationType)
      #expect(expected.segmentSize == 60)
      // The length in the sum is that of the whole packet.
      let headers = PacketHeaders(blank)
      let sum = InternetChecksum.pseudoHeaderSum(
        blank, headers, byteCount: headers.packetEnd - headers.transportStart)
      #expect(blank.uint16(at: frame.transportStart + 16) == InternetChecksum.folded(sum))
      for flags in [NetTxFlags(), .dataValidated] {
        let bytes = memory.load(frame.bytes)
        let offload = try TransmitOffload.prepare(bytes, flags: flags, segmentation: extra, hash: nil)
        #expect(offload == expected && bytes.array == expectedBytes)
      }
    }
  }

  @Test func trap20_sizesAndTypesThatDoNotExistAreRefused() {
    let bytes = TestFrame(payload: TestFrame.payload(100)).bytes
    for size in [UInt16(0), 0xFFFF] {
      #expect(throws: PacketRefusal.badSegmentSize) {
        try prepare(bytes, .checksumBlank, NetExtraInfo(segmentation: .tcpIPv4, size: size))
      }
    }
    for type in [UInt8(0), 3, 0xFF].map(NetSegmentationType.init(rawValue:)) {
      #expect(throws: PacketRefusal.badSegmentSize) {
        try prepare(bytes, .checksumBlank, NetExtraInfo(segmentation: type, size: 50))
      }
    }
  }

  @Test func trap20_theTypeAgreesWithThePacket() {
    var refused: [(TestFrame, NetSegmentationType)] = [
      (TestFrame(), .tcpIPv6), (TestFrame(network: .ipv6), .tcpIPv4),
      (TestFrame(transport: .udp), .tcpIPv4), (TestFrame(network: .ipv6, transport: .udp), .tcpIPv6),
      (TestFrame(flagsAndOffset: 0x2000), .tcpIPv4), (TestFrame(tags: [0x8100, 0x8100, 0x8100]), .tcpIPv4),
      // Padding would become payload of the last segment.
      (TestFrame(padding: [0]), .tcpIPv4),
    ]
    for header in [FrameShapes.atomicFragment, FrameShapes.authentication] {
      refused.append((TestFrame(network: .ipv6, extensions: [header]), .tcpIPv6))
    }
    for (var frame, type) in refused {
      frame.payload = TestFrame.payload(100)
      for flags in [NetTxFlags(), .checksumBlank] {
        #expect(throws: PacketRefusal.segmentationMismatch) {
          try prepare(frame.bytes, flags, NetExtraInfo(segmentation: type, size: 50))
        }
      }
    }
  }

  @Test func trap20_whatFitsIntoOneSegmentIsAnOrdinaryPacket() throws {
    for padding in [0, 3] {
      for frame in FrameShapes.all(payload: 100) where frame.transport == .tcp {
        var frame = frame
        frame.padding = [UInt8](repeating: 1, count: padding)
        for size in [UInt16(100), 101, 0xFFFE] {
          let offload = try prepare(
            frame.bytes, [], NetExtraInfo(segmentation: frame.segmentationType, size: size))
          #expect(offload.checksum == .partial && offload.segmentation == .none)
        }
      }
      let frame = TestFrame(payload: TestFrame.payload(100))
      let offload = try prepare(frame.bytes, [], NetExtraInfo(segmentation: .tcpIPv4, size: 99))
      #expect(offload.segmentation == .tcpIPv4)
    }
  }

  @Test func trap21_tagsAreSkipped() throws {
    for tags in [[0x8100], [0x88A8, 0x8100]] as [[UInt16]] {
      let plain = try prepare(TestFrame(payload: [1]).bytes, .checksumBlank)
      let offload = try prepare(TestFrame(tags: tags, payload: [1]).bytes, .checksumBlank)
      #expect(Int(offload.checksumStart) == Int(plain.checksumStart) + 4 * tags.count)
      #expect(offload.checksumStart == UInt16(34 + 4 * tags.count))
    }
  }

  @Test func anyBytesAreJudgedWithoutATrap() {
    var numbers = SeededNumbers(seed: 77)
    let shapes = FrameShapes.all(payload: 20).map(\.bytes)
    for _ in 0..<3000 {
      var bytes = shapes[Int.random(in: 0..<shapes.count, using: &numbers)]
      if numbers.chance(1, in: 4) {
        // Random bytes behind a type that is worth reading.
        for index in 14..<bytes.count { bytes[index] = numbers.any(UInt8.self) }
        bytes[14] = numbers.chance(1, in: 2) ? 0x45 : 0x60
      }
      for _ in 0..<Int.random(in: 0...4, using: &numbers) {
        bytes[Int.random(in: 12..<bytes.count, using: &numbers)] = numbers.any(UInt8.self)
      }
      if numbers.chance(1, in: 8) { bytes.removeLast(Int.random(in: 0...bytes.count, using: &numbers)) }
      if numbers.chance(1, in: 8) { bytes += [UInt8](repeating: 7, count: 12) }
      offloadEverything(bytes, memory)
    }
  }
}

/// Takes any bytes through everything that can be asked of them, and looks at what holds for all.
func offloadEverything(_ bytes: [UInt8], _ memory: FrameMemory) {
  let size: UInt16 = 7
  let asked: [(NetTxFlags, NetExtraInfo?)] = [
    ([], nil), (.checksumBlank, nil), ([], NetExtraInfo(segmentation: .tcpIPv4, size: size)),
    (.checksumBlank, NetExtraInfo(segmentation: .tcpIPv6, size: size)),
  ]
  let accepted: [NetOffloads] = [[], .all, [.scatterGather, .checksumIPv4]]
  for (flags, segmentation) in asked {
    for accepted in accepted {
      let frame = memory.load(bytes)
      guard
        let offload = try? TransmitOffload.prepare(
          frame, flags: flags, segmentation: segmentation, hash: nil)
      else { continue }
      // The header of a link says all of it, and what came through a link is judged the same.
      let again = try? VirtioNetHeader(offload).offload(frame: frame)
      if again != offload { Issue.record("\(offload) became \(String(describing: again)) for \(bytes)") }
      expectDelivery(frame, offload, accepted, memory, isSummed: true)
    }
  }
  var header = VirtioNetHeader()
  header.flags = 1
  for start in [14, 34, 54, bytes.count] {
    for type in [UInt8(0), 1, 4] {
      header.checksumStart = UInt16(start)
      header.checksumOffset = 16
      header.segmentationType = type
      header.segmentSize = 3
      let frame = memory.load(bytes)
      guard let offload = try? header.offload(frame: frame) else { continue }
      expectDelivery(frame, offload, [], memory, isSummed: false)
    }
  }
}

extension NetOffloads {
  static var all: NetOffloads { NetOffloads(rawValue: 31) }
}

/// Brings a packet to a frontend: it takes at most two steps, and whatever is told as validated has a right
/// checksum if it was partial before, with the pseudo header's sum in its field.
func expectDelivery(
  _ frame: PrivateBytes, _ offload: PacketOffload, _ accepted: NetOffloads, _ memory: FrameMemory,
  isSummed: Bool
) {
  var offload = offload
  let isOwn = Int(offload.checksumStart) == PacketHeaders(frame).transportStart
  for _ in 0..<2 {
    switch ReceiveOffload.action(for: offload, frame: frame, accepted: accepted) {
    case .completeChecksum:
      let wasRight = SoftwareChecksum.complete(frame, &offload)
      if wasRight != (offload.checksum == .validated) { Issue.record("\(frame.array)") }
      if isOwn, isSummed { expectRightSum(frame) }
    case .segment:
      let segmenter = Segmenter(frame: frame, offload: offload)
      var payload = 0
      for index in 0..<segmenter.segmentCount {
        let (count, state) = segmenter.write(index, to: memory.room(segmenter.byteCount(of: 0)))
        let segment = memory.room(0, keeping: count)
        payload += count - Int(state.headerByteCount)
        expectRightSum(segment)
        let action = ReceiveOffload.action(for: state, frame: segment, accepted: accepted)
        if action != .send(flags: .dataValidated, segmentation: nil) { Issue.record("\(action)") }
      }
      let whole = segmenter.segmentCount == 0 ? 0 : PacketHeaders(frame).payloadByteCount
      if payload != whole { Issue.record("\(payload) bytes of \(whole)") }
      return
    case .send(let flags, let segmentation):
      if flags.contains(.checksumBlank) != (offload.checksum == .partial) || segmentation != nil && !isOwn {
        Issue.record("\(offload) told as \(flags)")
      }
      return
    }
  }
  if case .send = ReceiveOffload.action(for: offload, frame: frame, accepted: accepted) { return }
  Issue.record("no way for \(offload)")
}

/// The checksum is that of the pseudo header and the segment.
func expectRightSum(_ frame: PrivateBytes) {
  let headers = PacketHeaders(frame)
  guard headers.hasChecksum else { return }
  let pseudo = InternetChecksum.pseudoHeaderSum(frame, headers, byteCount: headers.transportByteCount)
  let sum = naiveSum(frame.array[headers.transportStart..<headers.packetEnd])
  if InternetChecksum.folded(pseudo + UInt64(sum)) != 0xFFFF { Issue.record("wrong sum: \(frame.array)") }
}
