import RingKit

extension MachineState {
  /// Pages shared together: one memory, one grantee.
  struct Share: Equatable {
    let connection: Connection
    let owner: DomainID
    let grantee: DomainID
    let first: UInt32
    let pageCount: Int
    let word: GrantWord
    /// Unique in the machine's life.
    let number: UInt32
  }

  /// References that ended and the share they belonged to.
  struct EndedGrants: Equatable {
    let owner: DomainID
    let share: UInt32
    let references: [UInt32]
    /// True when the share itself is over.
    let isWholeShare: Bool
  }

  /// Pages that one connection has mapped by one request.
  struct GrantMap: Equatable {
    let connection: Connection
    let owner: DomainID
    let pageCount: Int
  }

  /// A granted page: its share and its place there.
  struct GrantedPage: Equatable {
    let share: Share
    let page: Int
  }

  /// Pages in one share.
  static var maximumSharePageCount: Int { 4096 }

  /// Grants `pageCount` new pages to `grantee`, which need not exist yet (as in Xen's grant table).
  mutating func share(
    _ connection: Connection, pageCount: Int, grantee: DomainID, writable: Bool
  ) throws(MachineRefusal) -> Share {
    let owner = try domain(of: connection)
    guard pageCount > 0, pageCount <= Self.maximumSharePageCount else { throw .malformed }
    guard let first = freeReferences(of: owner, count: pageCount) else { throw .noSpace }
    lastShare &+= 1
    let share = Share(
      connection: connection, owner: owner, grantee: grantee, first: first, pageCount: pageCount,
      word: GrantWord(serial: lastShare, writable: writable), number: lastShare)
    for reference in first..<first + UInt32(pageCount) {
      domains[owner]?.shareOf[Int(reference)] = first
    }
    domains[owner]?.shares[first] = share
    domains[owner]?.nextReference = first + UInt32(pageCount)
    return share
  }

  /// The first of `count` consecutive free references, looking from where the last search ended.
  private func freeReferences(of owner: DomainID, count: Int) -> UInt32? {
    guard let domain = domains[owner] else { return nil }
    func search(_ range: Range<Int>) -> UInt32? {
      var run = 0
      // A share's first reference names it, so one whose first grant ended is not free while the share lives.
      for reference in range {
        let isFree = domain.shareOf[reference] == 0 && domain.shares[UInt32(reference)] == nil
        run = isFree ? run + 1 : 0
        if run == count { return UInt32(reference - count + 1) }
      }
      return nil
    }
    return search(Int(domain.nextReference)..<GrantWord.tableCount)
      ?? search(Int(Self.firstReference)..<GrantWord.tableCount)
  }

  /// Ends all grants of the share that begins at `first`.
  mutating func endShare(_ connection: Connection, first: UInt32) throws(MachineRefusal) -> EndedGrants {
    let owner = try domain(of: connection)
    guard let share = domains[owner]?.shares[first], share.connection == connection else {
      throw .badReference
    }
    return removeShare(share)
  }

  /// Ends the grant of one page; the share and its other pages stay.
  mutating func endGrant(_ connection: Connection, reference: UInt32) throws(MachineRefusal) -> EndedGrants {
    let owner = try domain(of: connection)
    guard let share = share(of: owner, holding: reference), share.connection == connection else {
      throw .badReference
    }
    domains[owner]?.shareOf[Int(reference)] = 0
    return EndedGrants(owner: owner, share: share.number, references: [reference], isWholeShare: false)
  }

  mutating func removeShare(_ share: Share) -> EndedGrants {
    let all = share.first..<share.first + UInt32(share.pageCount)
    // A reference that ended on its own may have been granted again since.
    let references = all.filter { domains[share.owner]?.shareOf[Int($0)] == share.first }
    for reference in references { domains[share.owner]?.shareOf[Int(reference)] = 0 }
    domains[share.owner]?.shares[share.first] = nil
    return EndedGrants(owner: share.owner, share: share.number, references: references, isWholeShare: true)
  }

  private func share(of owner: DomainID, holding reference: UInt32) -> Share? {
    guard let domain = domains[owner], Int(reference) < GrantWord.tableCount else { return nil }
    let first = domain.shareOf[Int(reference)]
    return first == 0 ? nil : domain.shares[first]
  }

  /// The page that `owner` granted as `reference`, when it is granted to the caller for that use.
  func grantedPage(
    _ connection: Connection, owner: DomainID, reference: UInt32, writing: Bool
  ) throws(MachineRefusal) -> GrantedPage {
    let caller = try domain(of: connection)
    guard domains[owner] != nil else { throw .unknownDomain }
    guard let share = share(of: owner, holding: reference), share.grantee == caller else {
      throw .badReference
    }
    if writing, !share.word.isWritable { throw .readOnly }
    return GrantedPage(share: share, page: Int(reference - share.first))
  }

  /// Maps pages of `owner`, all or none; returns the map's number and the pages in order.
  mutating func map(
    _ connection: Connection, owner: DomainID, references: [UInt32], writing: Bool
  ) throws(MachineRefusal) -> (number: UInt32, pages: [GrantedPage]) {
    guard !references.isEmpty, references.count <= MachineRequest.maximumReferenceCount else {
      throw .malformed
    }
    var pages: [GrantedPage] = []
    for reference in references {
      pages.append(
        try grantedPage(connection, owner: owner, reference: reference, writing: writing))
    }
    repeat { lastMap &+= 1 } while maps[lastMap] != nil
    maps[lastMap] = GrantMap(connection: connection, owner: owner, pageCount: pages.count)
    return (lastMap, pages)
  }

  /// Ends a map of the caller.
  mutating func unmap(_ connection: Connection, number: UInt32) throws(MachineRefusal) {
    guard let map = maps[number], map.connection == connection else { throw .badReference }
    maps[number] = nil
  }

  /// Pages of `owner` that others have mapped now, also when it is gone.
  func mappedPageCount(of owner: DomainID) -> Int {
    maps.values.reduce(0) { $0 + ($1.owner == owner ? $1.pageCount : 0) }
  }
}
