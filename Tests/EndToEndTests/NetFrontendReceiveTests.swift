import Netback
import RingKit
import Testing

@testable import Frontends

/// What a frontend posts, how it puts slots together, and what it makes of a backend that breaks the rules
/// (netif.h; net.md 1.3 and 4.3; xen-netfront.c, xennet_get_responses).
@Suite struct NetFrontendReceiveTests {
  @Test func pagesArePostedUnderTheNamesOfTheirSlots() throws {
    let bench = try NetReceiveBench()
    #expect(bench.requests.count == 256)
    // The first slot is the one that the counter falls on.
    #expect(bench.requests.map(\.id) == (0..<256).map { UInt16((0xF0 + $0) & 0xFF) })
    #expect(Set(bench.requests.map(\.reference.rawValue)) == Set(1000..<1256))
    #expect(bench.receiver.freePageCount == 0)
    let masked = try NetReceiveBench(pages: 5) { $0.receiveIDMask = 0xA500 }
    #expect(masked.requests.map(\.id) == (0..<5).map { 0xA5F0 + UInt16($0) })
  }

  @Test func aLimitBoundsWhatIsPosted() throws {
    var bench = try NetReceiveBench(pages: 1)
    #expect(bench.requests.count == 1)
    try bench.put(netFrame(60))
    bench.publish()
    #expect(try bench.receiver.nextPacket()?.byteCount == 60)
    bench.receiver.post()
    #expect(bench.receiver.freePageCount == 0)
    #expect(bench.receiver.outstanding == 0)
    bench.receiver.release()
    bench.receiver.post(upTo: 0)
    #expect(bench.receiver.freePageCount == 1)
    try bench.post()
    #expect(bench.requests.count == 1)
  }

  @Test func aPacketOfOneSlot() throws {
    var bench = try NetReceiveBench()
    let frame = netFrame(1514)
    try bench.put(frame, offset: 2, flags: .dataValidated)
    bench.publish()
    let packet = try #require(try bench.receiver.nextPacket())
    #expect(packet.byteCount == 1514 && packet.flags == .dataValidated && packet.slotCount == 1)
    #expect(packet.segmentation == nil && packet.hash == nil && packet.headroom == nil)
    #expect(bench.receiver.bytes() == frame)
    #expect(bench.receiver.segment(0).length == 1514)
    #expect(try bench.receiver.nextPacket() == nil)
    #expect(bench.receiver.packetCount == 1 && bench.receiver.byteCount == 1514)
    #expect(bench.receiver.freePageCount == 1)
  }

  @Test func slotsAndExtrasArePutTogether() throws {
    var bench = try NetReceiveBench()
    bench.receiver.expectsHashes = true
    let frame = netFrame(8290)
    let hash = NetHash(type: .ipv4, algorithm: 1, value: 0xDEAD_BEEF)
    var segmentation = NetExtraInfo(segmentation: .tcpIPv4, size: 1448)
    segmentation.hasMore = true
    for _ in 0..<40 {
      try bench.put(Array(frame[0..<90]), offset: 100, flags: [.moreData, .extraInfo, .checksumBlank])
      bench.put(segmentation)
      bench.put(NetExtraInfo(hash: hash))
      try bench.put(Array(frame[90..<4186]), flags: [.moreData])
      try bench.put([], flags: [.moreData])
      try bench.put(Array(frame[4186..<8282]), flags: [.moreData])
      try bench.put(Array(frame[8282..<8290]), offset: 4088)
      bench.publish()
      let packet = try #require(try bench.receiver.nextPacket())
      #expect(packet.byteCount == 8290 && packet.slotCount == 5)
      #expect(packet.flags.contains(.checksumBlank))
      #expect(packet.segmentation?.segmentSize == 1448)
      #expect(packet.hash == hash)
      #expect(bench.receiver.bytes() == frame)
      #expect(try bench.receiver.nextPacket() == nil)
      try bench.post()
    }
    #expect(bench.requests.count == 256)
  }

  @Test func trap28_aFailedPacketIsPassedOverWithAllItsSlots() throws {
    var bench = try NetReceiveBench()
    try bench.put(netFrame(4096), flags: .moreData)
    try bench.put([], flags: [.moreData], status: -1)
    try bench.put(netFrame(10))
    try bench.put(netFrame(60, seed: 9))
    try bench.put([], flags: [.extraInfo], status: -1)
    bench.put(NetExtraInfo(segmentation: .tcpIPv4, size: 1448))
    try bench.put([], status: -2)
    bench.publish()
    #expect(try bench.receiver.nextPacket()?.byteCount == 60)
    #expect(bench.receiver.bytes() == netFrame(60, seed: 9))
    #expect(try bench.receiver.nextPacket() == nil)
    #expect(bench.receiver.failedPacketCount == 3 && bench.receiver.packetCount == 1)
    #expect(bench.receiver.freePageCount == 7)
  }

