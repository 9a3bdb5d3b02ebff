import Netback
import RingKit

/// A ring as a network frontend has it. The first response that breaks the rules disables it: from then on
/// whatever looks for responses throws what that was.
struct NetFrontendRing: ~Copyable {
  /// The ring itself.
  var slots: FrontRing
  /// The ring's queue; nil for the control ring.
  private let queue: Int?
  private var fault: NetFrontendError?

  /// A new ring on `pages` (``FrontRing/init(pages:slotByteCount:startingAt:)``).
  init(pages: MappedPages, slotByteCount: Int, startingAt index: UInt32, queue: Int?) {
    slots = FrontRing(pages: pages, slotByteCount: slotByteCount, startingAt: index)
    self.queue = queue
  }

  /// Throws when the ring is disabled.
  func check() throws(NetFrontendError) {
    if let fault { throw fault }
  }

  /// True when a response can be taken.
  mutating func hasResponses() throws(NetFrontendError) -> Bool {
    try look { slots throws(RingError) in try slots.refreshResponses() > 0 }
  }

  /// True when a response can be taken; when there are none, the next one brings an event.
  mutating func requestEvent() throws(NetFrontendError) -> Bool {
    try look { slots throws(RingError) in try slots.finalCheckResponses() }
  }

  /// True when `count` responses can be taken; otherwise so many will bring an event.
  mutating func requestEvent(afterResponses count: Int) throws(NetFrontendError) -> Bool {
    try look { slots throws(RingError) in try slots.requestEvent(afterResponses: count) }
  }

  private mutating func look(
    _ body: (inout FrontRing) throws(RingError) -> Bool
  ) throws(NetFrontendError) -> Bool {
    try check()
    do throws(RingError) {
      return try body(&slots)
    } catch {
      throw disable(.ring(error))
    }
  }

  /// Disables the ring for what a response was; gives what to throw.
  mutating func disable(_ violation: NetViolation) -> NetFrontendError {
    let error = NetFrontendError.violation(violation, queue: queue)
    fault = error
    return error
  }
}
