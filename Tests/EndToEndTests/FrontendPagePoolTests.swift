import Frontends
import RingKit
import Testing

@Suite struct FrontendPagePoolTests {
  @Test func thePageGivenBackLastIsTakenFirst() throws {
    let pool = GrantedPagePool(try sharedPages(4))
    #expect(pool.take() == 0)
    #expect(pool.take() == 1)
    #expect(pool.take() == 2)
    pool.give(1)
    pool.give(0)
    #expect(pool.take() == 0)
    #expect(pool.take() == 1)
    #expect(pool.take() == 3)
    #expect(pool.freeCount == 0)
    #expect(pool.take() == nil)
  }

  @Test func everyPageIsTakenOnce() throws {
    let pool = GrantedPagePool(try sharedPages(100))
    var seen = Set<Int>()
    while let page = pool.take() { #expect(seen.insert(page).inserted) }
    #expect(seen == Set(0..<100))
    for page in seen.sorted() { pool.give(page) }
    #expect(pool.freeCount == 100)
  }
}