  @Test func headroomIsJudged() throws {
    var bench = try NetReceiveBench { $0.headroomByteCount = 256 }
    let frame = netFrame(100)
    // As Linux's backend has it, in the extra info alone, and with the offset beside.
    for offset in [0, 256] {
      try bench.put(frame, offset: offset, writtenAt: 256, flags: .extraInfo)
      bench.put(NetExtraInfo(headroom: 256))
      bench.publish()
      let packet = try #require(try bench.receiver.nextPacket())
      #expect(packet.headroom == 256)
      #expect(bench.receiver.bytes() == frame)
    }
    try bench.put(frame)
    #expect(bench.violation() == .headroom(told: 0, asked: 256, offset: 0))
  }

  // MARK: Violations

  @Test func anotherNameInTheSlotDisablesTheRing() throws {
    var bench = try NetReceiveBench()
    try bench.put(netFrame(60), idChange: 1)
    guard case .receiveIDMismatch(let response, expected: 0xF0) = bench.violation() else {
      Issue.record("the name was not looked at")
      return
    }
    #expect(response.id == 0xF1)
    #expect(throws: NetFrontendError.self) { try bench.receiver.nextPacket() }
    #expect(throws: NetFrontendError.self) { try bench.receiver.requestEvent() }
  }

  @Test func trap29_dataBeyondItsPageDisablesTheRing() throws {
    var bench = try NetReceiveBench()
    try bench.put([], offset: 4000, status: 96)
    try bench.put([], offset: 4000, status: 97)
    #expect(bench.violation() == nil)
    guard case .receiveBeyondPage(let response) = bench.violation() else {
      Issue.record("it was taken")
      return
    }
    #expect(response.offset == 4000 && response.status == 97)
    var other = try NetReceiveBench()
    try other.put([], offset: 0xFFFF, status: 32767)
    guard case .receiveBeyondPage = other.violation() else {
      Issue.record("it was taken")
      return
    }
  }

  @Test func aPacketThatDoesNotEndDisablesTheRing() throws {
    var bench = try NetReceiveBench()
    try bench.put(netFrame(60), flags: .moreData)
    #expect(bench.violation() == .receiveIncomplete(slots: 1))
  }

  @Test func anExtraThatDoesNotComeDisablesTheRing() throws {
    var bench = try NetReceiveBench()
    try bench.put(netFrame(60), flags: .extraInfo)
    #expect(bench.violation() == .extraMissing)
    var chained = try NetReceiveBench()
    try chained.put(netFrame(60), flags: .extraInfo)
    var extra = NetExtraInfo(segmentation: .tcpIPv4, size: 9)
    extra.hasMore = true
    chained.put(extra)
    #expect(chained.violation() == .extraMissing)
  }

  @Test(arguments: [UInt8(0), 6, 255]) func trap13_anExtraOfNoTypeDisablesTheRing(type: UInt8) throws {
    var bench = try NetReceiveBench()
    try bench.put(netFrame(60), flags: .extraInfo)
    bench.put(NetExtraInfo(type: NetExtraType(rawValue: type), payload: 0))
    #expect(bench.violation() == .extraType(type))
  }

  @Test func trap26_moreThan18SlotsDisableTheRing() throws {
    // A short first slot makes room for one more.
    for (first, slots, isTaken) in [(257, 18, true), (257, 19, false), (256, 19, true), (256, 20, false)] {
      var bench = try NetReceiveBench()
      try bench.put(netFrame(first), flags: .moreData)
      for slot in 1..<slots { try bench.put(netFrame(20), flags: slot == slots - 1 ? [] : .moreData) }
      if isTaken {
        bench.publish()
        #expect(try bench.receiver.nextPacket()?.slotCount == slots)
      } else {
        #expect(bench.violation() == .receiveTooManySlots(slots))
      }
    }
  }

  /// All slots of the ring as one packet are an error like any other.
  @Test func aPacketAsLongAsTheRingDisablesIt() throws {
    var bench = try NetReceiveBench()
    for _ in 0..<256 { try bench.put(netFrame(4096), flags: .moreData) }
    #expect(bench.violation() == .receiveIncomplete(slots: 256))
  }

  @Test func aPacketTooShortOrTooLongDisablesTheRing() throws {
    for count in [0, 13] {
      var bench = try NetReceiveBench()
      try bench.put(netFrame(count))
      #expect(bench.violation() == .receiveByteCount(count))
    }
    var bench = try NetReceiveBench()
    for slot in 0..<16 { try bench.put(netFrame(4096), flags: slot == 15 ? [] : .moreData) }
    #expect(bench.violation() == .receiveByteCount(65536))
  }

