import RingKit
import Testing

/// The frontend's end: what it formats, and what it believes of a backend.
struct RingFrontTests {
  static let start: UInt32 = 0xFFFF_FFF0

  /// A ring on which 20 requests were pushed, 2 more placed, and 5 of 9 responses taken: 32 slots, wrapped
  /// counters.
  static func midLife(_ pages: MappedPages) throws -> FrontRing {
    var front = FrontRing(pages: pages, slotByteCount: 112, startingAt: start)
    for number in 0..<20 { front.place(SlotCopy(seed: number, byteCount: 112)) }
    _ = front.push()
    for number in 0..<2 { front.place(SlotCopy(seed: number, byteCount: 112)) }
    pages.setWord(start &+ 9, at: 8)
    #expect(try front.refreshResponses() == 9)
    for _ in 0..<5 { #expect(front.nextResponse(byteCount: 16) != nil) }
    return front
  }

  /// SHARED_RING_INIT: producers, events one past them, 48 zeroes; slots are left alone.
  @Test(arguments: [0, 0xFFFF_FFFF] as [UInt32])
  func formatsTheHeader(start: UInt32) throws {
    let pages = try MappedPages.anonymous(pageCount: 2)
    pages.fill(0xA5)
    let front = FrontRing(pages: pages, slotByteCount: 112, startingAt: start)
    #expect(pages.word(at: 0) == start)
    #expect(pages.word(at: 4) == start &+ 1)
    #expect(pages.word(at: 8) == start)
    #expect(pages.word(at: 12) == start &+ 1)
    #expect(pages.bytes(at: 16, count: 48) == [UInt8](repeating: 0, count: 48))
    #expect(pages.bytes(at: 64, count: 8128) == [UInt8](repeating: 0xA5, count: 8128))
    #expect(front.slotCount == 64)
    #expect(front.slotByteCount == 112)
    #expect(front.freeSlotCount == 64)
    #expect(front.outstanding == 0)
  }

  /// A request changes its own slot and, when pushed, `req_prod`: nothing else.
  @Test(arguments: [108, 112, 12, 8, 16])
  func requestsChangeTheirOwnSlotOnly(slotByteCount: Int) throws {
    let pages = try MappedPages.anonymous(pageCount: 1)
    pages.fill(0xA5)
    let geometry = RingGeometry(pageCount: 1, slotByteCount: slotByteCount)
    var front = FrontRing(pages: pages, slotByteCount: slotByteCount, startingAt: Self.start)
    var expected = pages.allBytes()
    for number in 0..<geometry.slotCount {
      let request = SlotCopy(seed: number, byteCount: 128)
      front.place(request)
      let offset = geometry.slotOffset(at: Self.start &+ UInt32(number))
      expected.replaceSubrange(offset..<(offset + slotByteCount), with: request.bytes(count: slotByteCount))
    }
    #expect(front.freeSlotCount == 0)
    #expect(pages.allBytes() == expected)
    _ = front.push()
    pages.setWord(Self.start, at: 0)
    #expect(pages.allBytes() == expected)
  }

  /// Offsets of `rsp_prod` from the response consumer, where 15 requests are outstanding, and the verdict of
  /// each.
  @Test(
    arguments: [
      (0, nil), (4, nil), (15, nil),
      (16, "overflow"), (17, "overflow"), (32, "overflow"), (33, "overflow"), (1 << 31, "overflow"),
      (-1, "behind"), (-32, "behind"), (-33, "overflow"),
    ] as [(Int, String?)])
  func judgesProducers(offset: Int, expected: String?) throws {
    let pages = try MappedPages.anonymous(pageCount: 1)
    var front = try Self.midLife(pages)
    #expect(front.outstanding == 15)
    #expect(front.freeSlotCount == 15)
    let consumer = Self.start &+ 5
    let producer = consumer &+ UInt32(truncatingIfNeeded: offset)
    pages.setWord(producer, at: 8)
    let fault: RingError? =
      switch expected {
      case nil: nil
      case "behind": .producerBehind(producer: producer, consumer: consumer, slots: 32)
      default: .unrequestedResponses(producer: producer, consumer: consumer, outstanding: 15)
      }
    guard let fault else {
      #expect(try front.refreshResponses() == offset)
      #expect(front.fault == nil)
      return
    }
    #expect(throws: fault) { try front.refreshResponses() }
    #expect(front.fault == fault)
    pages.setWord(consumer &+ 4, at: 8)
    let before = pages.allBytes()
    #expect(front.unconsumed == 0)
    #expect(front.nextResponse(byteCount: 16) == nil)
    front.place(SlotCopy())
    let notified = front.push()
    #expect(!notified)
    #expect(throws: fault) { try front.refreshResponses() }
    #expect(throws: fault) { try front.finalCheckResponses() }
    #expect(throws: fault) { try front.requestEvent(afterResponses: 2) }
    #expect(pages.allBytes() == before)
  }

  /// `push` is due exactly when one of the new requests is the awaited one, wherever `req_event` stands.
  @Test(arguments: 0..<40 as Range<UInt64>)
  func notifiesOnlyWhenDue(seed: UInt64) throws {
    var numbers = SeededNumbers(seed: seed)
    let pages = try MappedPages.anonymous(pageCount: 1)
    var front = FrontRing(pages: pages, slotByteCount: 8, startingAt: Self.start)
    var back = try BackRing(attaching: pages, slotByteCount: 8)
    var old = Self.start
    for _ in 0..<60 {
      let batch = Int.random(in: 0...9, using: &numbers)
      for _ in 0..<batch { front.place(SlotCopy()) }
      let event = old &+ UInt32.random(in: 0..<20, using: &numbers) &- 6
      pages.setWord(event, at: 4)
      let awaited = (0..<batch).contains { old &+ UInt32($0) &+ 1 == event }
      let notified = front.push()
      #expect(notified == awaited, "batch \(batch) at \(old), event \(event)")
      old &+= UInt32(batch)
      #expect(pages.word(at: 0) == old)
      pages.setWord(old, at: 4)
      let again = front.push()
      #expect(!again)
      _ = try back.refresh()
      while back.nextRequest() != nil { back.respond(SlotCopy(), byteCount: 8) }
      _ = back.publish()
      _ = try front.refreshResponses()
      while front.nextResponse(byteCount: 8) != nil {}
    }
  }

  /// An event asked for after n responses comes with the n-th one and with no other, or the call says that as
  /// many are there.
  @Test(arguments: 1...6, 0...6)
  func eventAfterSeveralResponses(count: Int, early: Int) throws {
    let pages = try MappedPages.anonymous(pageCount: 1)
    var front = FrontRing(pages: pages, slotByteCount: 12, startingAt: 0xFFFF_FFFD)
    for _ in 0..<12 { front.place(SlotCopy()) }
    _ = front.push()
    var back = try BackRing(attaching: pages, slotByteCount: 12)
    while back.nextRequest() != nil {}
    for _ in 0..<early { back.respond(SlotCopy(), byteCount: 4) }
    _ = back.publish()
    #expect(try front.requestEvent(afterResponses: count) == (early >= count))
    #expect(front.unconsumed == early)
    for number in (early + 1)...12 {
      back.respond(SlotCopy(), byteCount: 4)
      let notified = back.publish()
      #expect(notified == (number == count))
    }
  }

  @Test func trapsOnMisuse() async {
    await #expect(processExitsWith: .failure) {
      var front = FrontRing(pages: try .anonymous(pageCount: 1), slotByteCount: 128)
      for _ in 0...front.slotCount { front.place(SlotCopy()) }
    }
    await #expect(processExitsWith: .failure) {
      var front = FrontRing(pages: try .anonymous(pageCount: 1), slotByteCount: 128)
      _ = try front.requestEvent(afterResponses: 0)
    }
    await #expect(processExitsWith: .failure) {
      var front = FrontRing(pages: try .anonymous(pageCount: 1), slotByteCount: 128)
      _ = try front.requestEvent(afterResponses: 17)
    }
  }
}
