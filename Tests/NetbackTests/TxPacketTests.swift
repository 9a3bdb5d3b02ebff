import Netback
import RingKit
import Simulator
import Testing

/// From slots to packets: net.md 4.2, with the advisories that name the same mistakes.
struct TxPacketTests {
  @Test func trap8_theFirstSizeIsTheWholePacket() throws {
    let fixture = try TxFixture()
    let sent = [
      fixture.place([.init(0, 0, 14)]),
      fixture.place([.init(1, 100, 14), .init(2, 0, 1)]),
      fixture.place([.init(3, 4000, 96), .init(4, 0, 4096), .init(5, 1, 333)]),
      fixture.place([.init(6, 0, 4096)]),
      fixture.place((0..<16).map { .init($0, 0, 4095) }),
    ]
    #expect(try fixture.settle() == [NetStatus](repeating: .okay, count: 23))
    #expect(fixture.frames == sent)
    let counters = fixture.world.counters
    #expect(counters.packets == 5 && counters.bytes == UInt64(sent.reduce(0) { $0 + $1.count }))
    #expect(counters.drops == 0 && counters.grantCopies == 23)
    fixture.expectNothingLeft()
  }

  /// The largest packet there is: 65535 bytes.
  @Test func trap8_theLargestPacket() throws {
    let fixture = try TxFixture()
    let sent = fixture.place((0..<15).map { .init($0, 0, 4096) } + [.init(20, 1, 4095)])
    #expect(sent.count == 65535)
    #expect(try fixture.settle().allSatisfy { $0 == .okay } && fixture.frames == [sent])
    fixture.expectNothingLeft()
  }

  /// Whatever the first slot's part, it must hold an Ethernet header.
  @Test(arguments: 0...16)
  func trap8_theFirstSlotHoldsAnEthernetHeader(_ count: Int) throws {
    let fixture = try TxFixture()
    fixture.place([.init(0, 0, count), .init(1, 0, 1000)])
    let next = fixture.place([.init(2, 0, 64)])
    let status: NetStatus = count < 14 ? .error : .okay
    #expect(try fixture.settle() == [status, status, .okay])
    #expect(fixture.frames.last == next && fixture.frames.count == (count < 14 ? 1 : 2))
    #expect(fixture.world.counters.tooShort == (count < 14 ? 1 : 0))
    #expect(fixture.world.host.charges.count == fixture.frames.count)
    fixture.expectNothingLeft()
  }

  /// Old frontends: the size of 64 KiB and more does not fit the first request.
  @Test(arguments: [0, 1, 99, 65535])
  func trap9_anOverlongSlotDropsItsPacketOnly(_ total: Int) throws {
    let fixture = try TxFixture()
    fixture.place(size: total, flags: [.moreData, .extraInfo])
    fixture.place(NetExtraInfo(segmentation: .tcpIPv4, size: 0))
    for _ in 0..<15 { fixture.place(size: 4096, flags: .moreData) }
    fixture.place(size: 4096)
    let next = fixture.place([.init(3, 0, 99)])
    let expected = [.error, .null] + [NetStatus](repeating: .error, count: 16) + [.okay]
    #expect(try fixture.settle() == expected)
    #expect(fixture.frames == [next] && fixture.world.counters.overlongSlots == 1)
    #expect(fixture.world.counters.errors == 17 && fixture.world.counters.drops == 1)
    fixture.expectNothingLeft()
  }

  @Test(arguments: [1, 2, 17, 18, 19, 20, 21, 63, 64, 65, 66, 127, 128, 129, 200])
  func trap10_slotBounds(_ count: Int) throws {
    let fixture = try TxFixture()
    let bytes = fixture.place((0..<count).map { .init($0 % 64, 0, 100) })
    if count > 128 { return try fixture.expectBroken(.tooManySlots(129)) }
    let status: NetStatus = count > 64 ? .error : .okay
    #expect(try fixture.settle() == [NetStatus](repeating: status, count: count))
    #expect(fixture.frames == (count > 64 ? [] : [bytes]))
    #expect(fixture.world.counters.tooManySlots == (count > 64 ? 1 : 0))
    fixture.expectNothingLeft()
  }

  @Test(arguments: 1...5)
  func trap11_anUnfinishedPacketIsFatal(_ count: Int) throws {
    let fixture = try TxFixture()
    let before = fixture.place([.init(0, 0, 60)])
    fixture.place([.init(0, 0, 60)], extras: [NetExtraInfo(headroom: 0)])
    for _ in 0..<count { fixture.place(size: 60 * count, flags: .moreData) }
    try fixture.expectBroken(.unfinishedPacket(slots: count), after: [.okay, .okay, .null])
    #expect(fixture.frames == [before, before])
  }

