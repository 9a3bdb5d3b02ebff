import Glibc
import RingKit
import Testing

/// The cache of persistent grants.
@Suite struct GrantCacheTests {
  static let domain = DomainID(rawValue: 3)

  func reference(_ number: UInt32) -> GrantReference { GrantReference(rawValue: number) }

  @Test func aPageIsMappedOnceAndFoundAgain() {
    let grants = CountingGrants()
    var cache = PersistentGrants(domain: Self.domain, capacity: 4)
    let first = cache.page(for: reference(9), using: grants)
    let second = cache.page(for: reference(9), using: grants)
    #expect(first?.segment == second?.segment && first?.handle == second?.handle)
    #expect(first?.segment.length == 4096)
    #expect(first?.segment.address == grants.address(of: 9))
    #expect(grants.mapCount == 1)
    #expect((cache.hitCount, cache.missCount, cache.mappedCount, cache.pinnedCount) == (1, 1, 1, 1))
    for page in [first, second] { cache.unpin(page?.handle ?? 0) }
    #expect((cache.mappedCount, cache.pinnedCount) == (1, 0))
    #expect(grants.live == [9], "an unused page stays mapped")
  }

  @Test func pagesAreMappedWritableFromTheRightDomain() {
    let grants = CountingGrants()
    var cache = PersistentGrants(domain: Self.domain, capacity: 1)
    _ = cache.page(for: reference(1), using: grants)
    #expect(grants.lastDomain == Self.domain)
    #expect(grants.lastAccess == .readWrite)
  }

  @Test func aFailedMapIsNotRemembered() {
    let grants = CountingGrants()
    grants.refused = [5]
    var cache = PersistentGrants(domain: Self.domain, capacity: 2)
    #expect(cache.page(for: reference(5), using: grants) == nil)
    #expect(cache.page(for: reference(5), using: grants) == nil)
    #expect((cache.failureCount, cache.mappedCount) == (2, 0))
    grants.refused = []
    #expect(cache.page(for: reference(5), using: grants) != nil)
  }

  @Test func aFailedMapCostsNoOtherPageItsPlace() {
    let grants = CountingGrants()
    var cache = PersistentGrants(domain: Self.domain, capacity: 1)
    if let page = cache.page(for: reference(1), using: grants) { cache.unpin(page.handle) }
    grants.refused = [2]
    #expect(cache.page(for: reference(2), using: grants) == nil)
    #expect(grants.live == [1])
    #expect(cache.evictionCount == 0)
  }

  @Test func pagesInUseAreNeverUnmapped() {
    let grants = CountingGrants()
    var cache = PersistentGrants(domain: Self.domain, capacity: 3)
    var handles = (1...3).compactMap { cache.page(for: reference($0), using: grants)?.handle }
    #expect(cache.page(for: reference(4), using: grants) == nil)
    #expect(grants.mapCount == 3, "not even tried")
    #expect(cache.removeAll() == 3)
    #expect(cache.purge(unusedSince: .max) == 0)
    #expect(grants.live == [1, 2, 3])
    cache.unpin(handles.remove(at: 1))
    #expect(cache.page(for: reference(4), using: grants) != nil)
    #expect(grants.live == [1, 3, 4], "the only one that nobody used")
    #expect(cache.evictionCount == 1)
  }

  @Test func whatIsUsedAgainOutlivesWhatIsNot() {
    let grants = CountingGrants()
    var cache = PersistentGrants(domain: Self.domain, capacity: 8)
    func use(_ number: UInt32) {
      if let page = cache.page(for: reference(number), using: grants) { cache.unpin(page.handle) }
    }
    for number: UInt32 in 1...8 { use(number) }
    use(100)
    // From here on 5 is used between all others, and must survive every turn of the hand.
    use(5)
    for number: UInt32 in 200..<300 {
      use(number)
      #expect(grants.live.contains(5), "after \(number)")
      use(5)
    }
    #expect(grants.live.count == 8)
    #expect(cache.evictionCount == 101 || cache.evictionCount == 102)
  }

