import Netback
import RingKit
import Testing

@Suite struct HeadersTests {
  let memory: FrameMemory

  init() throws { memory = try FrameMemory() }

  func parse(_ bytes: [UInt8]) -> PacketHeaders { PacketHeaders(memory.load(bytes)) }

  @Test func everyShapeIsFoundWhereItWasPut() {
    for padding in [0, 7] {
      for var frame in FrameShapes.all(payload: 33) {
        frame.padding = [UInt8](repeating: 0xEE, count: padding)
        let headers = parse(frame.bytes)
        #expect(headers.tagCount == frame.tags.count)
        #expect(headers.etherType == (frame.network == .ipv4 ? 0x0800 : 0x86DD))
        #expect(headers.network == (frame.network == .ipv4 ? .ipv4 : .ipv6))
        #expect(headers.transport == (frame.transport == .tcp ? .tcp : .udp))
        #expect(headers.protocolNumber == frame.protocolNumber)
        #expect(headers.networkStart == frame.networkStart)
        #expect(headers.transportStart == frame.transportStart)
        #expect(headers.portsStart == frame.transportStart)
        #expect(headers.headerByteCount == frame.headerByteCount)
        #expect(headers.packetEnd == frame.bytes.count - padding)
        #expect(headers.payloadByteCount == 33)
        #expect(headers.hasChecksum && !headers.isFragment)
        #expect(headers.checksumOffset == frame.checksumOffset)
        let addresses = frame.networkStart + (frame.network == .ipv4 ? 12 : 8)
        #expect(headers.addressesStart == addresses)
        #expect(headers.addressesByteCount == (frame.network == .ipv4 ? 8 : 32))
        #expect(headers.canBeSegmented(as: frame.segmentationType) == (frame.transport == .tcp))
        #expect(!headers.canBeSegmented(as: frame.network == .ipv4 ? .tcpIPv6 : .tcpIPv4))
        #expect(!headers.canBeSegmented(as: .none))
      }
    }
  }

  @Test func moreThanTwoTagsAreNotFollowed() {
    let headers = parse(TestFrame(tags: [0x88A8, 0x8100, 0x8100]).bytes)
    #expect(headers.tagCount == 2 && headers.etherType == 0x8100)
    #expect(headers.network == .none && headers.headerByteCount == 22)
  }

  @Test func whatIsNotIPEndsBehindEthernet() {
    var bytes = TestFrame(payload: [1, 2, 3]).bytes
    for type in [UInt16(0x0806), 46, 0x86DD, 0x9100] {
      bytes.replaceSubrange(12..<14, with: type.wire)
      let headers = parse(bytes)
      #expect(headers.network == .none && headers.etherType == type && headers.headerByteCount == 14)
    }
  }

  @Test func lengthsThatDisagreeLeaveNoTransport() {
    // IPv4: shorter than its header, one byte more than there is; the header itself too long or too short.
    for (offset, value) in [(16, UInt16(19)), (16, 20 + 20 + 5 + 1), (16, 0)] {
      var bytes = TestFrame(payload: TestFrame.payload(5)).bytes
      bytes.replaceSubrange(offset..<offset + 2, with: value.wire)
      let headers = parse(bytes)
      #expect(headers.network == .ipv4 && headers.transport == .none && headers.packetEnd == 0)
      #expect(headers.headerByteCount == 34 && headers.addressesByteCount == 8)
    }
    for firstByte in [UInt8(0x44), 0x55, 0x4F] {
      var bytes = TestFrame(payload: [1]).bytes
      bytes[14] = firstByte
      #expect(parse(bytes).network == .none)
    }
    // The packet ends within TCP's header, though the frame does not.
    var short = TestFrame(payload: TestFrame.payload(50)).bytes
    short.replaceSubrange(16..<18, with: UInt16(39).wire)
    #expect(parse(short).transport == .none && parse(short).headerByteCount == 34)
    short.replaceSubrange(16..<18, with: UInt16(40).wire)
    #expect(parse(short).transport == .tcp && parse(short).payloadByteCount == 0)
    // TCP's own header: 4 words, and more than there is.
    for dataOffset in [UInt8(0x40), 0xF0] {
      var bytes = TestFrame(payload: [1, 2, 3]).bytes
      bytes[14 + 20 + 12] = dataOffset
      #expect(parse(bytes).transport == .none)
    }
    // IPv6, one byte more than there is; a jumbogram has 0.
    for (length, end) in [(UInt16(26), 0), (0, 54)] {
      var bytes = TestFrame(network: .ipv6, payload: TestFrame.payload(5)).bytes
      bytes.replaceSubrange(18..<20, with: length.wire)
      let headers = parse(bytes)
      #expect(headers.network == .ipv6 && headers.transport == .none && headers.packetEnd == end)
    }
  }

