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

  // MARK: Between guests

  static let third = DomainID(rawValue: 5)

  /// One copy between granted pages and its status.
  func copy(
    from source: GrantCopyBatch.GrantedBytes, to destination: GrantCopyBatch.GrantedBytes, _ byteCount: Int
  ) -> Int16 {
    var batch = GrantCopyBatch(capacity: 1)
    batch.append(
      GrantCopyBatch.GuestToGuest(source: source, destination: destination, byteCount: byteCount))
    grants.copy(&batch)
    return batch.status(at: 0)
  }

  @Test(arguments: [(0, 0, 1), (0, 0, 4096), (1, 0, 4095), (0, 4095, 1), (512, 1024, 512), (3, 1, 5)])
  func bytesGoFromGuestToGuest(from: Int, to: Int, length: Int) throws {
    let mine = try share(2)
    let theirs = try fixture.sharing(Self.third).share(
      pageCount: 3, with: MachineFixture.back, access: .readWrite)
    let pattern = (0..<length).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ 1) | 0x80 }
    mine.pages.write(pattern, at: 4096 + from)
    #expect(
      copy(
        from: .init(domain: front, reference: mine.references[1], pageOffset: from),
        to: .init(domain: Self.third, reference: theirs.references[2], pageOffset: to), length) == 0)
    var expected = [UInt8](repeating: 0, count: 12288)
    expected.replaceSubrange(8192 + to..<8192 + to + length, with: pattern)
    #expect(theirs.pages.bytes(count: 12288) == expected)
    #expect(mine.pages.bytes(at: 4096 + from, count: length) == pattern)
  }

  /// Two interfaces of one guest, and even one page: what is read is read before anything is written.
  @Test func bytesGoFromAGuestToItself() throws {
    let mine = try share(2)
    mine.pages.write([1, 2, 3, 4, 5, 6, 7, 8], at: 0)
    let source = GrantCopyBatch.GrantedBytes(domain: front, reference: mine.references[0], pageOffset: 0)
    var destination = GrantCopyBatch.GrantedBytes(
      domain: front, reference: mine.references[1], pageOffset: 4090)
    #expect(copy(from: source, to: destination, 6) == 0)
    #expect(mine.pages.bytes(at: 8186, count: 6) == [1, 2, 3, 4, 5, 6])
    destination = .init(domain: front, reference: mine.references[0], pageOffset: 2)
    #expect(copy(from: source, to: destination, 6) == 0)
    #expect(mine.pages.bytes(count: 8) == [1, 2, 1, 2, 3, 4, 5, 6])
  }

  @Test func bothSidesOfACopyBetweenGuestsAreChecked() throws {
    let mine = try share(1)
    let fixed = try share(1, .readOnly)
    let theirs = try fixture.sharing(Self.third).share(
      pageCount: 1, with: MachineFixture.back, access: .readWrite)
    let foreign = try fixture.sharing(Self.third).share(
      pageCount: 1, with: DomainID(rawValue: 7), access: .readWrite)
    mine.pages.number(from: 1)
    fixed.pages.number(from: 9)
    func place(_ shared: SharedPages, _ domain: DomainID) -> GrantCopyBatch.GrantedBytes {
      .init(domain: domain, reference: shared.references[0], pageOffset: 0)
    }
    let good = place(mine, front)
    let other = place(theirs, Self.third)
    let nowhere = GrantCopyBatch.GrantedBytes(
      domain: front, reference: GrantReference(rawValue: 40000), pageOffset: 0)
    let cases: [(GrantCopyBatch.GrantedBytes, GrantCopyBatch.GrantedBytes, Int16)] = [
      (good, other, 0), (other, good, 0), (place(fixed, front), other, 0),
      (other, place(fixed, front), -8), (good, place(fixed, front), -8),
      (nowhere, other, -3), (other, nowhere, -3), (nowhere, good, -3), (good, nowhere, -3),
      (place(foreign, Self.third), good, -3), (good, place(foreign, Self.third), -3),
      (.init(domain: DomainID(rawValue: 50), reference: good.reference, pageOffset: 0), other, -2),
      (good, .init(domain: DomainID(rawValue: 50), reference: other.reference, pageOffset: 0), -2),
      (place(fixed, front), good, 0),
    ]
    var batch = GrantCopyBatch(capacity: cases.count * 2)
    for (source, destination, _) in cases {
      batch.append(
        GrantCopyBatch.GuestToGuest(source: source, destination: destination, byteCount: 1))
      // Copies of other kinds in between keep their own statuses.
      batch.append(
        .init(
          toGuest: false, domain: front, reference: good.reference, pageOffset: 0,
          local: local.pages.segment(offset: 0, length: 1)))
    }
    grants.copy(&batch)
    #expect(cases.indices.map { batch.status(at: $0 * 2) } == cases.map { $0.2 })
    #expect(cases.indices.allSatisfy { batch.status(at: $0 * 2 + 1) == 0 })
    #expect(mine.pages.bytes(count: 1) == [9] && theirs.pages.bytes(count: 1) == [9])
  }

  /// With room for one share only, mapping one side drops the other.
  @Test func aCopyWithinAGuestNeedsNoTwoSharesAtATime() throws {
    let link = try MachineLink(directory: fixture.directory, domain: MachineFixture.back)
    let copier = try #require(
      GrantCopier(owner: front, link: link, maximumShareCount: 1, maximumPageCount: 1))
    let shares = try [share(1), share(1)]
    shares[0].pages.number(from: 77)
    let passage = GrantCopyBatch.GuestToGuest(
      source: .init(domain: front, reference: shares[0].references[0], pageOffset: 0),
      destination: .init(domain: front, reference: shares[1].references[0], pageOffset: 0), byteCount: 16)
    for _ in 0..<3 { #expect(GrantCopier.copy(passage, from: copier, to: copier) == 0) }
    #expect(shares[1].pages.bytes(count: 16) == shares[0].pages.bytes(count: 16))
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
