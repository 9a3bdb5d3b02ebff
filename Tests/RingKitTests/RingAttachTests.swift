import RingKit
import Testing

/// Where a backend begins: at zero, at the page's `rsp_prod`, or where another process stood.
struct RingAttachTests {
  static func pages(requestProducer: UInt32, responseProducer: UInt32) throws -> MappedPages {
    let pages = try MappedPages.anonymous(pageCount: 1)
    pages.setWord(requestProducer, at: 0)
    pages.setWord(responseProducer, at: 8)
    return pages
  }

  static func position(_ consumer: UInt32, _ published: UInt32, _ written: UInt32) -> RingPosition {
    RingPosition(requestConsumer: consumer, responseProducer: published, responseProducerPrivate: written)
  }

  /// BACK_RING_INIT: counters at 0, whatever `rsp_prod` says; requests that already wait are seen.
  @Test func freshRingBeginsAtZero() throws {
    let pages = try Self.pages(requestProducer: 32, responseProducer: 77)
    let back = try BackRing(pages: pages, slotByteCount: 112)
    #expect(back.position == Self.position(0, 0, 0))
    #expect(back.unconsumed == 32)
    #expect(back.slotCount == 32)
    #expect(back.slotByteCount == 112)
  }

  @Test func freshRingRefusesOverflow() throws {
    let pages = try Self.pages(requestProducer: 33, responseProducer: 33)
    #expect(throws: RingError.producerOverflow(producer: 33, consumer: 0, slots: 32)) {
      _ = try BackRing(pages: pages, slotByteCount: 112)
    }
  }

  /// BACK_RING_ATTACH at `rsp_prod`, up to a full ring of requests and no further.
  @Test(
    arguments: [0, 5, 0xFFFF_FFF0, 0xFFFF_FFFF] as [UInt32],
    [0, 1, 32, 33, 0x8000_0000, 0xFFFF_FFFF] as [UInt32])
  func attachesAtTheResponseProducer(responses: UInt32, requests: UInt32) throws {
    let pages = try Self.pages(requestProducer: responses &+ requests, responseProducer: responses)
    if requests <= 32 {
      let back = try BackRing(attaching: pages, slotByteCount: 108)
      #expect(back.position == Self.position(responses, responses, responses))
      #expect(back.unconsumed == Int(requests))
    } else {
      let fault = RingError.producerOverflow(
        producer: responses &+ requests, consumer: responses, slots: 32)
      #expect(throws: fault) { _ = try BackRing(attaching: pages, slotByteCount: 108) }
    }
  }

  /// A second process goes on at the first one's position: nothing is taken twice, and what is unanswered can
  /// be answered, across the wrap.
  @Test func resumesWhereAnotherStood() throws {
    let start: UInt32 = 0xFFFF_FFF8
    let pages = try MappedPages.anonymous(pageCount: 1)
    var front = FrontRing(pages: pages, slotByteCount: 112, startingAt: start)
    for number in 0..<20 { front.place(SlotCopy(seed: number, byteCount: 112)) }
    _ = front.push()
    let saved: RingPosition
    do {
      var first = try BackRing(attaching: pages, slotByteCount: 112)
      for _ in 0..<12 { #expect(first.nextRequest() != nil) }
      for number in 0..<5 { first.respond(SlotCopy(seed: 100 + number, byteCount: 16), byteCount: 16) }
      _ = first.publish()
      saved = first.position
    }
    #expect(saved == Self.position(start &+ 12, start &+ 5, start &+ 5))
    var second = try BackRing(pages: pages, slotByteCount: 112, resumingAt: saved)
    #expect(second.position == saved)
    #expect(second.unanswered == 7)
    #expect(second.unconsumed == 8)
    for number in 12..<20 {
      #expect(second.nextRequest() == SlotCopy(seed: number, byteCount: 112).bytes(count: 112))
    }
    for number in 5..<20 { second.respond(SlotCopy(seed: 100 + number, byteCount: 16), byteCount: 16) }
    _ = second.publish()
    #expect(try front.refreshResponses() == 20)
    for number in 0..<20 {
      let expected = SlotCopy(seed: 100 + number, byteCount: 16).bytes(count: 16)
      #expect(front.nextResponse(byteCount: 16) == expected)
    }
  }

  /// Positions that no backend can have stood at, and producers that contradict a possible one.
  @Test func refusesImpossiblePositions() throws {
    let pages = try Self.pages(requestProducer: 40, responseProducer: 0)
    for position in [
      Self.position(33, 0, 0), Self.position(0, 1, 1), Self.position(5, 0, 6), Self.position(40, 6, 40),
      Self.position(40, 41, 40),
    ] {
      #expect(throws: RingError.impossiblePosition(position, slots: 32)) {
        _ = try BackRing(pages: pages, slotByteCount: 112, resumingAt: position)
      }
    }
    #expect(throws: RingError.producerBehind(producer: 40, consumer: 41, slots: 32)) {
      _ = try BackRing(pages: pages, slotByteCount: 112, resumingAt: Self.position(41, 20, 20))
    }
    #expect(throws: RingError.producerOverflow(producer: 40, consumer: 7, slots: 32)) {
      _ = try BackRing(pages: pages, slotByteCount: 112, resumingAt: Self.position(7, 7, 7))
    }
    let full = try BackRing(pages: pages, slotByteCount: 112, resumingAt: Self.position(8, 8, 8))
    #expect(full.unconsumed == 32)
  }

  /// Messages name the indices and say what ends the trouble.
  @Test func errorsExplainThemselves() {
    let position = Self.position(1, 2, 3)
    let messages = [
      RingError.producerOverflow(producer: 70, consumer: 7, slots: 32).description: ["70", "7", "32"],
      RingError.producerBehind(producer: 6, consumer: 7, slots: 32).description: ["6", "7", "32"],
      RingError.unrequestedResponses(producer: 70, consumer: 7, outstanding: 3).description: [
        "70", "7", "3",
      ],
      RingError.impossiblePosition(position, slots: 32).description: ["req_cons 1", "rsp_prod 2", "32"],
    ]
    for (message, parts) in messages {
      #expect(message.contains("reconnect"))
      for part in parts { #expect(message.contains(part)) }
    }
  }
}
