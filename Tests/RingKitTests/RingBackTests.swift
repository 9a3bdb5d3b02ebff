import RingKit
import Testing

/// The backend's end against what a frontend can write, and what it writes itself.
struct RingBackTests {
  static let start: UInt32 = 0xFFFF_FFF0

  /// A ring in mid-life on pages where 20 requests came, 17 were taken and 9 of those answered, 7 of them
  /// published: 32 slots, and the counters have wrapped.
  static func midLife(_ pages: MappedPages) throws -> BackRing {
    var front = FrontRing(pages: pages, slotByteCount: 112, startingAt: start)
    var back = try BackRing(attaching: pages, slotByteCount: 112)
    for number in 0..<20 { front.place(SlotCopy(seed: number, byteCount: 112)) }
    _ = front.push()
    #expect(try back.refresh() == 20)
    for _ in 0..<17 { #expect(back.nextRequest() != nil) }
    for number in 0..<9 {
      if number == 7 { _ = back.publish() }
      back.respond(SlotCopy(seed: number, byteCount: 16), byteCount: 16)
    }
    return back
  }

  /// Offsets from the private response producer, where 8 requests are unanswered, and the verdict of each.
  @Test(
    arguments: [
      (8, nil), (11, nil), (32, nil),
      (7, "behind"), (0, "behind"),
      (33, "overflow"), (8 &+ (1 << 31), "overflow"), (-1, "overflow"), (-9, "overflow"),
    ] as [(Int, String?)])
  func judgesProducers(offset: Int, expected: String?) throws {
    let pages = try MappedPages.anonymous(pageCount: 1)
    var back = try Self.midLife(pages)
    let producer = Self.start &+ 9 &+ UInt32(truncatingIfNeeded: offset)
    pages.setWord(producer, at: 0)
    let consumer = Self.start &+ 17
    let fault: RingError? =
      switch expected {
      case nil: nil
      case "behind": .producerBehind(producer: producer, consumer: consumer, slots: 32)
      default: .producerOverflow(producer: producer, consumer: consumer, slots: 32)
      }
    if let fault {
      #expect(throws: fault) { try back.refresh() }
      try expectBroken(&back, pages, fault)
    } else {
      #expect(try back.refresh() == offset - 8)
      #expect(back.fault == nil)
    }
  }

  /// Wild producers of a seeded frontend: refused exactly when they are more than the free slots ahead.
  @Test(arguments: 0..<20 as Range<UInt64>)
  func judgesWildProducers(seed: UInt64) throws {
    var numbers = SeededNumbers(seed: seed)
    let pages = try MappedPages.anonymous(pageCount: 1)
    for _ in 0..<50 {
      var back = try Self.midLife(pages)
      let near = UInt32.random(in: 0..<80, using: &numbers) &- 40
      let producer =
        Bool.random(using: &numbers)
        ? UInt32.random(in: 0...(.max), using: &numbers)
        : Self.start &+ 17 &+ near
      pages.setWord(producer, at: 0)
      let possible = (0...24).contains { Self.start &+ 17 &+ UInt32($0) == producer }
      let found = try? back.refresh()
      #expect((found != nil) == possible, "producer \(producer)")
      #expect((back.fault == nil) == possible)
      if let found { #expect(Self.start &+ 17 &+ UInt32(found) == producer) }
    }
  }

  /// After a fault nothing is read, written or believed again, even if the frontend repairs its page.
  private func expectBroken(_ back: inout BackRing, _ pages: MappedPages, _ fault: RingError) throws {
    #expect(back.fault == fault)
    pages.setWord(Self.start &+ 20, at: 0)
    pages.setWord(back.position.responseProducer &+ 1, at: 12)
    let before = pages.allBytes()
    #expect(back.unconsumed == 0)
    #expect(back.nextRequest() == nil)
    back.respond(SlotCopy(seed: 1, byteCount: 16), byteCount: 16)
    let notified = back.publish()
    #expect(!notified)
    #expect(throws: fault) { try back.refresh() }
    #expect(throws: fault) { try back.finalCheck() }
    #expect(pages.allBytes() == before)
  }

  /// The final check breaks the ring as a refresh does, whichever of its two looks meets the bad producer.
  @Test(arguments: [0, 2])
  func finalCheckJudgesProducers(accesses: Int) throws {
    let pages = try MappedPages.anonymous(pageCount: 1)
    var back = try Self.midLife(pages)
    while back.nextRequest() != nil {}
    let bad = back.position.requestConsumer &+ 1000
    if accesses == 0 { pages.setWord(bad, at: 0) }
    var count = 0
    let fault = RingError.producerOverflow(
      producer: bad, consumer: back.position.requestConsumer, slots: 32)
    #expect(throws: fault) {
      try back.finalCheck(afterEachAccess: {
        count += 1
        if count == accesses { pages.setWord(bad, at: 0) }
      })
    }
    try expectBroken(&back, pages, fault)
  }

  /// A response changes its own bytes and, when published, `rsp_prod`: nothing else in the pages (XSA-216).
  @Test(arguments: [(112, 16), (108, 12), (12, 4), (8, 8), (16, 8), (4, 1)])
  func responsesChangeTheirOwnBytesOnly(slotByteCount: Int, responseByteCount: Int) throws {
    let pages = try MappedPages.anonymous(pageCount: 2)
    pages.fill(0xA5)
    let geometry = RingGeometry(pageCount: 2, slotByteCount: slotByteCount)
    let last = UInt32.max &- 1
    var front = FrontRing(pages: pages, slotByteCount: slotByteCount, startingAt: last)
    var back = try BackRing(attaching: pages, slotByteCount: slotByteCount)
    for number in 0..<4 { front.place(SlotCopy(seed: number, byteCount: slotByteCount)) }
    _ = front.push()
    _ = try back.refresh()
    while back.nextRequest() != nil {}
    var expected = pages.allBytes()
    for number in 0..<4 {
      let response = SlotCopy(seed: ~number, byteCount: 128)
      back.respond(response, byteCount: responseByteCount)
      let offset = geometry.slotOffset(at: last &+ UInt32(number))
      expected.replaceSubrange(
        offset..<(offset + responseByteCount), with: response.bytes(count: responseByteCount))
    }
    #expect(pages.allBytes() == expected)
    _ = back.publish()
    expected.replaceSubrange(8..<12, with: [2, 0, 0, 0])
    #expect(pages.allBytes() == expected)
  }

  /// Reading leaves the pages alone, and what was copied does not follow them.
  @Test func copiesAreIndependent() throws {
    let pages = try MappedPages.anonymous(pageCount: 1)
    var front = FrontRing(pages: pages, slotByteCount: 108, startingAt: Self.start)
    front.place(SlotCopy(seed: 1, byteCount: 108))
    _ = front.push()
    var back = try BackRing(attaching: pages, slotByteCount: 108)
    let before = pages.allBytes()
    var copy = SlotCopy(seed: 9, byteCount: 128)
    #expect(back.unconsumed == 1)
    let taken = back.take(into: &copy)
    #expect(taken)
    #expect(pages.allBytes() == before)
    pages.fill(0xFF)
    let tail = Array(SlotCopy(seed: 9, byteCount: 128).bytes(count: 128).suffix(20))
    #expect(copy.bytes(count: 128) == SlotCopy(seed: 1, byteCount: 108).bytes(count: 108) + tail)
  }

  /// `publish` is due exactly when one of the new responses is the awaited one, wherever `rsp_event` stands.
  @Test(arguments: 0..<40 as Range<UInt64>)
  func notifiesOnlyWhenDue(seed: UInt64) throws {
    var numbers = SeededNumbers(seed: seed)
    let pages = try MappedPages.anonymous(pageCount: 1)
    var front = FrontRing(pages: pages, slotByteCount: 12, startingAt: Self.start)
    var back = try BackRing(attaching: pages, slotByteCount: 12)
    for _ in 0..<60 {
      let batch = Int.random(in: 0...9, using: &numbers)
      for _ in 0..<batch { front.place(SlotCopy()) }
      _ = front.push()
      _ = try back.refresh()
      while back.nextRequest() != nil { back.respond(SlotCopy(), byteCount: 4) }
      let old = back.position.responseProducer
      let event = old &+ UInt32.random(in: 0..<20, using: &numbers) &- 6
      pages.setWord(event, at: 12)
      let awaited = (0..<batch).contains { old &+ UInt32($0) &+ 1 == event }
      let notified = back.publish()
      #expect(notified == awaited, "batch \(batch) at \(old), event \(event)")
      #expect(pages.word(at: 8) == old &+ UInt32(batch))
      // A second call has nothing to publish.
      pages.setWord(old &+ UInt32(batch), at: 12)
      let again = back.publish()
      #expect(!again)
      _ = try front.refreshResponses()
      while front.nextResponse(byteCount: 4) != nil {}
    }
  }

  @Test func trapsOnResponseWithoutRequest() async {
    await #expect(processExitsWith: .failure) {
      var back = try BackRing(pages: try .anonymous(pageCount: 1), slotByteCount: 112)
      back.respond(SlotCopy(), byteCount: 16)
    }
    await #expect(processExitsWith: .failure) {
      let pages = try MappedPages.anonymous(pageCount: 1)
      pages.setWord(1, at: 0)
      var back = try BackRing(pages: pages, slotByteCount: 12)
      _ = back.nextRequest()
      back.respond(SlotCopy(), byteCount: 13)
    }
    await #expect(processExitsWith: .failure) {
      _ = try BackRing(pages: try .anonymous(pageCount: 1), slotByteCount: 132)
    }
  }
}
