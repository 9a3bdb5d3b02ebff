/// What a producer index read from the page amounts to.
@frozen @usableFromInline
enum RingVerdict: Equatable {
  /// Plausible, and taken over.
  case accepted
  /// More messages than there are slots, or than were asked for.
  case overflow
  /// Takes back messages that were already consumed.
  case behind
}

/// Whether moving a producer from `old` to `new` passed the `event` index at which the other side asked to be
/// notified (ring.h, RING_PUSH_REQUESTS_AND_CHECK_NOTIFY and its mirror).
@inlinable
func ringNotificationIsDue<Index: FixedWidthInteger & UnsignedInteger>(
  old: Index, new: Index, event: Index
) -> Bool {
  new &- event < new &- old
}

/// The arithmetic of a ring's backend, without the ring: counters that wrap, and what may be believed of the
/// other side's counter.
///
/// Generic over the counter's width, so that a test tries every state of 8-bit counters on the code that runs
/// with 32-bit ones. In ring order `published <= responseProducer <= requestConsumer <= requestProducer`, and
/// `requestProducer <= responseProducer + slotCount`.
@frozen @usableFromInline
struct BackIndices<Index: FixedWidthInteger & UnsignedInteger & BitwiseCopyable & Sendable>:
  BitwiseCopyable, Equatable, Sendable
{
  /// Slots in the ring, a power of two.
  @usableFromInline let slotCount: Index
  /// The last accepted `req_prod`.
  @usableFromInline var requestProducer: Index
  /// The next request to take (`req_cons`).
  @usableFromInline var requestConsumer: Index
  /// The next response to write (`rsp_prod_pvt`).
  @usableFromInline var responseProducer: Index
  /// The `rsp_prod` that the frontend can see.
  @usableFromInline var published: Index

  /// A backend at these indices that knows of no request yet; nil if they cannot belong together.
  @inlinable
  init?(slotCount: Index, requestConsumer: Index, responseProducer: Index, published: Index) {
    guard requestConsumer &- responseProducer <= slotCount, responseProducer &- published <= slotCount
    else { return nil }
    self.slotCount = slotCount
    requestProducer = requestConsumer
    self.requestConsumer = requestConsumer
    self.responseProducer = responseProducer
    self.published = published
  }

  /// Requests accepted and not yet taken.
  @inlinable var unconsumed: Index { requestProducer &- requestConsumer }

  /// Requests taken and not yet answered.
  @inlinable var unanswered: Index { requestConsumer &- responseProducer }

  /// What a `req_prod` read from the page amounts to (ring.h, RING_REQUEST_PROD_OVERFLOW, and one rule more:
  /// it never goes behind the consumer); if plausible, it is taken over.
  @inlinable
  mutating func accept(_ producer: Index) -> RingVerdict {
    // One comparison covers both faults: a producer behind the consumer is far ahead of it, modulo the width.
    guard producer &- requestConsumer <= slotCount &- unanswered else {
      return producer &- responseProducer <= slotCount ? .behind : .overflow
    }
    requestProducer = producer
    return .accepted
  }

  /// Takes the next request: its index, or nil if none is left.
  @inlinable
  mutating func take() -> Index? {
    guard requestProducer != requestConsumer else { return nil }
    defer { requestConsumer &+= 1 }
    return requestConsumer
  }

  /// The index of the next response; traps unless a taken request awaits one.
  @inlinable
  mutating func respond() -> Index {
    precondition(responseProducer != requestConsumer, "a response without a request")
    defer { responseProducer &+= 1 }
    return responseProducer
  }

  /// Forgets requests that were accepted and not taken: nothing more is believed of this ring.
  @inlinable
  mutating func abandon() { requestProducer = requestConsumer }
}

/// The arithmetic of a ring's frontend, the mirror of ``BackIndices``.
///
/// In ring order `responseConsumer <= responseProducer <= pushed <= requestProducer`, and
/// `requestProducer <= responseConsumer + slotCount`.
@frozen @usableFromInline
struct FrontIndices<Index: FixedWidthInteger & UnsignedInteger & BitwiseCopyable & Sendable>:
  BitwiseCopyable, Equatable, Sendable
{
  /// Slots in the ring, a power of two.
  @usableFromInline let slotCount: Index
  /// The next request to write (`req_prod_pvt`).
  @usableFromInline var requestProducer: Index
  /// The `req_prod` that the backend can see.
  @usableFromInline var pushed: Index
  /// The last accepted `rsp_prod`.
  @usableFromInline var responseProducer: Index
  /// The next response to take (`rsp_cons`).
  @usableFromInline var responseConsumer: Index

  /// An empty ring whose counters stand at `index`.
  @inlinable
  init(slotCount: Index, startingAt index: Index) {
    self.slotCount = slotCount
    requestProducer = index
    pushed = index
    responseProducer = index
    responseConsumer = index
  }

  /// Slots without a request or an untaken response (ring.h, RING_FREE_REQUESTS).
  @inlinable var free: Index { slotCount &- (requestProducer &- responseConsumer) }

  /// Responses accepted and not yet taken.
  @inlinable var unconsumed: Index { responseProducer &- responseConsumer }

  /// Requests pushed whose response was not yet taken.
  @inlinable var outstanding: Index { pushed &- responseConsumer }

  /// What a `rsp_prod` read from the page amounts to; if plausible, it is taken over. Stricter than ring.h's
  /// RING_RESPONSE_PROD_OVERFLOW: a backend cannot have answered what was not pushed.
  @inlinable
  mutating func accept(_ producer: Index) -> RingVerdict {
    guard producer &- responseConsumer <= outstanding else {
      // Only the message depends on which way it is wrong.
      return responseConsumer &- producer <= slotCount ? .behind : .overflow
    }
    responseProducer = producer
    return .accepted
  }

  /// The index of the next request; traps if no slot is free.
  @inlinable
  mutating func place() -> Index {
    precondition(free != 0, "a request without a free slot")
    defer { requestProducer &+= 1 }
    return requestProducer
  }

  /// Takes the next response: its index, or nil if none is left.
  @inlinable
  mutating func take() -> Index? {
    guard responseProducer != responseConsumer else { return nil }
    defer { responseConsumer &+= 1 }
    return responseConsumer
  }

  /// Forgets responses that were accepted and not taken.
  @inlinable
  mutating func abandon() { responseProducer = responseConsumer }
}
