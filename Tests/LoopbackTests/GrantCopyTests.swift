import Glibc
import RingKit
import Testing

@testable import Loopback

/// Grant copies on the loopback machine: each has a status of its own.
@Suite struct GrantCopyTests {
  let fixture: MachineFixture
  let grants: any GrantTable
  let sharing: LoopbackGrantSharing
  let front = MachineFixture.front
  /// Private memory of the backend.
  let local: LocalMemory

  init() throws {
    fixture = try MachineFixture()
    grants = try fixture.grants(MachineFixture.back)
    sharing = try fixture.sharing(MachineFixture.front)
    local = LocalMemory(pageCount: 2)
  }

  func share(_ pageCount: Int, _ access: GrantAccess = .readWrite) throws -> SharedPages {
    try sharing.share(pageCount: pageCount, with: MachineFixture.back, access: access)
  }

  /// One copy and its status.
  func copy(
    _ reference: GrantReference, toGuest: Bool = false, of domain: DomainID? = nil, pageOffset: Int = 0,
    localOffset: Int = 0, length: Int = 4096
  ) -> Int16 {
    var batch = GrantCopyBatch(capacity: 1)
    batch.append(
      .init(
        toGuest: toGuest, domain: domain ?? front, reference: reference, pageOffset: pageOffset,
        local: local.pages.segment(offset: localOffset, length: length)))
    #expect(batch.status(at: 0) == GrantCopyBatch.failed)
    grants.copy(&batch)
    return batch.status(at: 0)
  }

