/// The backend's end of a shared ring (ring.h, BACK_RING_*): takes requests, each copied out once, and
/// publishes responses.
///
/// The frontend may write anything to the pages at any time. All it can achieve is an error of ``refresh()``
/// or ``finalCheck()``; with the first one the ring is broken for good, and its pages are not touched again.
/// The ring owns the mapping and belongs to one thread at a time.
@frozen
public struct BackRing: ~Copyable, Sendable {
  @usableFromInline let shared: SharedRing
  @usableFromInline var indices: BackIndices<UInt32>
  @usableFromInline var latchedFault: RingError?

  /// A ring that was never used, with all counters at 0 (ring.h, BACK_RING_INIT).
  ///
  /// `slotByteCount` is the protocol's larger message: 4 to 128 bytes, a multiple of 4. Throws if the
  /// frontend's producer already overruns the ring.
  public init(pages: MappedPages, slotByteCount: Int) throws(RingError) {
    let start = RingPosition(requestConsumer: 0, responseProducer: 0, responseProducerPrivate: 0)
    try self.init(pages: pages, slotByteCount: slotByteCount, resumingAt: start)
  }

  /// A ring that may have been used before by a backend which answered all it took: counting goes on at the
  /// page's `rsp_prod` (ring.h, BACK_RING_ATTACH). Throws if `req_prod` is further ahead of it than there are
  /// slots.
  public init(attaching pages: MappedPages, slotByteCount: Int) throws(RingError) {
    let shared = SharedRing(pages: pages, slotByteCount: slotByteCount)
    let producer = shared.loadProducer(.responseProducer)
    let start = RingPosition(
      requestConsumer: producer, responseProducer: producer, responseProducerPrivate: producer)
    let indices = try BackRing.indices(of: shared, at: start)
    self.init(shared: shared, indices: indices)
  }

  /// A ring that another process served until `position`, which it kept outside of itself. Throws if the
  /// position is impossible, or if the frontend's producer contradicts it.
  public init(pages: MappedPages, slotByteCount: Int, resumingAt position: RingPosition) throws(RingError) {
    let shared = SharedRing(pages: pages, slotByteCount: slotByteCount)
    let indices = try BackRing.indices(of: shared, at: position)
    self.init(shared: shared, indices: indices)
  }

  private init(shared: consuming SharedRing, indices: BackIndices<UInt32>) {
    self.shared = shared
    self.indices = indices
    latchedFault = nil
  }

  /// The indices at `position`, if that is possible and the frontend's producer agrees with it.
  private static func indices(
    of shared: borrowing SharedRing, at position: RingPosition
  ) throws(RingError) -> BackIndices<UInt32> {
    let slotCount = shared.slotCount
    let indices = BackIndices(
      slotCount: slotCount, requestConsumer: position.requestConsumer,
      responseProducer: position.responseProducerPrivate, published: position.responseProducer)
    guard var indices else { throw .impossiblePosition(position, slots: Int(slotCount)) }
    let producer = shared.loadProducer(.requestProducer)
    let verdict = indices.accept(producer)
    guard verdict == .accepted else { throw indices.fault(producer: producer, verdict: verdict) }
    return indices
  }

  /// What broke the ring, if anything did; from then on it refuses all access.
  @inlinable public var fault: RingError? { latchedFault }

  /// Slots in the ring; no more requests than this are ever in flight.
  @inlinable public var slotCount: Int { Int(indices.slotCount) }

  /// Bytes in a slot, all of which ``take(into:)`` copies.
  @inlinable public var slotByteCount: Int { shared.slotByteCount }

  /// Where the ring stands, to be kept where another process can find it.
  @inlinable public var position: RingPosition {
    RingPosition(
      requestConsumer: indices.requestConsumer, responseProducer: indices.published,
      responseProducerPrivate: indices.responseProducer)
  }

  /// Requests that the last refresh found and that were not yet taken.
  @inlinable public var unconsumed: Int { Int(indices.unconsumed) }

  /// Requests taken and not yet answered.
  @inlinable public var unanswered: Int { Int(indices.unanswered) }

  /// Reads the frontend's producer, once, and returns the requests that can be taken: 0 to ``slotCount``.
  @inlinable
  public mutating func refresh() throws(RingError) -> Int {
    if let latchedFault { throw latchedFault }
    let producer = shared.loadProducer(.requestProducer)
    let verdict = indices.accept(producer)
    guard verdict == .accepted else { throw breakRing(producer: producer, verdict: verdict) }
    return unconsumed
  }

