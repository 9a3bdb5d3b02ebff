import RingKit
import Testing

/// No lost wake-up: whenever the other side publishes around our final check, either the check sees the
/// message or the other side learns that an event is due.
///
/// The other side publishes in two steps, "store the producer" and "read the event word"; each may fall
/// before the check, after any of its accesses to the page, or after it.
struct RingWakeupTests {
  static let starts: [UInt32] = [0, 0xFFFF_FFFE, 0xFFFF_FFFF, 0x7FFF_FFFF]

  /// A publisher made of plain words, so that its two steps can be set apart.
  struct Publisher {
    let pages: MappedPages
    let producerOffset: Int
    let eventOffset: Int
    let old: UInt32
    let count: UInt32
    /// Whether an event was due, once that was looked at.
    var notifies: Bool?

    init(_ pages: MappedPages, producerOffset: Int, eventOffset: Int, old: UInt32, count: UInt32) {
      self.pages = pages
      self.producerOffset = producerOffset
      self.eventOffset = eventOffset
      self.old = old
      self.count = count
    }

    mutating func act(at point: Int, storeAt: Int, readAt: Int) {
      if point == storeAt { pages.setWord(old &+ count, at: producerOffset) }
      if point == readAt {
        let event = pages.word(at: eventOffset)
        notifies = (1...count).contains { old &+ $0 == event }
      }
    }
  }

  /// Points in time: 0 before the check, 1...3 after its accesses, 4 after it.
  static let orders = (0...4).flatMap { store in (store...4).map { (store, $0) } }

  @Test(arguments: starts, orders)
  func backendHearsOfEveryRequest(start: UInt32, order: (store: Int, read: Int)) throws {
    // The event word may be stale in any way when the check begins.
    for stale in [start &- 5, start, start &+ 1, start &+ 2, start &+ 9] {
      for count in 1...3 as ClosedRange<UInt32> {
        let pages = try MappedPages.anonymous(pageCount: 1)
        _ = FrontRing(pages: pages, slotByteCount: 112, startingAt: start)
        var back = try BackRing(attaching: pages, slotByteCount: 112)
        pages.setWord(stale, at: 4)
        var frontend = Publisher(pages, producerOffset: 0, eventOffset: 4, old: start, count: count)
        var point = 0
        frontend.act(at: point, storeAt: order.store, readAt: order.read)
        let seen = try back.finalCheck(afterEachAccess: {
          point += 1
          frontend.act(at: point, storeAt: order.store, readAt: order.read)
        })
        // A check that saw work at once has fewer accesses; the rest of the publisher comes after it.
        while point < 4 {
          point += 1
          frontend.act(at: point, storeAt: order.store, readAt: order.read)
        }
        let notifies = try #require(frontend.notifies as Bool?)
        #expect(seen || notifies, "stale event \(stale), \(count) requests")
        if order.store == 4 { #expect(!seen) }
        if order.store <= 2 { #expect(seen && back.unconsumed == count) }
      }
    }
  }

  @Test(arguments: starts, orders)
  func frontendHearsOfEveryResponse(start: UInt32, order: (store: Int, read: Int)) throws {
    for stale in [start &- 5, start, start &+ 1, start &+ 2, start &+ 9] {
      for count in 1...3 as ClosedRange<UInt32> {
        let pages = try MappedPages.anonymous(pageCount: 1)
        var front = FrontRing(pages: pages, slotByteCount: 112, startingAt: start)
        for _ in 0..<3 { front.place(SlotCopy()) }
        _ = front.push()
        pages.setWord(stale, at: 12)
        var backend = Publisher(pages, producerOffset: 8, eventOffset: 12, old: start, count: count)
        var point = 0
        backend.act(at: point, storeAt: order.store, readAt: order.read)
        let seen = try front.finalCheckResponses(afterEachAccess: {
          point += 1
          backend.act(at: point, storeAt: order.store, readAt: order.read)
        })
        while point < 4 {
          point += 1
          backend.act(at: point, storeAt: order.store, readAt: order.read)
        }
        let notifies = try #require(backend.notifies as Bool?)
        #expect(seen || notifies, "stale event \(stale), \(count) responses")
        if order.store == 4 { #expect(!seen) }
        if order.store <= 2 { #expect(seen && front.unconsumed == count) }
      }
    }
  }

  /// The same with our own frontend as the publisher, the whole check falling inside its push and the other
  /// way round.
  @Test(arguments: starts, 0...4)
  func bothEndsOfOurs(start: UInt32, point: Int) throws {
    let pages = try MappedPages.anonymous(pageCount: 1)
    var front = FrontRing(pages: pages, slotByteCount: 112, startingAt: start)
    var back = try BackRing(attaching: pages, slotByteCount: 112)
    front.place(SlotCopy())
    var notifies = false
    var access = 0
    if point == 0 { notifies = front.push() }
    var seen = try back.finalCheck(afterEachAccess: {
      access += 1
      if access == point { notifies = front.push() }
    })
    if point == 4 { notifies = front.push() }
    #expect(seen || notifies)

    front.place(SlotCopy())
    _ = try back.refresh()
    while back.nextRequest() != nil {}
    var count = 0
    notifies = front.push(afterEachAccess: {
      count += 1
      guard count == 1 else { return }
      do { seen = try back.finalCheck() } catch { Issue.record(error) }
    })
    #expect(count == 2)
    #expect(seen)

    _ = try back.refresh()
    while back.nextRequest() != nil { back.respond(SlotCopy(), byteCount: 16) }
    count = 0
    notifies = back.publish(afterEachAccess: {
      count += 1
      guard count == 1 else { return }
      do { seen = try front.finalCheckResponses() } catch { Issue.record(error) }
    })
    #expect(count == 2)
    #expect(seen)
  }

  /// The check that finds nothing asks for the very next request; one that finds work asks for none (ring.h).
  @Test func finalCheckWritesTheEventOnlyWhenIdle() throws {
    let pages = try MappedPages.anonymous(pageCount: 1)
    var front = FrontRing(pages: pages, slotByteCount: 112, startingAt: 0xFFFF_FFFE)
    var back = try BackRing(attaching: pages, slotByteCount: 112)
    for _ in 0..<3 { front.place(SlotCopy()) }
    let due = front.push()
    #expect(due)
    #expect(try back.finalCheck())
    #expect(pages.word(at: 4) == 0xFFFF_FFFF)
    while back.nextRequest() != nil {}
    #expect(try !back.finalCheck())
    #expect(pages.word(at: 4) == 2)
  }
}