  @Test func fragmentsHaveNoTransport() {
    for part in [UInt16(0x2000), 0x2001, 0x0001, 0x1FFF] {
      let headers = parse(TestFrame(flagsAndOffset: part, payload: TestFrame.payload(8)).bytes)
      #expect(headers.isFragment && headers.transport == .none && headers.protocolNumber == 6)
      #expect(headers.headerByteCount == 34 && headers.portsStart == nil)
    }
    for part in [[UInt8(0), 1], [0, 8], [0xFF, 0xF8]] {
      var frame = TestFrame(network: .ipv6, payload: TestFrame.payload(8))
      frame.extensions = [FrameShapes.hopByHop, (44, [0] + part + [1, 2, 3, 4])]
      let headers = parse(frame.bytes)
      #expect(headers.isFragment && headers.transport == .none && headers.protocolNumber == 6)
    }
  }

  @Test func aWholePacketInAFragmentHeaderAndAHAreParsedButNotSegmented() {
    for header in [FrameShapes.atomicFragment, FrameShapes.authentication] {
      var frame = TestFrame(network: .ipv6, payload: TestFrame.payload(8))
      frame.extensions = [header]
      let headers = parse(frame.bytes)
      #expect(headers.transport == .tcp && headers.transportStart == frame.transportStart)
      #expect(headers.hasChecksum && !headers.canBeSegmented(as: .tcpIPv6))
    }
  }

  @Test func chainsOfHeadersAreBounded() {
    var frame = TestFrame(network: .ipv6, payload: TestFrame.payload(8))
    frame.extensions = [(type: UInt8, rest: [UInt8])](repeating: FrameShapes.hopByHop, count: 7)
    #expect(parse(frame.bytes).transport == .tcp)
    frame.extensions.append(FrameShapes.hopByHop)
    #expect(parse(frame.bytes).transport == .none)
    frame.extensions = [(type: UInt8, rest: [UInt8])](repeating: FrameShapes.hopByHop, count: 200)
    #expect(parse(frame.bytes).headerByteCount == 14 + 40 + 64)
  }

  @Test func theChecksumsDestinationIsTheLastOneOfARoute() {
    // Segments left: 1. The address that counts begins where the type's document says.
    let routes: [(type: UInt8, words: UInt8, at: Int?)] = [
      (0, 4, 24), (2, 2, 8), (4, 4, 8), (2, 4, nil), (3, 4, nil), (0, 0, nil),
    ]
    for route in routes {
      var frame = TestFrame(network: .ipv6, payload: TestFrame.payload(8))
      var rest = [route.words, route.type, 1] + [UInt8](repeating: 0, count: 4 + 8 * Int(route.words))
      for index in 7..<rest.count { rest[index] = UInt8(index) }
      frame.extensions = [(43, rest)]
      let bytes = frame.bytes
      let headers = parse(bytes)
      #expect(headers.transport == .tcp)
      #expect(headers.hasChecksum == (route.at != nil), "\(route)")
      guard let at = route.at else { continue }
      let sum = InternetChecksum.pseudoHeaderSum(memory.load(bytes), headers, byteCount: 28)
      let start = 54 + at
      let expected = naiveSum(bytes[22..<38] + bytes[start..<start + 16] + [0, 6, 0, 28])
      #expect(InternetChecksum.folded(sum) == expected, "\(route)")
    }
    for (options, isKnown) in [
      ([UInt8](arrayLiteral: 131, 7, 4, 1, 2, 3, 4, 0), false), ([137, 3, 4, 0], false),
      ([1, 1, 1, 131], false), ([148, 0, 0, 0], false), ([1, 1, 1, 7], false), ([0, 131, 3, 4], true),
      ([148, 4, 0, 0], true), ([7, 7, 4, 0, 0, 0, 0, 1], true),
    ] {
      let headers = parse(TestFrame(options: options, payload: [1]).bytes)
      #expect(headers.transport == .tcp && headers.hasChecksum == isKnown, "\(options)")
    }
  }

