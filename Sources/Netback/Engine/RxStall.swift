/// What is to be done about a frontend that does not post the slots that its packets need.
@frozen
public enum RxStallVerdict: Equatable, Sendable, BitwiseCopyable {
  /// Nothing beyond waiting.
  case none
  /// The packets that wait have waited for too long: drop them.
  case drain
  /// The frontend takes nothing: drop what waits and what comes, and take the link's carrier away.
  case carrierOff
  /// It takes packets again: give the carrier back.
  case carrierOn
}

/// When a receive queue gives up on its frontend, and when it trusts it again: a state machine that is told
/// of time and slots and decides; the queue acts.
///
/// Packets that wait are dropped after ten seconds, and after a minute in which the slots for the next one
/// never were there the carrier goes, until they are: times of Linux's netback (rx_drain_timeout_msecs,
/// rx_stall_timeout_msecs). Too few slots for one packet count as much as none (XSA-392).
public struct RxStall: Equatable, Sendable, BitwiseCopyable {
  /// How long packets wait, in nanoseconds.
  public static var drainNanoseconds: UInt64 { 10_000_000_000 }
  /// How long slots may be missing before the carrier goes, in nanoseconds.
  public static var stallNanoseconds: UInt64 { 60_000_000_000 }
  /// How often slots are looked for that no event tells of, in nanoseconds.
  public static var pollNanoseconds: UInt64 { 30_000_000 }

  /// True if the frontend sends no event when it posts slots (netif.h, feature-rx-notify absent): a timer
  /// takes its place.
  public let pollsForSlots: Bool
  /// True while the carrier is off.
  public private(set) var isStalled = false
  /// Slots that are waited for: arm the ring for as many. 0 if none are.
  public private(set) var awaitedSlotCount = 0
  private var waitingSince: UInt64?
  private var missingSince: UInt64?
  private var pollAt: UInt64?

  /// A frontend that has done no wrong. `sendsEvents`: whether it wrote feature-rx-notify.
  public init(sendsEvents: Bool) { pollsForSlots = !sendsEvents }

  /// The first packet that waits needs `count` slots, and there are fewer.
  public mutating func lacksSlots(_ count: Int, now: UInt64) {
    guard !isStalled else { return }
    awaitedSlotCount = count
    if missingSince == nil { missingSince = now }
    if pollsForSlots && pollAt == nil { pollAt = now &+ Self.pollNanoseconds }
    waits(now: now)
  }

  /// The first packet waits, for whatever reason.
  public mutating func waits(now: UInt64) {
    guard !isStalled else { return }
    if waitingSince == nil { waitingSince = now }
  }

  /// A packet was taken: the frontend plays along.
  public mutating func moved() {
    guard !isStalled else { return }
    awaitedSlotCount = 0
    missingSince = nil
    waitingSince = nil
    pollAt = nil
  }

  /// Nothing waits any more.
  public mutating func emptied() { waitingSince = nil }

  /// Decides, given the slots that are posted now. Call it in every turn, and at ``deadline``.
  public mutating func judge(postedSlotCount: Int, now: UInt64) -> RxStallVerdict {
    if pollAt != nil { pollAt = now &+ Self.pollNanoseconds }
    if isStalled {
      guard postedSlotCount >= awaitedSlotCount else { return .none }
      isStalled = false
      moved()
      return .carrierOn
    }
    if let since = missingSince {
      if postedSlotCount >= awaitedSlotCount {
        missingSince = nil
        awaitedSlotCount = 0
        pollAt = nil
      } else if elapsed(since, now) >= Self.stallNanoseconds {
        isStalled = true
        missingSince = nil
        waitingSince = nil
        // Frontends keep one more than the longest packet's slots posted, and need not be able to post more.
        awaitedSlotCount = min(awaitedSlotCount, NetLimits.slotCount + 1)
        return .carrierOff
      }
    }
    if let since = waitingSince, elapsed(since, now) >= Self.drainNanoseconds {
      waitingSince = nil
      return .drain
    }
    return .none
  }

  /// When ``judge(postedSlotCount:now:)`` has to be called at the latest, by the clock that it is told; nil
  /// if only an event or a packet can change anything. It stays where it is until then.
  public var deadline: UInt64? {
    var earliest = pollAt ?? .max
    if let waitingSince { earliest = min(earliest, waitingSince &+ Self.drainNanoseconds) }
    if let missingSince { earliest = min(earliest, missingSince &+ Self.stallNanoseconds) }
    return earliest == .max ? nil : earliest
  }

  /// Nanoseconds from `start` to `now`; a clock that went back has not moved.
  private func elapsed(_ start: UInt64, _ now: UInt64) -> UInt64 { now > start ? now - start : 0 }
}
