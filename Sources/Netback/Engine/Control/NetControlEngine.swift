public import RingKit

/// The control ring of one interface (netif.h, "Control ring"): answers each request exactly once. No system
/// call and no clock after `init`.
///
/// Hash requests are answered in the turn that takes them. Requests about staging grants that have to map or
/// unmap are done one after the other, some pages a turn, and are answered when they are through: hash
/// requests that came later do not wait for them. To close, drop the engine: the pages are unmapped when the
/// queues have dropped their tables too. Before that, ``beginClosing()`` and turns until ``pendingCount`` is 0
/// leave the ring such that another backend can go on in it: it would begin at the first request that is not
/// answered, and an answer that came earlier than that stands in a request's place.
public struct NetControlEngine<Host: NetControlHost & ~Copyable>: ~Copyable {
  /// Requests that one turn takes.
  static var requestBudget: Int { 32 }
  /// Pages that one turn maps or unmaps: each is a system call.
  static var pageBudget: Int { 16 }

  var ring: BackRing
  var request = SlotCopy()
  var batch = GrantCopyBatch(capacity: 1)
  /// Private memory that tables are copied to and lists from.
  let page: MappedPages
  let domain: DomainID
  var failure: RingError?
  var isHashChanged = false
  var isClosing = false
  /// Requests about staging grants that were taken and not begun, the first one first; at most a ring of them.
  var waiting: [NetControlRequest] = []
  /// The one that is at work.
  var operation: StagingOperation?
  var nextToken: UInt32 = 0
  /// What each queue has been told to have, by reference. Never iterated.
  var staged: [[GrantReference: StagedPage]]

  /// Queues of the interface: entries of a mapping are below it.
  public let queueCount: Int
  /// Pages that each queue may have staged; 0 when that is not offered.
  public let stagingCapacity: Int
  /// What is set about hashes.
  public internal(set) var hash = NetHashState()
  /// Requests taken since the ring was connected.
  public private(set) var takenCount: UInt64 = 0

  /// Makes the engine of a connected ring, whose slots have ``NetControlRequest/byteCount`` bytes. `queueCount`
  /// is what the frontend's keys say, whether the queues run yet or not; `stagingCapacity`, 0...65536, bounds
  /// what a guest can have mapped on each of them. Throws what could not be allocated.
  public init(
    ring: consuming BackRing, domain: DomainID, queueCount: Int, stagingCapacity: Int
  ) throws(SystemError) {
    precondition(queueCount > 0 && queueCount <= Int(UInt16.max))
    precondition(stagingCapacity >= 0 && stagingCapacity <= 1 << 16)
    page = try MappedPages.anonymous(pageCount: 1)
    waiting.reserveCapacity(ring.slotCount)
    self.ring = ring
    self.domain = domain
    self.queueCount = queueCount
    self.stagingCapacity = stagingCapacity
    staged = [[GrantReference: StagedPage]](repeating: [:], count: queueCount)
  }

  /// Takes no more requests. Those that were taken are still answered: those to add pages that were not begun
  /// with a failure, so that a guest cannot draw out its own end.
  public mutating func beginClosing() { isClosing = true }

  /// Requests taken and not answered.
  public var pendingCount: Int { waiting.count + (operation == nil ? 0 : 1) }

  /// Pages that a queue has been told to have.
  public func stagedCount(onQueue queue: Int) -> Int { staged[queue].count }

  /// Takes requests, goes on with what is under way, answers what is done. Call it after an event, and after
  /// ``unstaged(token:)``. The work of a turn is bounded, whatever the frontend does meanwhile.
  public mutating func run(host: inout Host) -> NetTurn {
    let isOutOfBudget = takeRequests(host: &host)
    advanceStaging(host: &host)
    if isHashChanged {
      isHashChanged = false
      host.setHash(hash)
    }
    if ring.publish() { host.notifyControl() }
    if let failure { return .broken(.ring(failure)) }
    if isOutOfBudget || canAdvanceStaging { return .more }
    if isClosing { return .idle }
    do throws(RingError) {
      return try ring.finalCheck() ? .more : .idle
    } catch {
      failure = error
      return .broken(.ring(error))
    }
  }

  /// Takes requests until there are none; true when the turn's budget ended it.
  private mutating func takeRequests(host: inout Host) -> Bool {
    guard failure == nil, !isClosing else { return false }
    do throws(RingError) {
      for _ in 0..<Self.requestBudget {
        if ring.unconsumed == 0 {
          guard try ring.refresh() > 0 else { return false }
        }
        guard ring.take(into: &request) else { return false }
        takenCount += 1
        accept(NetControlRequest(request), host: &host)
      }
    } catch {
      failure = error
      return false
    }
    return true
  }

  private mutating func accept(_ request: NetControlRequest, host: inout Host) {
    switch request.type {
    case .getHashFlags:
      if hash.algorithm == .none {
        respond(to: request, .notSupported)
      } else {
        respond(to: request, .success, data: NetHashTypes.all.rawValue)
      }
    case .setHashFlags: respond(to: request, setHashTypes(request.data.0))
    case .setHashKey:
      let reference = GrantReference(rawValue: request.data.0)
      respond(to: request, setHashKey(reference, byteCount: request.data.1, host: &host))
    case .getHashMappingSize:
      respond(to: request, .success, data: UInt32(NetHashState.maximumMappingCount))
    case .setHashMappingSize: respond(to: request, setHashMappingSize(request.data.0))
    case .setHashMapping:
      let reference = GrantReference(rawValue: request.data.0)
      respond(
        to: request, setHashMapping(reference, count: request.data.1, first: request.data.2, host: &host))
    case .setHashAlgorithm: respond(to: request, setHashAlgorithm(request.data.0))
    case .getGrantMappingSize:
      if request.data.0 < UInt32(queueCount) {
        respond(to: request, .success, data: UInt32(stagingCapacity))
      } else {
        respond(to: request, .invalidParameter)
      }
    case .addGrantMapping, .deleteGrantMapping: acceptStaging(request)
    default: respond(to: request, .notSupported)
    }
  }

  /// Puts the answer into the ring; the turn's end publishes it.
  mutating func respond(to request: NetControlRequest, _ status: NetControlStatus, data: UInt32 = 0) {
    let response = NetControlResponse(id: request.id, type: request.type, status: status, data: data)
    ring.respond(response.encode(), byteCount: NetControlResponse.byteCount)
  }

  /// Copies the first bytes of a granted page to our own or back; false unless all went well.
  mutating func copy(
    _ byteCount: Int, of reference: GrantReference, toGuest: Bool, host: inout Host
  ) -> Bool {
    batch.removeAll()
    batch.append(
      GrantCopyBatch.Segment(
        toGuest: toGuest, domain: domain, reference: reference, pageOffset: 0,
        local: page.segment(offset: 0, length: byteCount)))
    host.copy(&batch)
    return batch.status(at: 0) == 0
  }
}