  /// Slots of the last round that still lie in the ring are no continuation.
  @Test func trap11_oldSlotsAreNotTheRest() throws {
    let fixture = try TxFixture()
    for _ in 0..<256 { fixture.place(size: 60) }
    #expect(try fixture.settle().count == 256)
    fixture.place(size: 120, flags: .moreData)
    try fixture.expectBroken(.unfinishedPacket(slots: 1))
  }

  @Test(arguments: [(0, 4097), (1, 4096), (4095, 14), (4096, 14), (65535, 65535), (4083, 14)])
  func trap12_crossPageIsFatal(_ place: (offset: Int, count: Int)) throws {
    let fixture = try TxFixture()
    fixture.place(size: 60)
    fixture.place(size: place.count, offset: place.offset)
    try fixture.expectBroken(
      .crossesPage(offset: place.offset, byteCount: place.count), after: [.okay])
    let later = try TxFixture()
    later.place(size: 65535, flags: .moreData)
    later.place(size: place.count, offset: place.offset)
    try later.expectBroken(.crossesPage(offset: place.offset, byteCount: place.count))
    #expect(later.world.host.batches.isEmpty, "one bad slot would refuse the whole batch")
  }

  @Test func trap12_theLastByteOfAPageMayBeSent() throws {
    let fixture = try TxFixture()
    let sent = [
      fixture.place([.init(0, 4082, 14)]), fixture.place([.init(1, 0, 4096), .init(2, 4095, 1)]),
      // Nothing at the very end of a page is nothing.
      fixture.place([.init(1, 0, 60), .init(2, 4096, 0)]),
    ]
    #expect(try fixture.settle() == [NetStatus](repeating: .okay, count: 5))
    #expect(fixture.frames == sent)
    fixture.expectNothingLeft()
  }

  /// A packet too short for Ethernet is an error, not a fault, wherever it lies.
  @Test(arguments: 0..<14)
  func trap12_shortPacketsAreAnErrorOnly(_ size: Int) throws {
    let fixture = try TxFixture()
    fixture.place(size: size, offset: 4095)
    fixture.place(size: 60)
    #expect(try fixture.settle() == [.error, .okay])
    #expect(fixture.world.counters.tooShort == 1 && fixture.frames.count == 1)
    fixture.expectNothingLeft()
  }

  @Test func trap13_aMissingExtraInfoIsFatal() throws {
    let fixture = try TxFixture()
    fixture.place(size: 60, flags: .extraInfo)
    try fixture.expectBroken(.missingExtraInfo)
    let later = try TxFixture()
    later.place(size: 60, flags: .extraInfo)
    var extra = NetExtraInfo(headroom: 0)
    extra.hasMore = true
    later.place(extra)
    try later.expectBroken(.missingExtraInfo)
  }

  @Test(arguments: [0, 6, 7, 128, 255] as [UInt8])
  func trap13_extraInfosThatDoNotExistAreFatal(_ type: UInt8) throws {
    let fixture = try TxFixture()
    fixture.place(
      [.init(0, 0, 60)],
      extras: [
        NetExtraInfo(headroom: 0), NetExtraInfo(type: NetExtraType(rawValue: type), payload: 1),
      ])
    try fixture.expectBroken(.extraInfoType(type))
  }

  /// Known types without meaning here are passed over, a hundred in a row, and of two the last counts.
  @Test func trap13_extraInfosInARow() throws {
    let fixture = try TxFixture()
    let hashes = (0..<3).map { NetHash(type: .ipv4, algorithm: 1, value: UInt32($0)) }
    let extras =
      (0..<100).map { NetExtraInfo(headroom: UInt16($0)) } + hashes.map { NetExtraInfo(hash: $0) }
    let sent = fixture.place([.init(0, 0, 60), .init(1, 0, 60)], extras: extras)
    #expect(try fixture.settle() == [.okay] + [NetStatus](repeating: .null, count: 103) + [.okay])
    #expect(fixture.frames == [sent] && fixture.world.host.frames[0].offload.hash == hashes[2])
    #expect(fixture.world.counters.extraInfos == 103 && fixture.world.counters.slots == 105)
    // A hash of a type that does not exist is none.
    fixture.place([.init(0, 0, 60)], extras: [NetExtraInfo(type: .hash, payload: 77)])
    #expect(try fixture.settle() == [.okay, .null])
    #expect(fixture.world.host.frames[1].offload.hash == nil)
    fixture.expectNothingLeft()
  }

