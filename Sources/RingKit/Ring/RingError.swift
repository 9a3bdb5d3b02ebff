/// What the other side did to make a ring unusable. The ring refuses all access from then on; the device
/// recovers when the frontend reconnects with a new ring.
@frozen
public enum RingError: Error, Equatable, Sendable, CustomStringConvertible {
  /// The other side's producer ran further ahead than there are slots to fill
  /// (ring.h, RING_REQUEST_PROD_OVERFLOW and RING_RESPONSE_PROD_OVERFLOW).
  case producerOverflow(producer: UInt32, consumer: UInt32, slots: Int)
  /// The other side's producer went back behind what was already consumed.
  case producerBehind(producer: UInt32, consumer: UInt32, slots: Int)
  /// The backend answered requests which were never pushed.
  case unrequestedResponses(producer: UInt32, consumer: UInt32, outstanding: Int)
  /// A saved position whose indices cannot belong together.
  case impossiblePosition(RingPosition, slots: Int)

  /// What happened, with the indices, and what ends it.
  public var description: String {
    switch self {
    case .producerOverflow(let producer, let consumer, let slots):
      "the other side's ring producer \(producer) overruns the ring of \(slots) slots (consumer "
        + "\(consumer)); the ring is broken until the frontend reconnects"
    case .producerBehind(let producer, let consumer, let slots):
      "the other side's ring producer went back to \(producer), behind consumer \(consumer), in the ring of "
        + "\(slots) slots; the ring is broken until the frontend reconnects"
    case .unrequestedResponses(let producer, let consumer, let outstanding):
      "the backend's response producer \(producer) is past the \(outstanding) outstanding requests (consumer "
        + "\(consumer)); the ring is broken until the frontend reconnects"
    case .impossiblePosition(let position, let slots):
      "the saved position \(position) is impossible in a ring of \(slots) slots; the table it came from "
        + "is damaged, so the frontend must reconnect"
    }
  }
}

/// Where a backend stands in a ring: enough to go on in another process, with the table of requests in
/// flight.
///
/// Indices are counters modulo 2^32 (ring.h, RING_IDX), and in ring order
/// `responseProducer <= responseProducerPrivate <= requestConsumer`.
@frozen
public struct RingPosition: BitwiseCopyable, Equatable, Sendable, CustomStringConvertible {
  /// The next request to take (`req_cons`).
  public var requestConsumer: UInt32
  /// The next response to publish: what `rsp_prod` in the page said last.
  public var responseProducer: UInt32
  /// The next response to write (`rsp_prod_pvt`).
  public var responseProducerPrivate: UInt32

  /// Puts a position together.
  @inlinable
  public init(requestConsumer: UInt32, responseProducer: UInt32, responseProducerPrivate: UInt32) {
    self.requestConsumer = requestConsumer
    self.responseProducer = responseProducer
    self.responseProducerPrivate = responseProducerPrivate
  }

  /// The three indices by their names in ring.h.
  public var description: String {
    "(req_cons \(requestConsumer), rsp_prod \(responseProducer), rsp_prod_pvt \(responseProducerPrivate))"
  }
}
