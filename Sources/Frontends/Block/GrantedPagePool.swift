public import RingKit

/// Data pages that are shared with the backend once and used again and again.
///
/// The page given back last is taken first: so few pages stay in use, and a backend that keeps mappings finds
/// them mapped (blkif.h, note on feature-persistent; Linux's blkfront does the same).
public final class GrantedPagePool {
  /// The pages and their references.
  public let shared: SharedPages
  private var free: [UInt16]
  private var isFree: [Bool]
  /// Pages that can be taken.
  public private(set) var freeCount: Int

  /// Takes over shared pages, at most 65536 of them.
  public init(_ shared: SharedPages) {
    let count = shared.pages.pageCount
    precondition(count == shared.references.count && count <= 65536)
    self.shared = shared
    // From the end, so that the first pages are taken first.
    free = (0..<count).reversed().map { UInt16($0) }
    isFree = Array(repeating: true, count: count)
    freeCount = count
  }

  /// Pages in the pool.
  public var pageCount: Int { isFree.count }

  /// Takes a page: its index in ``shared``, or nil when all are taken.
  public func take() -> Int? {
    guard freeCount > 0 else { return nil }
    freeCount -= 1
    let page = Int(free[freeCount])
    isFree[page] = false
    return page
  }

  /// Gives a page back, which must have been taken.
  public func give(_ page: Int) {
    precondition(!isFree[page], "page \(page) was given back twice")
    isFree[page] = true
    free[freeCount] = UInt16(page)
    freeCount += 1
  }
}