  @Test(arguments: [(0, 1), (0, 4096), (1, 4095), (4095, 1), (512, 512), (3, 5)])
  func bytesArriveWhereTheyBelongAndNowhereElse(offset: Int, length: Int) throws {
    let shared = try share(2)
    let pattern = (0..<length).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ 1) | 0x80 }
    shared.pages.write(pattern, at: 4096 + offset)
    #expect(copy(shared.references[1], pageOffset: offset, localOffset: 100, length: length) == 0)
    var expected = [UInt8](repeating: 0, count: 8192)
    expected.replaceSubrange(100..<100 + length, with: pattern)
    #expect(local.pages.bytes(count: 8192) == expected)

    shared.pages.write([UInt8](repeating: 0, count: 8192))
    #expect(
      copy(
        shared.references[0], toGuest: true, pageOffset: offset, localOffset: 100, length: length) == 0)
    expected = [UInt8](repeating: 0, count: 8192)
    expected.replaceSubrange(offset..<offset + length, with: pattern)
    #expect(shared.pages.bytes(count: 8192) == expected)
  }

  @Test func aBatchHasAStatusForEachCopy() throws {
    let good = try share(2)
    let readOnly = try share(1, .readOnly)
    let others = try sharing.share(pageCount: 1, with: DomainID(rawValue: 7), access: .readWrite)
    good.pages.number(from: 1)
    readOnly.pages.number(from: 9)
    let cases: [(GrantReference, Bool, DomainID, Int16)] = [
      (good.references[0], false, front, 0),
      (GrantReference(rawValue: 0), false, front, -3),
      (GrantReference(rawValue: 40000), false, front, -3),
      (GrantReference(rawValue: .max), true, front, -3),
      (good.references[1], false, front, 0),
      (others.references[0], false, front, -3),
      (others.references[0], true, front, -3),
      (readOnly.references[0], true, front, -8),
      (readOnly.references[0], false, front, 0),
      (good.references[0], false, DomainID(rawValue: 50), -2),
      (good.references[0], false, MachineFixture.back, -3),
      (good.references[0], true, front, 0),
    ]
    for order in [Array(cases.indices), cases.indices.reversed()] {
      var batch = GrantCopyBatch(capacity: cases.count)
      for (place, index) in order.enumerated() {
        let (reference, toGuest, domain, _) = cases[index]
        batch.append(
          .init(
            toGuest: toGuest, domain: domain, reference: reference, pageOffset: 0,
            local: local.pages.segment(offset: place, length: 1)))
      }
      grants.copy(&batch)
      #expect(order.indices.map { batch.status(at: $0) } == order.map { cases[$0].3 })
    }
  }

  @Test func anEndedGrantFailsThoughItsMemoryIsKept() throws {
    let shared = try share(3)
    shared.pages.number(from: 1)
    for reference in shared.references { #expect(copy(reference) == 0) }
    try sharing.end(shared.references[1])
    #expect(shared.references.map { copy($0) } == [0, -3, 0])
    try sharing.end(shared.references[0])
    #expect(shared.references.map { copy($0) } == [-3, -3, 0])
  }

  @Test func aShareThatIsGoneFailsAndItsReferencesMeanNewPages() throws {
    var old: SharedPages? = try share(4)
    let references = try #require(old?.references)
    old?.pages.number(from: 1)
    #expect(copy(references[2], length: 1) == 0)
    #expect(local.pages.bytes(count: 1) == [3])
    old = nil
    #expect(copy(references[2], length: 1) == -3)
    // The table is searched round: all of it twice brings the old references back.
    var size = 4096
    var others: [SharedPages] = []
    while size > 0 {
      if let next = try? share(size) { others.append(next) } else { size /= 2 }
    }
    let again = try #require(others.first { $0.references.contains(references[2]) })
    again.pages.write([UInt8](repeating: 77, count: again.pages.byteCount))
    #expect(copy(references[2], length: 1) == 0)
    #expect(local.pages.bytes(count: 1) == [77])
  }

  @Test func theOwnersDeathFailsCopies() throws {
    var dying: SharedPages? = try fixture.sharing(DomainID(rawValue: 5)).share(
      pageCount: 1, with: MachineFixture.back, access: .readWrite)
    let reference = try #require(dying?.references.first)
    #expect(copy(reference, of: DomainID(rawValue: 5)) == 0)
    dying = nil
    try fixture.gone.wait(for: DomainID(rawValue: 5))
    #expect(copy(reference, of: DomainID(rawValue: 5)) == -3)
    #expect(copy(reference, toGuest: true, of: DomainID(rawValue: 5)) == -3)
  }

  /// What is kept mapped has a bound, and being over it costs nothing but time.
  @Test func keptMemoryIsBounded() throws {
    let link = try MachineLink(directory: fixture.directory, domain: MachineFixture.back)
    let copier = try #require(
      GrantCopier(owner: front, link: link, maximumShareCount: 3, maximumPageCount: 10))
    let shares = try [1, 2, 8, 4, 1, 1, 1, 10, 3].map { try share($0) }
    for (index, shared) in shares.enumerated() { shared.pages.number(from: UInt8(index * 16)) }
    for round in 0..<3 {
      for (index, shared) in shares.enumerated() {
        for (page, reference) in shared.references.enumerated() {
          let segment = GrantCopyBatch.Segment(
            toGuest: false, domain: front, reference: reference, pageOffset: 0,
            local: local.pages.segment(offset: 0, length: 1))
          #expect(copier.copy(segment) == 0)
          #expect(local.pages.bytes(count: 1) == [UInt8(index * 16 + page)], "round \(round)")
          #expect(copier.kept.shareCount <= 3)
          #expect(copier.kept.pageCount <= 10)
        }
      }
    }
  }
}

/// Private zeroed memory.
final class LocalMemory {
  let pages: MappedPages

  init(pageCount: Int) {
    let base = UnsafeMutableRawPointer.allocate(byteCount: pageCount * pageByteCount, alignment: 4096)
    unsafe base.initializeMemory(as: UInt8.self, repeating: 0, count: pageCount * pageByteCount)
    // Sound: freed once, by the closure.
    pages = unsafe MappedPages(base: base, pageCount: pageCount) { base, _ in unsafe base.deallocate() }
  }
}
