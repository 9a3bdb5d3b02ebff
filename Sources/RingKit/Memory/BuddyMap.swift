/// A buddy allocator over page numbers: runs of 1, 2, 4 ... 8192 pages, aligned to their size. It knows no
/// memory, allocates none after init, and takes O(log n) steps.
@safe
struct BuddyMap: ~Copyable {
  /// The largest run: 8192 pages, 32 MiB.
  static var largestOrder: Int { 13 }
  private static var none: UInt32 { .max }

  private enum State {
    static let inside: UInt8 = 0
    static let free: UInt8 = 1
    static let taken: UInt8 = 2
  }

  /// What is known of a page. Order and links count only for the first page of a run.
  private struct Page {
    var state = State.inside
    var order: UInt8 = 0
    /// How often a run beginning here was taken: tells a current holder from one that gave it back before.
    var stamp: UInt32 = 0
    var next = BuddyMap.none
    var previous = BuddyMap.none
  }

  // Sound: `pageCount` pages and one list head an order live from init to deinit; numbers are checked at the
  // public functions, links are only ever set to page numbers.
  private let pages: UnsafeMutablePointer<Page>
  private let heads: UnsafeMutablePointer<UInt32>
  /// Pages managed.
  let pageCount: Int
  /// Pages not taken.
  private(set) var freePageCount = 0

  /// Manages pages 0..<pageCount, all free.
  init(pageCount: Int) {
    precondition(pageCount > 0 && pageCount < Int(UInt32.max) / 2)
    self.pageCount = pageCount
    unsafe pages = .allocate(capacity: pageCount)
    unsafe pages.initialize(repeating: Page(), count: pageCount)
    unsafe heads = .allocate(capacity: Self.largestOrder + 1)
    unsafe heads.initialize(repeating: Self.none, count: Self.largestOrder + 1)
    // The largest runs first, then what is left at the end; pushed from the end, so that low pages go out
    // first.
    var run = pageCount
    while run > 0 {
      let order = min(run.trailingZeroBitCount, Self.largestOrder)
      run -= 1 << order
      push(UInt32(run), order: order)
    }
    freePageCount = pageCount
  }

  deinit {
    unsafe pages.deallocate()
    unsafe heads.deallocate()
  }

  /// The smallest order whose runs hold `pageCount` pages; may exceed the largest.
  static func order(forPages pageCount: Int) -> Int {
    pageCount <= 1 ? 0 : Int.bitWidth - (pageCount - 1).leadingZeroBitCount
  }

  /// Takes a run of 2^order pages; nil when there is none. Gives its first page and its stamp.
  mutating func take(order: Int) -> (page: Int, stamp: UInt32)? {
    precondition(order >= 0 && order <= Self.largestOrder)
    var found = order
    while unsafe heads[found] == Self.none {
      found += 1
      if found > Self.largestOrder { return nil }
    }
    let page = unsafe heads[found]
    unlink(page, order: found)
    while found > order {
      found -= 1
      push(page + (1 << UInt32(found)), order: found)
    }
    unsafe pages[Int(page)].state = State.taken
    unsafe pages[Int(page)].order = UInt8(order)
    unsafe pages[Int(page)].stamp &+= 1
    freePageCount -= 1 << order
    return (Int(page), unsafe pages[Int(page)].stamp)
  }

  /// True when a run of this order, stamp and first page is taken.
  func holds(page: Int, order: Int, stamp: UInt32) -> Bool {
    guard page >= 0 && page < pageCount else { return false }
    let known = unsafe pages[page]
    return known.state == State.taken && Int(known.order) == order && known.stamp == stamp
  }

  /// Gives a taken run back and joins it with its free buddies.
  mutating func giveBack(page: Int, order: Int, stamp: UInt32) {
    precondition(holds(page: page, order: order, stamp: stamp), "buffer released twice, or not of this pool")
    freePageCount += 1 << order
    var page = UInt32(page)
    var order = order
    unsafe pages[Int(page)].state = State.inside
    while order < Self.largestOrder {
      let buddy = page ^ (1 << UInt32(order))
      guard Int(buddy) < pageCount, unsafe pages[Int(buddy)].state == State.free,
        unsafe pages[Int(buddy)].order == UInt8(order)
      else { break }
      unlink(buddy, order: order)
      page = min(page, buddy)
      order += 1
    }
    push(page, order: order)
  }

  private func push(_ page: UInt32, order: Int) {
    let head = unsafe heads[order]
    unsafe pages[Int(page)].state = State.free
    unsafe pages[Int(page)].order = UInt8(order)
    unsafe pages[Int(page)].previous = Self.none
    unsafe pages[Int(page)].next = head
    if head != Self.none { unsafe pages[Int(head)].previous = page }
    unsafe heads[order] = page
  }

  private func unlink(_ page: UInt32, order: Int) {
    let links = unsafe pages[Int(page)]
    unsafe pages[Int(page)].state = State.inside
    if links.previous == Self.none {
      unsafe heads[order] = links.next
    } else {
      unsafe pages[Int(links.previous)].next = links.next
    }
    if links.next != Self.none { unsafe pages[Int(links.next)].previous = links.previous }
  }
}