  @Test func udpShorterThanItsPacketHasNoChecksumToFillIn() {
    for length in [UInt16(0), 7, 12, 14, 0xFFFF] {
      var bytes = TestFrame(transport: .udp, payload: TestFrame.payload(5)).bytes
      bytes.replaceSubrange(38..<40, with: length.wire)
      #expect(parse(bytes).transport == .udp && !parse(bytes).hasChecksum)
    }
  }

  @Test func cutAnywhereNothingIsReadBeyondTheFrame() {
    for frame in FrameShapes.all(payload: 9) {
      let bytes = frame.bytes
      for count in 0...bytes.count {
        let cut = Array(bytes[0..<count])
        let headers = parse(cut)
        expectConsistent(headers, count)
        // A packet that is cut has a length that does not fit.
        #expect((headers.transport != .none) == (count == bytes.count))
        offloadEverything(cut, memory)
      }
    }
  }

  @Test func everyByteMayBeAnything() {
    for frame in FrameShapes.all(payload: 3) {
      var bytes = frame.bytes
      for index in bytes.indices {
        let was = bytes[index]
        let loaded = memory.load(bytes)
        for value in 0...UInt8.max {
          loaded[index] = value
          expectConsistent(PacketHeaders(loaded), bytes.count)
        }
        for value in [0xFF, was ^ 1, was ^ 0x10] {
          bytes[index] = value
          offloadEverything(bytes, memory)
        }
        bytes[index] = was
      }
    }
  }
}

/// What holds for the headers of any bytes.
func expectConsistent(_ headers: PacketHeaders, _ count: Int) {
  guard count >= 14 else {
    #expect(headers.headerByteCount == 0 && headers.network == .none && headers.transport == .none)
    return
  }
  var isConsistent = (14...count).contains(headers.headerByteCount) && (0...2).contains(headers.tagCount)
  isConsistent = isConsistent && headers.packetEnd <= count
  if headers.network != .none {
    isConsistent = isConsistent && headers.addressesStart + headers.addressesByteCount <= count
  }
  if headers.transport != .none {
    let least = headers.transport == .tcp ? 20 : 8
    isConsistent = isConsistent && headers.network != .none && !headers.isFragment
    isConsistent = isConsistent && headers.transportStart + least <= headers.headerByteCount
    isConsistent = isConsistent && headers.headerByteCount <= headers.packetEnd
  } else {
    isConsistent = isConsistent && !headers.hasChecksum && headers.payloadByteCount == 0
  }
  if !isConsistent { Issue.record("\(headers) of \(count)") }
}

/// Headers of frames of which only the first bytes are at hand.
struct HeadersCutTests {
  /// However little there is: what is found is what is in the whole frame, or it is told that more is needed.
  @Test func firstBytesTellTheSameOrThatTheyDoNot() throws {
    let memory = try FrameMemory()
    var frames: [TestFrame] = []
    for network in TestFrame.Network.allCases {
      for transport in [TestFrame.Transport.tcp, .udp, .other(132)] {
        for tags in [[], [0x8100], [0x88A8, 0x8100]] as [[UInt16]] {
          var frame = TestFrame()
          (frame.network, frame.transport, frame.tags) = (network, transport, tags)
          frame.payload = TestFrame.payload(300)
          frame.transportOptions = transport == .tcp ? [1, 1, 1, 1] : []
          if network == .ipv4 { frame.options = [1, 1, 1, 0] }
          if network == .ipv6 {
            frame.extensions = [
              (0, [0] + [UInt8](repeating: 0, count: 6)), (43, [2, 4, 1] + [UInt8](repeating: 0, count: 20)),
              (51, [4] + [UInt8](repeating: 0, count: 22)),
            ]
          }
          frames.append(frame)
        }
      }
    }
    var cutCount = 0
    for frame in frames {
      let whole = memory.load(frame.bytes)
      let all = PacketHeaders(whole)
      #expect(!all.isCutOff)
      for count in 0...whole.count {
        let headers = PacketHeaders(whole.slice(from: 0, count: count), frameByteCount: whole.count)
        if headers.isCutOff { cutCount += 1 } else { #expect(headers == all, "\(count)") }
        if count < all.headerByteCount { #expect(headers.isCutOff, "\(count)") }
        if count >= frame.headerByteCount { #expect(!headers.isCutOff, "\(count)") }
      }
    }
    #expect(cutCount > 1000)
  }
}
