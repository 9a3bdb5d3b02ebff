/// The frontend's end of a shared ring (ring.h, FRONT_RING_*): places requests and takes responses.
///
/// It trusts the backend no more than ``BackRing`` trusts a frontend: each response is copied out once, and a
/// response producer that runs ahead of the requests breaks the ring for good. The ring owns the mapping and
/// belongs to one thread at a time.
@frozen
public struct FrontRing: ~Copyable, Sendable {
  @usableFromInline let shared: SharedRing
  @usableFromInline var indices: FrontIndices<UInt32>
  @usableFromInline var latchedFault: RingError?

  /// Formats the pages' header for a new ring (ring.h, SHARED_RING_INIT): empty, with an event due for the
  /// first message of either side.
  ///
  /// `slotByteCount` is the protocol's larger message: 4 to 128 bytes, a multiple of 4. Counters start at
  /// `index`: 0 for a backend that initialises, anything for one that attaches at `rsp_prod`. Slots are left
  /// as they are.
  public init(pages: MappedPages, slotByteCount: Int, startingAt index: UInt32 = 0) {
    shared = SharedRing(pages: pages, slotByteCount: slotByteCount)
    indices = FrontIndices(slotCount: shared.slotCount, startingAt: index)
    latchedFault = nil
    shared.format(index: index)
  }

  /// What broke the ring, if anything did; from then on it refuses all access.
  @inlinable public var fault: RingError? { latchedFault }

  /// Slots in the ring.
  @inlinable public var slotCount: Int { Int(indices.slotCount) }

  /// Bytes in a slot, all of which ``place(_:)`` writes.
  @inlinable public var slotByteCount: Int { shared.slotByteCount }

  /// Slots where a request can be placed now (ring.h, RING_FREE_REQUESTS).
  @inlinable public var freeSlotCount: Int { Int(indices.free) }

  /// Requests pushed whose responses were not yet taken.
  @inlinable public var outstanding: Int { Int(indices.outstanding) }

  /// Responses that the last refresh found and that were not yet taken.
  @inlinable public var unconsumed: Int { Int(indices.unconsumed) }

  /// Writes a request into the next slot, where the backend does not look before ``push()``. Traps if no slot
  /// is free; a broken ring ignores it.
  @inlinable
  public mutating func place(_ request: SlotCopy) {
    guard latchedFault == nil else { return }
    shared.fillSlot(at: indices.place(), from: request, byteCount: shared.slotByteCount)
  }

  /// Lets the backend see the requests placed since the last time; true if it wants an event for that
  /// (ring.h, RING_PUSH_REQUESTS_AND_CHECK_NOTIFY).
  @inlinable
  public mutating func push() -> Bool { push(afterEachAccess: {}) }

  /// ``push()``, with the other side free to act after each access to the page: simulations decide there what
  /// it does at just that moment.
  @inlinable @inline(__always)
  public mutating func push(afterEachAccess act: () -> Void) -> Bool {
    let old = indices.pushed
    let new = indices.requestProducer
    guard latchedFault == nil, old != new else { return false }
    indices.pushed = new
    shared.storeProducer(.requestProducer, new)
    act()
    let event = shared.loadEvent(.requestEvent)
    act()
    return ringNotificationIsDue(old: old, new: new, event: event)
  }

  /// Reads the backend's producer, once, and returns the responses that can be taken: 0 to ``outstanding``.
  @inlinable
  public mutating func refreshResponses() throws(RingError) -> Int {
    if let latchedFault { throw latchedFault }
    let producer = shared.loadProducer(.responseProducer)
    let verdict = indices.accept(producer)
    guard verdict == .accepted else { throw breakRing(producer: producer, verdict: verdict) }
    return unconsumed
  }

  /// Copies the first `byteCount` bytes (1 to ``slotByteCount``) of the next response out, each once, and
  /// frees its slot; false if the last refresh found no more. The other bytes of `copy` keep their values.
  @inlinable
  public mutating func takeResponse(into copy: inout SlotCopy, byteCount: Int) -> Bool {
    guard let index = indices.take() else { return false }
    shared.copySlot(at: index, into: &copy, byteCount: byteCount)
    return true
  }

  /// The last look before waiting for an event (ring.h, RING_FINAL_CHECK_FOR_RESPONSES): false if no response
  /// is left and the next one brings an event; true if there is something to take.
  @inlinable
  public mutating func finalCheckResponses() throws(RingError) -> Bool {
    try finalCheckResponses(afterEachAccess: {})
  }

  /// ``finalCheckResponses()``, with the other side free to act after each access to the page, as in
  /// ``push(afterEachAccess:)``.
  @inlinable @inline(__always)
  public mutating func finalCheckResponses(afterEachAccess act: () -> Void) throws(RingError) -> Bool {
    let before = try refreshResponses()
    act()
    guard before == 0 else { return true }
    return try requestEvent(afterResponses: 1, afterEachAccess: act)
  }

  /// Asks for an event only when `count` (1 to ``slotCount``) responses wait to be taken, and looks once
  /// more: true if as many are there already, so that no event may come.
  @inlinable
  public mutating func requestEvent(afterResponses count: Int) throws(RingError) -> Bool {
    try requestEvent(afterResponses: count, afterEachAccess: {})
  }

  @inlinable @inline(__always)
  mutating func requestEvent(
    afterResponses count: Int, afterEachAccess act: () -> Void
  ) throws(RingError) -> Bool {
    precondition(count > 0 && count <= slotCount)
    if let latchedFault { throw latchedFault }
    shared.storeEvent(.responseEvent, indices.responseConsumer &+ UInt32(count))
    act()
    let waiting = try refreshResponses()
    act()
    return waiting >= count
  }

  @usableFromInline
  mutating func breakRing(producer: UInt32, verdict: RingVerdict) -> RingError {
    let fault: RingError =
      switch verdict {
      case .behind:
        .producerBehind(producer: producer, consumer: indices.responseConsumer, slots: slotCount)
      case .overflow, .accepted:
        .unrequestedResponses(
          producer: producer, consumer: indices.responseConsumer, outstanding: outstanding)
      }
    latchedFault = fault
    indices.abandon()
    return fault
  }
}