  /// Copies the next request out, each byte once, and steps past its slot; false if the last refresh found no
  /// more. Bytes of `copy` beyond ``slotByteCount`` keep their values.
  @inlinable
  public mutating func take(into copy: inout SlotCopy) -> Bool {
    guard let index = indices.take() else { return false }
    shared.copySlot(at: index, into: &copy, byteCount: shared.slotByteCount)
    return true
  }

  /// Writes the first `byteCount` bytes (1 to ``slotByteCount``) of a response into the next slot, where the
  /// frontend does not look before ``publish()``. They are copied as they are, so every one must be defined
  /// (XSA-216). Traps without a taken request that awaits its response; a broken ring ignores it.
  @inlinable
  public mutating func respond(_ response: SlotCopy, byteCount: Int) {
    guard latchedFault == nil else { return }
    shared.fillSlot(at: indices.respond(), from: response, byteCount: byteCount)
  }

  /// Lets the frontend see the responses written since the last time; true if it wants an event for that
  /// (ring.h, RING_PUSH_RESPONSES_AND_CHECK_NOTIFY).
  @inlinable
  public mutating func publish() -> Bool { publish(afterEachAccess: {}) }

  /// ``publish()``, with the other side free to act after each access to the page: simulations decide there
  /// what it does at just that moment.
  @inlinable @inline(__always)
  public mutating func publish(afterEachAccess act: () -> Void) -> Bool {
    let old = indices.published
    let new = indices.responseProducer
    guard latchedFault == nil, old != new else { return false }
    indices.published = new
    shared.storeProducer(.responseProducer, new)
    act()
    let event = shared.loadEvent(.responseEvent)
    act()
    return ringNotificationIsDue(old: old, new: new, event: event)
  }

  /// The last look before waiting for an event (ring.h, RING_FINAL_CHECK_FOR_REQUESTS): false if no request
  /// is left and the next one brings an event; true if there is something to take.
  @inlinable
  public mutating func finalCheck() throws(RingError) -> Bool { try finalCheck(forRequests: 1) }

  /// The last look before waiting for `count` requests, 1 to ``slotCount``: false if fewer are left and the
  /// one that completes their number brings an event, which those before it do not; true if as many can be
  /// taken.
  ///
  /// Publish first: an unpublished response keeps the frontend from its slot, and it may never post as many.
  @inlinable
  public mutating func finalCheck(forRequests count: Int) throws(RingError) -> Bool {
    try finalCheck(forRequests: count, afterEachAccess: {})
  }

  /// ``finalCheck()``, with the other side free to act after each access to the page, as in
  /// ``publish(afterEachAccess:)``.
  @inlinable @inline(__always)
  public mutating func finalCheck(afterEachAccess act: () -> Void) throws(RingError) -> Bool {
    try finalCheck(forRequests: 1, afterEachAccess: act)
  }

  /// ``finalCheck(forRequests:)``, with the other side free to act after each access to the page.
  @inlinable @inline(__always)
  public mutating func finalCheck(
    forRequests count: Int, afterEachAccess act: () -> Void
  ) throws(RingError) -> Bool {
    precondition(count > 0 && count <= slotCount)
    let before = try refresh()
    act()
    guard before < count else { return true }
    // Counted from the consumer: what is posted already does not bring the event at once.
    shared.storeEvent(.requestEvent, indices.requestConsumer &+ UInt32(count))
    act()
    let after = try refresh()
    act()
    return after >= count
  }

  @usableFromInline
  mutating func breakRing(producer: UInt32, verdict: RingVerdict) -> RingError {
    let fault = indices.fault(producer: producer, verdict: verdict)
    latchedFault = fault
    indices.abandon()
    return fault
  }
}

extension BackIndices<UInt32> {
  /// The error that a refused `producer` is reported as.
  func fault(producer: UInt32, verdict: RingVerdict) -> RingError {
    switch verdict {
    case .behind:
      .producerBehind(producer: producer, consumer: requestConsumer, slots: Int(slotCount))
    case .overflow, .accepted:
      .producerOverflow(producer: producer, consumer: requestConsumer, slots: Int(slotCount))
    }
  }
}