  @Test func purgeTakesWhatWasNotUsedLately() {
    let grants = CountingGrants()
    var cache = PersistentGrants(domain: Self.domain, capacity: 8)
    var kept: UInt32 = 0
    for number: UInt32 in 1...6 {
      cache.clock = UInt64(number) * 10
      if let page = cache.page(for: reference(number), using: grants) {
        if number == 2 { kept = page.handle } else { cache.unpin(page.handle) }
      }
    }
    cache.clock = 70
    if let page = cache.page(for: reference(1), using: grants) { cache.unpin(page.handle) }
    #expect(cache.purge(unusedSince: 40) == 1)
    #expect(grants.live == [1, 2, 4, 5, 6], "2 is in use, 1 was used again")
    #expect(cache.purge(unusedSince: 71, atMost: 2) == 2)
    #expect(grants.live.count == 3)
    cache.unpin(kept)
    #expect(cache.purge(unusedSince: 71) == 3)
    #expect(grants.live == [])
    #expect(cache.mappedCount == 0)
  }

  /// A guest that went quiet has all of its pages back after a minute and a bit, a few at a time.
  @Test(arguments: [0, 1_000_000, 86_400_000_000_000] as [UInt64])
  func idlePagesGoInPieces(start: UInt64) {
    let grants = CountingGrants()
    var cache = PersistentGrants(domain: Self.domain, capacity: 100)
    #expect(cache.purgeIdle(atNanoseconds: start) == nil, "nothing is mapped")
    for number: UInt32 in 1...50 {
      if let page = cache.page(for: reference(number), using: grants), number != 50 {
        cache.unpin(page.handle)
      }
    }
    // Time passes only where the cache asked to be called, as a loop's timer would have it.
    var (now, pieces, longest) = (start, [Int](), 0 as UInt64)
    while let due = cache.purgeIdle(atNanoseconds: now), pieces.count < 100 {
      if let before = pieces.last, before > grants.live.count {
        #expect(now - start >= 60_000_000_000)
      }
      pieces.append(grants.live.count)
      #expect(due > now)
      longest = max(longest, due - now)
      now = due
      // One page is used all the time.
      if let page = cache.page(for: reference(7), using: grants) { cache.unpin(page.handle) }
      if pieces.last == 2 { break }
    }
    #expect(grants.live == [7, 50], "one is used, one is pinned")
    #expect(pieces.suffix(4) == [50, 34, 18, 2])
    #expect(now - start < 81_000_000_000, "\(now - start) ns")
    #expect(longest == 10_000_000_000)
    cache.unpin(49)
    for _ in 0..<20 {
      guard let due = cache.purgeIdle(atNanoseconds: now) else { break }
      now = due
    }
    #expect(grants.live == [])
    #expect(cache.purgeIdle(atNanoseconds: now) == nil, "a quiet queue is not woken for nothing")
  }

  @Test func theEndOfTheCacheUnmapsEverything() {
    let grants = CountingGrants()
    do {
      var cache = PersistentGrants(domain: Self.domain, capacity: 8)
      for number: UInt32 in 1...8 { _ = cache.page(for: reference(number), using: grants) }
      #expect(grants.live.count == 8)
    }
    #expect(grants.live == [])
    #expect(grants.mapCount == grants.unmapCount)
  }

