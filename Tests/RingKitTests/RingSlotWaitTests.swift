import RingKit
import Testing

/// Waiting for several requests at once: a receive ring needs a whole packet's slots (net.md 24).
struct RingSlotWaitTests {
  static let starts: [UInt32] = [0, 0xFFFF_FFF0, 0xFFFF_FFFE, 0x7FFF_FFFF]

  /// The event comes with the request that completes the number and with no other, or the check says that as
  /// many are there.
  @Test(arguments: 1...6, 0...6)
  func eventAfterSeveralRequests(count: Int, early: Int) throws {
    for start in Self.starts {
      let pages = try MappedPages.anonymous(pageCount: 1)
      var front = FrontRing(pages: pages, slotByteCount: 8, startingAt: start)
      var back = try BackRing(attaching: pages, slotByteCount: 8)
      // Some were taken and answered before.
      for _ in 0..<3 { front.place(SlotCopy()) }
      _ = front.push()
      _ = try back.refresh()
      while back.nextRequest() != nil { back.respond(SlotCopy(), byteCount: 8) }
      _ = back.publish()
      for _ in 0..<early { front.place(SlotCopy()) }
      _ = front.push()
      #expect(try back.finalCheck(forRequests: count) == (early >= count))
      #expect(back.unconsumed == early)
      guard early < count else { continue }
      for number in (early + 1)...12 {
        front.place(SlotCopy())
        let notified = front.push()
        #expect(notified == (number == count), "request \(number) from \(start)")
      }
    }
  }

  /// However the frontend publishes around the check, it is seen or brings an event; in two steps, and by any
  /// number that completes what is waited for.
  @Test(arguments: starts, RingWakeupTests.orders)
  func backendHearsOfTheLastOne(start: UInt32, order: (store: Int, read: Int)) throws {
    for waiting in 0...2 as ClosedRange<UInt32> {
      for needed in (waiting + 1)...5 {
        for pushed in 1...6 as ClosedRange<UInt32> {
          let pages = try MappedPages.anonymous(pageCount: 1)
          _ = FrontRing(pages: pages, slotByteCount: 8, startingAt: start)
          var back = try BackRing(attaching: pages, slotByteCount: 8)
          pages.setWord(start &+ waiting, at: 0)
          _ = try back.refresh()
          // As an earlier wait for fewer left it.
          pages.setWord(start &+ 1, at: 4)
          var frontend = RingWakeupTests.Publisher(
            pages, producerOffset: 0, eventOffset: 4, old: start &+ waiting, count: pushed)
          var point = 0
          frontend.act(at: point, storeAt: order.store, readAt: order.read)
          let seen = try back.finalCheck(
            forRequests: Int(needed),
            afterEachAccess: {
              point += 1
              frontend.act(at: point, storeAt: order.store, readAt: order.read)
            })
          while point < 4 {
            point += 1
            frontend.act(at: point, storeAt: order.store, readAt: order.read)
          }
          let notifies = try #require(frontend.notifies as Bool?)
          let isComplete = waiting + pushed >= needed
          #expect(!isComplete || seen || notifies, "\(waiting) + \(pushed) for \(needed)")
          #expect(isComplete || !seen)
          // Once it is asked for, the event is for the whole number only.
          if order.read >= 2 { #expect(isComplete || !notifies) }
        }
      }
    }
  }

  /// A check that finds as many writes nothing; one that does not counts from the consumer, so that what is
  /// posted already brings no event.
  @Test func theEventCountsFromTheConsumer() throws {
    let pages = try MappedPages.anonymous(pageCount: 1)
    var front = FrontRing(pages: pages, slotByteCount: 8, startingAt: 0xFFFF_FFFE)
    var back = try BackRing(attaching: pages, slotByteCount: 8)
    for _ in 0..<3 { front.place(SlotCopy()) }
    _ = front.push()
    #expect(try back.finalCheck(forRequests: 3))
    #expect(pages.word(at: 4) == 0xFFFF_FFFF)
    #expect(try !back.finalCheck(forRequests: 5))
    #expect(pages.word(at: 4) == 3)
    _ = back.nextRequest()
    #expect(try !back.finalCheck(forRequests: back.slotCount))
    #expect(pages.word(at: 4) == 0xFFFF_FFFF &+ UInt32(back.slotCount))
  }

  /// A bad producer breaks the ring at either look.
  @Test(arguments: [0, 2])
  func judgesProducers(accesses: Int) throws {
    let pages = try MappedPages.anonymous(pageCount: 1)
    _ = FrontRing(pages: pages, slotByteCount: 8, startingAt: 0xFFFF_FFF0)
    var back = try BackRing(attaching: pages, slotByteCount: 8)
    let bad: UInt32 = 0xFFFF_FFF0 &+ 257
    if accesses == 0 { pages.setWord(bad, at: 0) }
    var count = 0
    let fault = RingError.producerOverflow(producer: bad, consumer: 0xFFFF_FFF0, slots: 256)
    #expect(throws: fault) {
      try back.finalCheck(
        forRequests: 9,
        afterEachAccess: {
          count += 1
          if count == accesses { pages.setWord(bad, at: 0) }
        })
    }
    #expect(back.fault == fault)
    let before = pages.allBytes()
    #expect(throws: fault) { try back.finalCheck(forRequests: 2) }
    #expect(pages.allBytes() == before)
  }

  @Test func trapsOnMisuse() async {
    await #expect(processExitsWith: .failure) {
      var back = try BackRing(pages: try .anonymous(pageCount: 1), slotByteCount: 8)
      _ = try back.finalCheck(forRequests: 0)
    }
    await #expect(processExitsWith: .failure) {
      var back = try BackRing(pages: try .anonymous(pageCount: 1), slotByteCount: 8)
      _ = try back.finalCheck(forRequests: 257)
    }
  }
}
