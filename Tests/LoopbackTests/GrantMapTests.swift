import Glibc
import RingKit
import Testing

@testable import Loopback

/// Mapping other domains' pages on the loopback machine.
@Suite struct GrantMapTests {
  let fixture: MachineFixture
  let grants: any GrantTable
  let sharing: LoopbackGrantSharing
  let front = MachineFixture.front

  init() throws {
    fixture = try MachineFixture()
    grants = try fixture.grants(MachineFixture.back)
    sharing = try fixture.sharing(MachineFixture.front)
  }

  func share(_ pageCount: Int, _ access: GrantAccess = .readWrite) throws -> SharedPages {
    try sharing.share(pageCount: pageCount, with: MachineFixture.back, access: access)
  }

  @Test func sharedPagesAreZeroed() throws {
    let shared = try share(3)
    #expect(shared.pages.bytes(count: 3 * pageByteCount).allSatisfy { $0 == 0 })
  }

  @Test func aMappingIsTheOwnersPagesInTheOrderAsked() throws {
    let low = try share(4)
    let high = try share(3)
    low.pages.number(from: 10)
    high.pages.number(from: 20)
    let references = [
      high.references[2], low.references[0], low.references[1], low.references[3],
      low.references[2], high.references[0], high.references[0],
    ]
    let mapped = try grants.map(references, of: front, access: .readWrite)
    #expect(mapped.numbers == [22, 10, 11, 13, 12, 20, 20])
    mapped.write([99], at: 3 * pageByteCount)
    #expect(low.pages.numbers == [10, 11, 12, 99], "a write goes to the owner's page")
  }

  @Test(arguments: [95, 96, 97, 300])
  func manyPagesAreOneMapping(count: Int) throws {
    let shared = try share(count)
    shared.pages.number(from: 0)
    let mapped = try grants.map(shared.references, of: front, access: .readOnly)
    #expect(mapped.numbers == (0..<count).map { UInt8(truncatingIfNeeded: $0) })
    #expect(fixture.machine.mappedPageCount(of: front) == count)
  }

  enum Bad: CaseIterable {
    case zero, neverGranted, beyondTable, forSomebodyElse, readOnlyForWriting, unknownDomain, none
  }

