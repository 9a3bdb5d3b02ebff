import Netback
import RingKit
import Testing

@testable import Frontends

/// What a frontend puts into transmit slots, and what it makes of the answers (netif.h; net.md 1.3;
/// xen-netfront.c, xennet_start_xmit and xennet_tx_buf_gc).
@Suite struct NetFrontendTransmitTests {
  @Test func aSmallFrameIsOneSlot() throws {
    var bench = try NetTransmitBench()
    let frame = netFrame(60)
    #expect(try bench.transmitter.place(frame, NetTransmission(flags: .dataValidated, tag: 9)))
    let slots = try bench.take()
    try #require(slots.count == 1)
    let request = NetTxRequest(slots[0])
    #expect(request.flags == .dataValidated)
    #expect(request.size == 60 && request.offset == 0)
    #expect(request.reference.rawValue == 1000)
    #expect(bench.bytes(request, count: 60) == frame)
    #expect(bench.transmitter.freePageCount == 255)
    bench.answer(request.id)
    let completion = try #require(try bench.transmitter.nextCompletion())
    #expect(completion.tag == 9 && completion.status == .okay && completion.slotCount == 1)
    #expect(try bench.transmitter.nextCompletion() == nil)
    #expect(bench.transmitter.freePageCount == 256)
    #expect(bench.transmitter.packetCount == 1)
  }

  /// The first slot's size is the packet's, the others have their own; extra infos stand behind the first.
  @Test func aLargeFrameIsFramedAsTheHeaderSays() throws {
    var bench = try NetTransmitBench()
    let frame = netFrame(9000)
    var offload = PacketOffload()
    offload.checksum = .partial
    offload.segmentation = .tcpIPv6
    offload.segmentSize = 1440
    offload.hash = NetHash(type: .ipv6TCP, algorithm: 1, value: 0x0102_0304)
    let cut = NetSlotCut([
      .init(offset: 4000, byteCount: 20), .init(offset: 1, byteCount: 4095),
      .init(offset: 0, byteCount: 4096),
      .init(offset: 77, byteCount: 0), .init(offset: 3000, byteCount: 789),
    ])
    #expect(try bench.transmitter.place(frame, NetTransmission(offload, tag: 1), cut: cut))
    let slots = try bench.take()
    try #require(slots.count == 7)
    let requests = [0, 3, 4, 5, 6].map { NetTxRequest(slots[$0]) }
    #expect(requests.map(\.size) == [9000, 4095, 4096, 0, 789])
    #expect(requests.map(\.offset) == [4000, 1, 0, 77, 3000])
    #expect(requests[0].flags == [.checksumBlank, .dataValidated, .extraInfo, .moreData])
    #expect(requests.dropFirst().map(\.flags) == [.moreData, .moreData, .moreData, []])
    let extras = [1, 2].map { NetExtraInfo(slots[$0]) }
    #expect(extras[0].type == .segmentation && extras[0].hasMore)
    #expect(extras[0].segmentSize == 1440 && extras[0].segmentationType == .tcpIPv6)
    #expect(extras[1].hash == offload.hash && !extras[1].hasMore)
    let sizes = [20, 4095, 4096, 0, 789]
    #expect(zip(requests, sizes).flatMap { bench.bytes($0, count: $1) } == frame)
    #expect(Set(requests.map(\.id)).count == 5)

    // Nothing is over before the last slot is answered, in whatever order.
    for (position, id) in requests.map(\.id).reversed().enumerated() {
      #expect(try bench.transmitter.nextCompletion() == nil)
      bench.answer(id, position == 2 ? .dropped : .okay)
    }
    let completion = try #require(try bench.transmitter.nextCompletion())
    #expect(completion.status == .dropped && completion.slotCount == 5)
    for _ in 0..<2 { bench.answer(0, .null) }
    #expect(try bench.transmitter.nextCompletion() == nil)
    #expect(bench.transmitter.freePageCount == 256 && bench.transmitter.freeSlotCount == 256)
    #expect(bench.transmitter.failedPacketCount == 1)
  }