  /// Extra infos on later slots are none: the flag counts on the first one.
  @Test func trap13_theFlagCountsOnTheFirstSlotOnly() throws {
    let fixture = try TxFixture()
    fixture.place(size: 200, flags: .moreData)
    fixture.place(size: 60, flags: [.moreData, .extraInfo])
    fixture.place(size: 40, flags: .extraInfo)
    #expect(try fixture.settle() == [.okay, .okay, .okay])
    fixture.expectNothingLeft()
  }

  /// 18 data slots are 18, with any number of extra infos among them.
  @Test func trap13_extraInfosAreNoDataSlots() throws {
    let fixture = try TxFixture { $0.limits = NetTxLimits(acceptedSlotCount: 18, toleratedSlotCount: 19) }
    let extras = (0..<30).map { NetExtraInfo(headroom: UInt16($0)) }
    let nulls = [NetStatus](repeating: .null, count: 30)
    let pieces = (0..<20).map { TxFixture.Piece($0, 0, 50) }
    let sent = fixture.place(Array(pieces.prefix(18)), extras: extras)
    #expect(try fixture.settle() == [.okay] + nulls + [NetStatus](repeating: .okay, count: 17))
    fixture.place(Array(pieces.prefix(19)), extras: extras)
    #expect(try fixture.settle() == [.error] + nulls + [NetStatus](repeating: .error, count: 18))
    #expect(fixture.frames == [sent])
    fixture.place(pieces, extras: extras)
    try fixture.expectBroken(.tooManySlots(20))
  }

  @Test func trap14_everyExtraInfoHasItsAnswer() throws {
    let fixture = try TxFixture()
    let hash = NetExtraInfo(hash: NetHash(type: .ipv6, algorithm: 1, value: 9))
    fixture.place([.init(0, 0, 60), .init(1, 0, 60)], extras: [hash])
    fixture.place([.init(0, 0, 60), .init(1, 0, 0)], extras: [hash, hash])
    fixture.place([.init(0, 0, 5)], extras: [hash])
    fixture.place([.init(2, 0, 60)])
    #expect(
      try fixture.settle() == [.okay, .null, .okay, .okay, .null, .null, .okay, .error, .null, .okay])
    fixture.expectNothingLeft()
  }

  /// Only what the frontend asks of one by one: the offload's own rules are not the engine's.
  @Test func trap20_segmentsHaveASizeAndAProtocol() throws {
    for type: UInt8 in [0, 3, 4, 255] {
      let fixture = try TxFixture()
      let extra = NetExtraInfo(segmentation: NetSegmentationType(rawValue: type), size: 1448)
      fixture.place([.init(0, 0, 2000)], extras: [extra])
      try fixture.expectBroken(.segmentationType(type))
    }
    let good = NetExtraInfo(segmentation: .tcpIPv6, size: 1448)
    let bad = NetExtraInfo(segmentation: .tcpIPv6, size: 0)
    let fixture = try TxFixture()
    fixture.place([.init(0, 0, 2000)], extras: [bad, good])
    // Whether such bytes can be segmented is not asked here.
    #expect(try fixture.settle()[1...] == [.null, .null] && fixture.world.lastTurn == .idle)
    fixture.place([.init(0, 0, 2000)], extras: [good, bad])
    try fixture.expectBroken(.noSegmentSize)
  }

  /// Who may send from where is the bridge's business: Qubes gives both ends the same address.
  @Test func trap22_addressesAreNotFiltered() throws {
    let fixture = try TxFixture()
    var sent: [[UInt8]] = []
    let addresses: [[UInt8]] = [
      [0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF], [0, 0, 0, 0, 0, 0], [1, 0x80, 0xC2, 0, 0, 0],
      [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF],
    ]
    for (page, address) in addresses.enumerated() {
      let frame = address + address + [8, 0] + [UInt8](repeating: UInt8(page), count: 46)
      fixture.world.guest.memory.setBytes(frame, at: page * 4096)
      fixture.place([.init(page, 0, 60)])
      sent.append(frame)
    }
    #expect(try fixture.settle() == [.okay, .okay, .okay, .okay])
    #expect(fixture.frames == sent)
  }

  /// What a fault is called, so that who reads the log knows whose fault it is and what ends it.
  @Test func faultsAreToldInWords() {
    let faults: [NetFault] = [
      .unfinishedPacket(slots: 3), .missingExtraInfo, .extraInfoType(9), .tooManySlots(129), .noSegmentSize,
      .crossesPage(offset: 4000, byteCount: 100), .segmentationType(7),
      .ring(.producerOverflow(producer: 1, consumer: 2, slots: 256)),
    ]
    for fault in faults {
      #expect("\(fault)".contains("front") && "\(fault)".hasSuffix("until the frontend reconnects"))
    }
    #expect("\(NetFault.crossesPage(offset: 4000, byteCount: 100))".contains("100 bytes at offset 4000"))
  }
}
