import Blkback
import RingKit

/// The data pages of the requests of one queue: taken from a pool, or shared anew for each request.
final class RequestPages {
  private enum Source {
    case pool(GrantedPagePool)
    case each(any GrantSharing, DomainID)
  }

  /// One page of one request.
  struct Page {
    let pages: MappedPages
    /// First byte within ``pages``.
    let offset: Int
    let reference: GrantReference
  }

  private let source: Source
  /// Pool pages by request and position, 11 places a request.
  private var places: [UInt16]
  /// Pages shared for one request only, by request.
  private var own: [SharedPages?]

  /// Serves `capacity` requests from a pool.
  init(pool: GrantedPagePool, capacity: Int) {
    source = .pool(pool)
    places = Array(repeating: 0, count: capacity * maximumDirectSegments)
    own = []
  }

  /// Serves `capacity` requests with pages shared for each.
  init(sharing: any GrantSharing, with domain: DomainID, capacity: Int) {
    source = .each(sharing, domain)
    places = []
    own = Array(repeating: nil, count: capacity)
  }

  /// Gives the request `count` pages, 0...11; false when the pool has too few just now.
  func acquire(_ count: Int, for request: Int, access: GrantAccess) throws(GrantError) -> Bool {
    guard count > 0 else { return true }
    switch source {
    case .pool(let pool):
      guard pool.freeCount >= count else { return false }
      for position in 0..<count {
        guard let page = pool.take() else { return false }
        places[request * maximumDirectSegments + position] = UInt16(page)
      }
    case .each(let sharing, let domain):
      own[request] = try sharing.share(pageCount: count, with: domain, access: access)
    }
    return true
  }

  /// Takes the request's `count` pages back.
  func release(_ count: Int, of request: Int) {
    guard count > 0 else { return }
    switch source {
    case .pool(let pool):
      // Backwards, so that the same pages come in the same order for the next request.
      for position in (0..<count).reversed() {
        pool.give(Int(places[request * maximumDirectSegments + position]))
      }
    case .each: own[request] = nil
    }
  }

  /// Page `position` of the request.
  func page(_ position: Int, of request: Int) -> Page {
    switch source {
    case .pool(let pool):
      let page = Int(places[request * maximumDirectSegments + position])
      return Page(
        pages: pool.shared.pages, offset: page * pageByteCount, reference: pool.shared.references[page])
    case .each:
      guard let shared = own[request] else { preconditionFailure("the request has no pages") }
      return Page(
        pages: shared.pages, offset: position * pageByteCount, reference: shared.references[position])
    }
  }
}