  @Test(arguments: Bad.allCases)
  func whatWasNotGrantedCannotBeMapped(bad: Bad) throws {
    let other = try sharing.share(pageCount: 1, with: DomainID(rawValue: 7), access: .readWrite)
    let readOnly = try share(1, .readOnly)
    let (references, domain, code): ([GrantReference], DomainID, Int32) =
      switch bad {
      case .zero: ([GrantReference(rawValue: 0)], front, EINVAL)
      case .neverGranted: ([GrantReference(rawValue: 5000)], front, EINVAL)
      case .beyondTable: ([GrantReference(rawValue: .max)], front, EINVAL)
      case .forSomebodyElse: (other.references, front, EINVAL)
      case .readOnlyForWriting: (readOnly.references, front, EACCES)
      case .unknownDomain: (readOnly.references, DomainID(rawValue: 9), ESRCH)
      case .none: ([], front, EINVAL)
      }
    let error = #expect(throws: GrantError.self) {
      _ = try grants.map(references, of: domain, access: .readWrite)
    }
    #expect(error?.errno == code)
    #expect(fixture.machine.statistics.mappedPageCount == 0)
  }

  @Test func aReadOnlyGrantCanBeRead() throws {
    let shared = try share(2, .readOnly)
    shared.pages.number(from: 5)
    #expect(try grants.map(shared.references, of: front, access: .readOnly).numbers == [5, 6])
  }

  /// XSA-361: one bad reference among many, at every place, leaves nothing mapped.
  @Test func aBadReferenceUndoesTheWholeMapping() throws {
    let shared = try share(200)
    for count in [1, 2, 32, 200] {
      for place in count == 200 ? [0, 95, 96, 150, 199] : Array(0..<count) {
        var references = Array(shared.references[..<count])
        references[place] = GrantReference(rawValue: 60000)
        #expect(throws: GrantError.self) { try grants.map(references, of: front, access: .readWrite) }
        #expect(fixture.machine.mappedPageCount(of: front) == 0, "\(place) of \(count)")
      }
    }
    let whole = try grants.map(shared.references, of: front, access: .readWrite)
    #expect(fixture.machine.mappedPageCount(of: front) == 200)
    withExtendedLifetime(whole) {}
  }

  @Test func aMappingOutlivesTheGrantButNoNewOneIsMade() throws {
    let shared = try share(2)
    shared.pages.number(from: 1)
    let mapped = try grants.map(shared.references, of: front, access: .readWrite)
    try sharing.end(shared.references[1])
    #expect(throws: GrantError.self) {
      try grants.map([shared.references[1]], of: front, access: .readOnly)
    }
    #expect(try grants.map([shared.references[0]], of: front, access: .readOnly).numbers == [1])
    #expect(mapped.numbers == [1, 2])
    let error = #expect(throws: GrantError.self) { try sharing.end(shared.references[1]) }
    #expect(error?.errno == EINVAL, "a grant ends once")
  }

  @Test func aReferenceUsedAgainIsAnotherPage() throws {
    var first: SharedPages? = try share(1)
    let reference = try #require(first?.references.first)
    first?.pages.number(from: 1)
    let old = try grants.map([reference], of: front, access: .readWrite)
    first = nil
    #expect(throws: GrantError.self) { try grants.map([reference], of: front, access: .readOnly) }
    // The table is searched round, so the reference comes again when all others are taken.
    var others: [SharedPages] = []
    var size = 4096
    while others.last?.references.contains(reference) != true, size > 0 {
      if let next = try? share(size) { others.append(next) } else { size /= 2 }
    }
    let again = try #require(others.last)
    again.pages.write([UInt8](repeating: 7, count: again.pages.byteCount))
    #expect(old.numbers == [1])
    #expect(try grants.map([reference], of: front, access: .readOnly).numbers == [7])
  }

  @Test func theTableOfADomainIsBounded() throws {
    var kept: [SharedPages] = []
    let error = #expect(throws: GrantError.self) {
      while true { kept.append(try share(4096)) }
    }
    #expect(error?.errno == ENOSPC)
    #expect(kept.count == 15, "65536 references but the 8 reserved ones")
    kept.removeLast()
    kept.append(try share(4096))
  }

  @Test(arguments: [0, -1, 4097, Int.max])
  func aShareIsBounded(pageCount: Int) throws {
    #expect(throws: GrantError.self) { try share(pageCount) }
  }

  /// XSA-371: over many connections the ledger comes back to nothing.
  @Test func mapsAndUnmapsBalance() throws {
    let shared = try share(8)
    for _ in 0..<200 {
      let ring = try grants.map(Array(shared.references[..<4]), of: front, access: .readWrite)
      let more = shared.references[4...].map {
        try? grants.map([$0], of: front, access: .readWrite)
      }
      #expect(fixture.machine.mappedPageCount(of: front) == 8)
      withExtendedLifetime((ring, more)) {}
    }
    #expect(fixture.machine.mappedPageCount(of: front) == 0)
    #expect((grants as? LoopbackGrantTable)?.mappedPageCount == 0)
  }

  @Test func aMappingOutlivesItsHandle() throws {
    let shared = try share(1)
    shared.pages.number(from: 3)
    var handle: (any GrantTable)? = try fixture.grants(DomainID(rawValue: 0))
    var mapped = try handle?.map(shared.references, of: front, access: .readWrite)
    handle = nil
    #expect(mapped?.numbers == [3])
    #expect(fixture.machine.mappedPageCount(of: front) == 1)
    mapped = nil
    #expect(fixture.machine.mappedPageCount(of: front) == 0)
  }
}