  @Test func segmentationThatMakesNoSenseDisablesTheRing() throws {
    for extra in [
      NetExtraInfo(segmentation: .tcpIPv4, size: 0), NetExtraInfo(segmentation: .none, size: 1448),
      NetExtraInfo(segmentation: NetSegmentationType(rawValue: 3), size: 1448),
    ] {
      var bench = try NetReceiveBench()
      try bench.put(netFrame(60), flags: [.extraInfo, .checksumBlank])
      bench.put(extra)
      #expect(bench.violation() == .segmentation(extra))
    }
  }

  @Test func trap32_whatWasNotOfferedDisablesTheRing() throws {
    for type in [NetSegmentationType.tcpIPv4, .tcpIPv6] {
      var bench = try NetReceiveBench {
        $0.offloads.remove(type == .tcpIPv4 ? .segmentationIPv4 : .segmentationIPv6)
      }
      for offered in [NetSegmentationType.tcpIPv4, .tcpIPv6] where offered != type {
        try bench.put(netFrame(60), flags: .extraInfo)
        bench.put(NetExtraInfo(segmentation: offered, size: 1448))
        bench.publish()
        #expect(try bench.receiver.nextPacket() != nil)
      }
      try bench.put(netFrame(60), flags: .extraInfo)
      let extra = NetExtraInfo(segmentation: type, size: 1448)
      bench.put(extra)
      #expect(bench.violation() == .unofferedSegmentation(extra))
    }
    var bench = try NetReceiveBench { $0.offloads.remove(.scatterGather) }
    try bench.put(netFrame(60), flags: .moreData)
    try bench.put(netFrame(60))
    #expect(bench.violation() == .receiveUnofferedSlots)
  }

  /// A blank checksum is allowed by family: the type tells it, behind tags too.
  @Test func trap19_blankChecksumsAreAllowedByFamily() throws {
    func frame(_ types: [UInt16]) -> [UInt8] {
      var frame = netFrame(12)
      for type in types { frame += [UInt8(type >> 8), UInt8(type & 0xFF), 0, 1] }
      return frame + netFrame(40)
    }
    let cases: [(types: [UInt16], isIPv6: Bool)] = [
      ([0x0800], false), ([0x86DD], true), ([0x8100, 0x86DD], true), ([0x88A8, 0x86DD], true),
      ([0x88A8, 0x8100, 0x0800], false),
      ([0x8100, 0x8100, 0x8100, 0x86DD], true),
    ]
    for (types, isIPv6) in cases {
      for offered in [NetOffloads.checksumIPv4, .checksumIPv6, [], [.checksumIPv4, .checksumIPv6]] {
        var bench = try NetReceiveBench { $0.offloads = offered }
        try bench.put(frame(types), flags: [.checksumBlank, .dataValidated])
        let isAllowed = offered.contains(isIPv6 ? .checksumIPv6 : .checksumIPv4)
        #expect((bench.violation() == nil) == isAllowed, "\(types) \(offered)")
      }
    }
  }

  @Test func aHashThatNobodyAskedForDisablesTheRing() throws {
    let hash = NetHash(type: .ipv4, algorithm: 1, value: 5)
    var bench = try NetReceiveBench()
    try bench.put(netFrame(60), flags: .extraInfo)
    bench.put(NetExtraInfo(hash: hash))
    #expect(bench.violation() == .unaskedHash(hash))
  }

  @Test func aProducerBeyondWhatWasPostedDisablesTheRing() throws {
    for producer in [UInt32(0xFFFF_FFF0) &+ 6, 0xFFFF_FFEF] {
      var bench = try NetReceiveBench(pages: 5)
      bench.receiver.ringPages.pages.setWord(producer, at: RingGeometry.responseProducerOffset)
      guard case .ring = bench.violation() else {
        Issue.record("producer \(producer) was taken")
        continue
      }
    }
  }

  /// Any bytes at all in the responses are an error or a packet, and never a trap.
  @Test func anyResponsesAreSurvived() throws {
    var generator = SeededGenerator(seed: 5)
    var taken = 0
    var failed = 0
    for _ in 0..<600 {
      var bench = try NetReceiveBench()
      for _ in 0..<Int.random(in: 1...256, using: &generator) {
        let request = bench.requests[0]
        var slot = SlotCopy()
        slot.setUInt64(generator.next(), at: 0)
        if Int.random(in: 0..<10, using: &generator) > 0 {
          slot.setUInt16(request.id, at: 0)
          slot.setUInt16(UInt16.random(in: 0...64, using: &generator), at: 2)
          slot.setUInt16(UInt16.random(in: 0...15, using: &generator), at: 4)
          slot.setUInt16(UInt16(bitPattern: Int16.random(in: -2...4096, using: &generator)), at: 6)
        }
        bench.put(raw: slot)
      }
      bench.publish()
      do {
        while try bench.receiver.nextPacket() != nil { taken += 1 }
      } catch {
        failed += 1
      }
    }
    #expect(taken > 100 && failed > 100)
  }
}
