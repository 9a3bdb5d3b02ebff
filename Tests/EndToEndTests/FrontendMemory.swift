import RingKit

/// Pages as a host shares them, without a host: references are numbered from a base.
func sharedPages(_ count: Int, firstReference: UInt32 = 1000) throws -> SharedPages {
  SharedPages(
    pages: try MappedPages.anonymous(pageCount: count),
    references: (0..<UInt32(count)).map { GrantReference(rawValue: firstReference + $0) })
}

/// A host's sharing without a host: counts what it gave out, and notes each access asked for.
final class PrivateSharing: GrantSharing {
  private(set) var accesses: [GrantAccess] = []
  private var next: UInt32 = 1

  func share(pageCount: Int, with domain: DomainID, access: GrantAccess) throws(GrantError) -> SharedPages {
    accesses.append(access)
    let first = next
    next += UInt32(pageCount)
    do throws(SystemError) {
      return SharedPages(
        pages: try MappedPages.anonymous(pageCount: pageCount),
        references: (0..<UInt32(pageCount)).map { GrantReference(rawValue: first + $0) })
    } catch {
      throw GrantError(operation: "share", errno: error.errno)
    }
  }
}
