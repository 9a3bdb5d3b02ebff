import Netback
import RingKit
import Simulator
import Testing

/// A queue's table of staged pages against a dictionary.
struct StagingTableTests {
  /// Pages with addresses and ends of their own.
  let memory: [MappedPages]

  init() throws { memory = try (0..<8).map { _ in try MappedPages.anonymous(pageCount: 1) } }

  func page(_ reference: UInt32, writable: Bool) -> StagedPage {
    StagedPage(
      reference: GrantReference(rawValue: reference), isWritable: writable,
      pages: memory[Int(reference % 8)])
  }

  func address(_ reference: UInt32) -> UInt {
    memory[Int(reference % 8)].segment(offset: 0, length: 1).address
  }

  /// Seeds without chance make references collide; so do capacities that are no power of two.
  @Test(arguments: [1, 2, 3, 16, 100], [0, 0x9E37_79B9, 0x8000_0001] as [UInt32])
  func itIsADictionary(capacity: Int, seed: UInt32) {
    var numbers = SeededNumbers(seed: UInt64(capacity) << 32 | UInt64(seed))
    var table = GrantStaging(capacity: capacity, seed: seed)
    var model: [UInt32: Bool] = [:]
    // Few references, neighbours, far apart, and the largest ones.
    let references = (0..<UInt32(capacity + 3)).map { $0 % 3 == 0 ? UInt32.max - $0 : $0 << ($0 % 2 * 20) }
    for _ in 0..<4000 {
      guard let reference = references.randomElement(using: &numbers) else { continue }
      if Bool.random(using: &numbers) {
        let writable = Bool.random(using: &numbers)
        table.insert([page(reference, writable: writable)])
        if model.count < capacity && model[reference] == nil { model[reference] = writable }
      } else {
        table.remove([GrantReference(rawValue: reference)])
        model[reference] = nil
      }
      guard table.count == model.count else {
        Issue.record("\(table.count) pages, not \(model.count)")
        return
      }
      for reference in references {
        let name = GrantReference(rawValue: reference)
        let expected = model[reference].map { _ in IOSegment(address: address(reference), length: 4096) }
        let writable = model[reference] == true ? expected : nil
        let found = (table.lookup(name, writable: false), table.lookup(name, writable: true))
        guard found == (expected, writable) else {
          Issue.record("\(reference): \(found), not \((expected, writable))")
          return
        }
      }
    }
  }

  /// A page lives as long as it is in the table, whatever moved in it meanwhile.
  @Test func pagesLiveWhileTheyAreThere() throws {
    var table = GrantStaging(capacity: 64, seed: 0)
    var kept: [WeakPages] = []
    for reference in 0..<64 {
      let pages = try MappedPages.anonymous(pageCount: 1)
      kept.append(WeakPages(pages))
      table.insert([
        StagedPage(reference: GrantReference(rawValue: UInt32(reference)), isWritable: true, pages: pages)
      ])
    }
    #expect(kept.allSatisfy { $0.pages != nil })
    // From the middle on, so that later entries move up.
    for step in 0..<64 {
      let reference = (step * 29 + 31) % 64
      table.remove([GrantReference(rawValue: UInt32(reference))])
      #expect(kept[reference].pages == nil)
      #expect(kept.count { $0.pages != nil } == 63 - step)
    }
    let count = table.count
    #expect(count == 0)
  }

  private struct WeakPages {
    weak var pages: MappedPages?
    init(_ pages: MappedPages) { self.pages = pages }
  }
}