  @Test func checksumsAreToldInTheBitsOfThisDirection() {
    var offload = PacketOffload()
    #expect(NetTransmission(offload).flags == [])
    offload.checksum = .validated
    #expect(NetTransmission(offload).flags.rawValue == 2)
    offload.checksum = .partial
    #expect(NetTransmission(offload).flags.rawValue == 3)
    #expect(NetTransmission(offload).segmentation == nil)
  }

  @Test func pagesThatWereFilledBeforeArePlaced() throws {
    var bench = try NetTransmitBench(pages: 20)
    let frame = netFrame(8200)
    for (position, range) in [0..<4082, 4082..<8178, 8178..<8200].enumerated() {
      let offset = position == 0 ? 14 : 0
      let segment = try #require(bench.transmitter.freeSegment(position, offset: offset))
      #expect(segment.length == UInt(4096 - offset))
      let part = Array(frame[range])
      // Sound: the bytes of a local array, for the call.
      bench.transmitter.fill(position, offset: offset, from: unsafe part.span.bytes)
    }
    #expect(try bench.transmitter.place(byteCount: 8200, firstOffset: 14, NetTransmission()))
    let requests = try bench.take().map(NetTxRequest.init)
    #expect(requests.map(\.size) == [8200, 4096, 22])
    #expect(requests.map(\.offset) == [14, 0, 0])
    #expect(zip(requests, [4082, 4096, 22]).flatMap { bench.bytes($0, count: $1) } == frame)
    #expect(bench.transmitter.freeSegment(16) != nil)
    #expect(bench.transmitter.freeSegment(17) == nil)
  }

  @Test func whatDoesNotFitWaits() throws {
    var bench = try NetTransmitBench()
    let large = netFrame(65535)
    var placed = 0
    while try bench.transmitter.place(large, NetTransmission()) { placed += 1 }
    #expect(placed == 16)
    // 256 slots of 16 are all taken; nothing was placed in part.
    #expect(bench.transmitter.freeSlotCount == 0 && !bench.transmitter.hasRoom)
    #expect(try !bench.transmitter.place(netFrame(14), NetTransmission()))
    #expect(!bench.transmitter.placeRaw(SlotCopy()))
    let requests = try bench.take().map(NetTxRequest.init)
    for request in requests[0..<16] { bench.answer(request.id) }
    #expect(try bench.transmitter.reap() == 1)
    // 16 slots are free, and a packet with an extra info needs 17.
    let segmentation = NetExtraInfo(segmentation: .tcpIPv4, size: 1448)
    #expect(try !bench.transmitter.place(large, NetTransmission(segmentation: segmentation)))
    #expect(try bench.transmitter.place(large, NetTransmission()))
  }

  @Test func fewPagesBoundWhatIsInFlight() throws {
    let bench = try NetTransmitBench(pages: 18)
    #expect(bench.transmitter.hasRoom)
    #expect(try bench.transmitter.place(netFrame(14), NetTransmission()))
    #expect(!bench.transmitter.hasRoom)
    #expect(try !bench.transmitter.place(netFrame(18), cut: slots(18)))
    #expect(bench.transmitter.freePageCount == 17)
  }

  private func slots(_ count: Int) -> NetSlotCut {
    NetSlotCut((0..<count).map { _ in .init(offset: 0, byteCount: 1) })
  }

