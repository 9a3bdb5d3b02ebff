import RingKit
import Testing

/// What both ends do together, over every slot size and order that a protocol uses.
struct RingTests {
  /// Requests go over and responses come back, byte for byte, through several laps and over the counters'
  /// wrap.
  @Test(arguments: [108, 112, 12, 8, 16], 0...4)
  func messagesArriveWhole(slotByteCount: Int, order: Int) throws {
    let pages = try MappedPages.anonymous(pageCount: 1 << order)
    var front = FrontRing(pages: pages, slotByteCount: slotByteCount, startingAt: 0xFFFF_FFF0)
    var back = try BackRing(attaching: pages, slotByteCount: slotByteCount)
    let slots = front.slotCount
    #expect(back.slotCount == slots)
    let responseByteCount = min(slotByteCount, 12)
    var sent = 0
    for batch in [1, slots, slots - 1, 3, slots] {
      #expect(front.freeSlotCount == slots)
      for _ in 0..<batch {
        front.place(SlotCopy(seed: sent, byteCount: slotByteCount))
        sent += 1
      }
      #expect(front.freeSlotCount == slots - batch)
      _ = front.push()
      #expect(try back.refresh() == batch)
      for number in (sent - batch)..<sent {
        let expected = SlotCopy(seed: number, byteCount: slotByteCount).bytes(count: slotByteCount)
        #expect(back.nextRequest() == expected)
      }
      #expect(back.nextRequest() == nil)
      #expect(back.unanswered == batch)
      for number in (sent - batch)..<sent {
        back.respond(SlotCopy(seed: ~number, byteCount: responseByteCount), byteCount: responseByteCount)
      }
      _ = back.publish()
      #expect(try front.refreshResponses() == batch)
      for number in (sent - batch)..<sent {
        let expected = SlotCopy(seed: ~number, byteCount: responseByteCount).bytes(count: responseByteCount)
        #expect(front.nextResponse(byteCount: responseByteCount) == expected)
      }
      #expect(front.nextResponse(byteCount: responseByteCount) == nil)
    }
    #expect(UInt32(truncatingIfNeeded: sent) &+ 0xFFFF_FFF0 == back.position.requestConsumer)
  }
}