  /// Random use against a dictionary; few references, so that they collide, leave and come back all the time.
  @Test(arguments: [(1, 3), (2, 4), (3, 40), (7, 12), (16, 500), (64, 90)] as [(Int, UInt32)])
  func itBehavesLikeADictionaryWithARoom(capacity: Int, references: UInt32) {
    for seed in 1...6 as ClosedRange<UInt64> {
      var random = SeededRandom(state: seed &* 0x9E37_79B9_7F4A_7C15 &+ UInt64(capacity))
      let grants = CountingGrants()
      var cache = PersistentGrants(domain: Self.domain, capacity: capacity)
      // What requests hold: reference and handle.
      var held: [(reference: UInt32, handle: UInt32)] = []
      var (hits, misses) = (0 as UInt64, 0 as UInt64)
      for step in 0..<4000 {
        cache.clock += 1
        switch Int.random(in: 0..<20, using: &random) {
        case 0..<11:
          // Near the end of the numbers too.
          let number = UInt32.max &- 5 &+ UInt32.random(in: 0..<references, using: &random)
          let wasLive = grants.live.contains(number)
          let pinnedBefore = Set(held.map(\.reference))
          if step % 7 == 0 { grants.refused = [number] }
          let page = cache.page(for: reference(number), using: grants)
          if wasLive { hits += 1 } else { misses += 1 }
          let isRefused = grants.refused.contains(number)
          let mustFail = !wasLive && (isRefused || pinnedBefore.count == capacity)
          #expect((page == nil) == mustFail, "seed \(seed) step \(step)")
          if let page {
            #expect(page.segment.address == grants.address(of: number), "seed \(seed) step \(step)")
            held.append((number, page.handle))
          }
          grants.refused = []
        case 11..<18:
          if let index = held.indices.randomElement(using: &random) {
            cache.unpin(held.remove(at: index).handle)
          }
        case 18:
          let since = cache.clock - UInt64.random(in: 0...min(50, cache.clock), using: &random)
          cache.purge(unusedSince: since, atMost: Int.random(in: 0...4, using: &random))
        default:
          if Int.random(in: 0..<10, using: &random) == 0 { cache.removeAll() }
        }
        let pinned = Set(held.map(\.reference))
        #expect(pinned.isSubset(of: grants.live), "seed \(seed) step \(step): a page in use was unmapped")
        #expect(grants.live.count == cache.mappedCount && cache.mappedCount <= capacity)
        #expect(cache.pinnedCount == pinned.count)
        #expect(grants.doubleMaps == 0)
      }
      #expect((cache.hitCount, cache.missCount) == (hits, misses))
      for use in held { cache.unpin(use.handle) }
      #expect(cache.removeAll() == 0)
      #expect(grants.live == [])
    }
  }
}

/// A grant table that maps private memory and keeps account.
final class CountingGrants: GrantTable {
  private let books = Books()
  var refused: Set<UInt32> = []
  private(set) var lastDomain: DomainID?
  private(set) var lastAccess: GrantAccess?

  // Sound to share: everything happens on the test's own thread.
  private final class Books: @unchecked Sendable {
    var addresses: [UInt32: UInt] = [:]
    var mapCount = 0
    var unmapCount = 0
    var doubleMaps = 0
  }

  var live: Set<UInt32> { Set(books.addresses.keys) }
  var mapCount: Int { books.mapCount }
  var unmapCount: Int { books.unmapCount }
  var doubleMaps: Int { books.doubleMaps }
  func address(of reference: UInt32) -> UInt? { books.addresses[reference] }

  func map(
    _ references: [GrantReference], of domain: DomainID, access: GrantAccess
  ) throws(GrantError) -> MappedPages {
    lastDomain = domain
    lastAccess = access
    guard references.count == 1, !refused.contains(references[0].rawValue) else {
      throw GrantError(operation: "map", errno: EINVAL)
    }
    let number = references[0].rawValue
    let base = UnsafeMutableRawPointer.allocate(byteCount: 4096, alignment: 4096)
    if books.addresses[number] != nil { books.doubleMaps += 1 }
    books.addresses[number] = UInt(bitPattern: base)
    books.mapCount += 1
    // Sound: freed once, by the closure.
    return unsafe MappedPages(base: base, pageCount: 1) { [books] base, _ in
      books.addresses[number] = nil
      books.unmapCount += 1
      unsafe base.deallocate()
    }
  }

  func copy(_ batch: inout GrantCopyBatch) {}
}

/// A small generator whose seed a failing test prints.
struct SeededRandom: RandomNumberGenerator {
  var state: UInt64
  mutating func next() -> UInt64 {
    state ^= state << 13
    state ^= state >> 7
    state ^= state << 17
    return state
  }
}