  @Test func aMulticastRequestHasNoPage() throws {
    var bench = try NetTransmitBench()
    let address = try #require(EthernetAddress("33:33:00:00:00:01"))
    #expect(try bench.transmitter.placeMulticast(address, isAdded: true, tag: 5))
    #expect(try bench.transmitter.placeMulticast(address, isAdded: false, tag: 6))
    let slots = try bench.take()
    try #require(slots.count == 4)
    let request = NetTxRequest(slots[0])
    #expect(request.reference.rawValue == 0 && request.size == 0 && request.flags == .extraInfo)
    #expect(NetExtraInfo(slots[1]) == NetExtraInfo(multicast: address, isAdded: true))
    #expect(NetExtraInfo(slots[3]).type == .multicastDelete)
    #expect(bench.transmitter.freePageCount == 256)
    bench.answer(request.id)
    bench.answer(0xFFFF, .null)
    bench.answer(NetTxRequest(slots[2]).id, .error)
    bench.answer(0, .null)
    #expect(
      try bench.transmitter.nextCompletion() == NetTransmitCompletion(tag: 5, status: .okay, slotCount: 1))
    #expect(
      try bench.transmitter.nextCompletion() == NetTransmitCompletion(tag: 6, status: .error, slotCount: 1))
    #expect(bench.transmitter.freePageCount == 256)
  }

  @Test func rawSlotsAreReportedWithoutATag() throws {
    var bench = try NetTransmitBench()
    let raw = NetTxRequest(
      reference: GrantReference(rawValue: 99), offset: 4095, flags: NetTxFlags(rawValue: 0xFFF0), id: 0xBEEF,
      size: 2)
    #expect(bench.transmitter.placeRaw(raw.encode()))
    #expect(NetTxRequest(try #require(try bench.take().first)) == raw)
    bench.answer(0xBEEF, .error)
    #expect(
      try bench.transmitter.nextCompletion() == NetTransmitCompletion(tag: nil, status: .error, slotCount: 1))
    // It was the only one.
    #expect(bench.transmitter.placeRaw(raw.encode()))
    _ = try bench.take()
    bench.answer(0xBEEF)
    _ = try bench.transmitter.nextCompletion()
    #expect(try bench.transmitter.place(netFrame(60)))
    _ = try bench.take()
    bench.answer(0xBEEF)
    #expect(
      bench.violation() == .transmitIDOutOfRange(NetTxResponse(id: 0xBEEF, status: .okay)))
  }

  // MARK: Violations

  @Test func trap5_anIDThatNoRequestCanHaveDisablesTheRing() throws {
    for id in [UInt16(256), 0xFFFF] {
      var bench = try NetTransmitBench()
      #expect(try bench.transmitter.place(netFrame(60)))
      _ = try bench.take()
      bench.answer(id)
      #expect(bench.violation() == .transmitIDOutOfRange(NetTxResponse(id: id, status: .okay)))
      // For good, and for sending too.
      #expect(bench.violation() != nil)
      #expect(throws: NetFrontendError.self) { try bench.transmitter.place(netFrame(60)) }
      #expect(throws: NetFrontendError.self) { try bench.transmitter.requestEvent() }
    }
  }

  @Test func trap5_anIDThatIsNotInUseDisablesTheRing() throws {
    var bench = try NetTransmitBench()
    #expect(try bench.transmitter.place(netFrame(60)))
    let id = NetTxRequest(try #require(try bench.take().first)).id
    let other: UInt16 = id == 0 ? 1 : 0
    bench.answer(other)
    #expect(bench.violation() == .transmitIDNotInUse(NetTxResponse(id: other, status: .okay)))
  }

  @Test func trap5_aSecondAnswerDisablesTheRing() throws {
    var bench = try NetTransmitBench()
    for _ in 0..<2 { #expect(try bench.transmitter.place(netFrame(60))) }
    let ids = try bench.take().map { NetTxRequest($0).id }
    bench.answer(ids[0])
    bench.answer(ids[0])
    #expect(try bench.transmitter.nextCompletion()?.status == .okay)
    #expect(bench.violation() == .transmitIDNotInUse(NetTxResponse(id: ids[0], status: .okay)))
  }

  @Test func trap5_aProducerBeyondTheRequestsDisablesTheRing() throws {
    for (producer, isBehind) in [(UInt32(0xFFFF_FFF3), false), (0xFFFF_FFEF, true), (0x1234, false)] {
      var bench = try NetTransmitBench()
      for _ in 0..<2 { #expect(try bench.transmitter.place(netFrame(60))) }
      _ = try bench.take()
      bench.transmitter.ringPages.pages.setWord(producer, at: RingGeometry.responseProducerOffset)
      guard case .ring(let error) = bench.violation() else {
        Issue.record("producer \(producer) was taken")
        continue
      }
      if case .producerBehind = error { #expect(isBehind) } else { #expect(!isBehind) }
    }
  }

  @Test func trap14_aNullForADataSlotDisablesTheRing() throws {
    var bench = try NetTransmitBench()
    let segmentation = NetExtraInfo(segmentation: .tcpIPv4, size: 1448)
    #expect(try bench.transmitter.place(netFrame(3000), NetTransmission(segmentation: segmentation)))
    let id = NetTxRequest(try #require(try bench.take().first)).id
    bench.answer(id, .null)
    #expect(try bench.transmitter.nextCompletion() == nil)
    bench.answer(id, .null)
    #expect(bench.violation() == .unexpectedNull(NetTxResponse(id: id, status: .null)))
  }

  @Test(arguments: [Int16(2), -3, .max, .min]) func aStatusThatDoesNotExistDisablesTheRing(status: Int16)
    throws
  {
    var bench = try NetTransmitBench()
    #expect(try bench.transmitter.place(netFrame(60)))
    let id = NetTxRequest(try #require(try bench.take().first)).id
    let response = NetTxResponse(id: id, status: NetStatus(rawValue: status))
    bench.answer(id, response.status)
    #expect(bench.violation() == .unknownStatus(response))
  }

  // MARK: Cuts

  @Test func randomCutsKeepTheRules() {
    var generator = SeededGenerator(seed: 7)
    var most = 0
    for round in 0..<4000 {
      let count = round < 600 ? round : Int.random(in: 0...65535, using: &generator)
      let cut = NetSlotCut.random(byteCount: count, allowsEmpty: round % 2 == 0, using: &generator)
      #expect(cut.pieces.reduce(0) { $0 + $1.byteCount } == count)
      #expect(cut.pieces.count <= 18)
      #expect(cut.pieces[0].byteCount >= min(14, count))
      if round % 2 == 1, count > 0 { #expect(cut.pieces.allSatisfy { $0.byteCount > 0 }) }
      most = max(most, cut.pieces.count)
    }
    #expect(most == 18)
    #expect(NetSlotCut.pages(byteCount: 4097, firstOffset: 4090).pieces.map(\.byteCount) == [6, 4091])
    #expect(NetSlotCut.pages(byteCount: 0).pieces.map(\.byteCount) == [0])
  }

  /// Thousands of packets of any shape, answered in any order, through a ring whose counters wrap.
  @Test func everyPacketIsAnsweredOnce() throws {
    var generator = SeededGenerator(seed: 11)
    var bench = try NetTransmitBench()
    var waiting: [UInt16] = []
    var nulls = 0
    var sent: UInt64 = 0
    var done = Set<UInt64>()
    let whole = netFrame(9000)
    while done.count < 3000 {
      let count = Int.random(in: 14...9000, using: &generator)
      let extra = Bool.random(using: &generator)
      let transmission = NetTransmission(
        segmentation: extra ? NetExtraInfo(segmentation: .tcpIPv4, size: 1) : nil, tag: sent)
      let cut = NetSlotCut.random(byteCount: count, allowsEmpty: true, using: &generator)
      if sent < 3000, try bench.transmitter.place(Array(whole[..<count]), transmission, cut: cut) {
        sent += 1
        let slots = try bench.take()
        #expect(slots.count == cut.pieces.count + (extra ? 1 : 0))
        for (index, slot) in slots.enumerated() {
          if extra, index == 1 { nulls += 1 } else { waiting.append(NetTxRequest(slot).id) }
        }
        continue
      }
      waiting.shuffle(using: &generator)
      for id in waiting.suffix(100) { bench.answer(id) }
      waiting.removeLast(min(100, waiting.count))
      for _ in 0..<nulls { bench.answer(UInt16.random(in: 0...UInt16.max, using: &generator), .null) }
      nulls = 0
      while let completion = try bench.transmitter.nextCompletion() {
        #expect(completion.status == .okay)
        #expect(done.insert(try #require(completion.tag)).inserted)
      }
    }
    #expect(bench.transmitter.outstanding == 0 && bench.transmitter.freePageCount == 256)
  }
}
