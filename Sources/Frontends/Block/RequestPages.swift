import Blkback
import RingKit

/// The data pages of the requests of one queue: taken from a pool, or shared anew for each request.
final class RequestPages {
  private enum Source {
    case none
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
  /// Places of each request: its data pages, then its descriptor pages.
  let stride: Int
  /// Pool pages by request and position.
  private var places: [UInt16]
  /// Pages shared for one request only, by request.
  private var own: [SharedPages?]

  /// Has no pages: requests with data have to wait.
  init() {
    source = .none
    stride = 0
    places = []
    own = []
  }

  /// Serves `capacity` requests of up to `stride` pages from a pool.
  init(pool: GrantedPagePool, capacity: Int, stride: Int = maximumDirectSegments) {
    source = .pool(pool)
    self.stride = stride
    places = Array(repeating: 0, count: capacity * stride)
    own = []
  }

  /// Serves `capacity` requests with up to `stride` pages shared for each.
  init(
    sharing: any GrantSharing, with domain: DomainID, capacity: Int, stride: Int = maximumDirectSegments
  ) {
    source = .each(sharing, domain)
    self.stride = stride
    places = []
    own = Array(repeating: nil, count: capacity)
  }

  /// False for the pages of a queue that was not yet connected.
  var exist: Bool { stride > 0 }

  /// Gives the request `count` pages, 0...stride; false when the pool has too few just now.
  func acquire(_ count: Int, for request: Int, access: GrantAccess) throws(GrantError) -> Bool {
    guard count > 0 else { return true }
    precondition(count <= stride || !exist)
    switch source {
    case .none: return false
    case .pool(let pool):
      guard pool.freeCount >= count else { return false }
      for position in 0..<count {
        guard let page = pool.take() else { return false }
        places[request * stride + position] = UInt16(page)
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
    case .none: break
    case .pool(let pool):
      // Backwards, so that the same pages come in the same order for the next request.
      for position in (0..<count).reversed() {
        pool.give(Int(places[request * stride + position]))
      }
    case .each: own[request] = nil
    }
  }

  /// Page `position` of the request.
  func page(_ position: Int, of request: Int) -> Page {
    switch source {
    case .none: preconditionFailure("there are no pages")
    case .pool(let pool):
      let page = Int(places[request * stride + position])
      return Page(
        pages: pool.shared.pages, offset: page * pageByteCount, reference: pool.shared.references[page])
    case .each:
      guard let shared = own[request] else { preconditionFailure("the request has no pages") }
      return Page(
        pages: shared.pages, offset: position * pageByteCount, reference: shared.references[position])
    }
  }
}
