public import RingKit

/// A guest's memory and grant table, and the world's record of who may touch what.
public final class SimulatedGuest {
  /// The guest's domain.
  public let domain: DomainID
  /// All of its memory that it ever grants.
  public let memory: MappedPages

  struct Grant {
    var page: Int
    var isReadOnly: Bool
  }

  private var grants: [UInt32: Grant] = [:]
  private var nextReference: UInt32

  /// A guest with `pageCount` pages whose grant references begin at `firstReference`.
  public init(
    pageCount: Int, firstReference: UInt32 = 8, domain: DomainID = DomainID(rawValue: 7)
  ) throws(SystemError) {
    self.domain = domain
    memory = try MappedPages.anonymous(pageCount: pageCount)
    nextReference = firstReference
  }

  /// Grants a page under a new reference.
  public func grant(page: Int, readOnly: Bool = false) -> GrantReference {
    precondition(page >= 0 && page < memory.pageCount)
    defer { nextReference += 1 }
    grants[nextReference] = Grant(page: page, isReadOnly: readOnly)
    return GrantReference(rawValue: nextReference)
  }

  /// Ends a grant; a mapping that exists goes on, as on Xen.
  public func revoke(_ reference: GrantReference) { grants[reference.rawValue] = nil }

  /// The granted page, if `reference` allows the access now.
  func page(of reference: GrantReference, forWriting: Bool) -> Int? {
    guard let grant = grants[reference.rawValue], !(forWriting && grant.isReadOnly) else { return nil }
    return grant.page
  }

  /// Names all bytes of a page.
  func segment(ofPage page: Int) -> IOSegment {
    memory.segment(offset: page * pageByteCount, length: pageByteCount)
  }

  /// The page that an address lies in, if it lies in this memory.
  func page(at address: UInt) -> Int? {
    let whole = memory.segment(offset: 0, length: memory.byteCount)
    guard address >= whole.address && address - whole.address < whole.length else { return nil }
    return Int(address - whole.address) / pageByteCount
  }

  /// A copy of a page as 512 words.
  public func words(ofPage page: Int) -> [UInt64] {
    memory.copyWords(at: page * pageByteCount, count: pageByteCount / 8)
  }

  /// Overwrites a page from its first word on.
  public func write(_ words: [UInt64], toPage page: Int) {
    precondition(words.count <= pageByteCount / 8)
    memory.setWords(words, at: page * pageByteCount)
  }
}
