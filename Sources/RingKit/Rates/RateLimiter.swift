import Synchronization

/// Holds a device to its ``RateLimits``, over all of its queues.
///
/// Two token buckets, kept as time: what was used beyond the burst is a debt that time pays. A request passes
/// when nothing is owed, whatever its size, and is paid for afterwards; so in any time T at most
/// rate * T + burst + one request passes, one for each thread where queues run on several. Queues that wait
/// stand in line, so that none is passed over for ever. There is no clock inside: times are given, in
/// nanoseconds, and may wrap.
public final class RateLimiter: Sendable {
  /// One queue's place at a limiter.
  public struct Member: Sendable, Hashable {
    let number: Int
  }

  private struct Place {
    var member: Int
    /// When it was told to come.
    var due: UInt64
  }

  private struct State {
    var limits: RateLimits
    var bytes: RateBucket
    var requests: RateBucket
    /// Who waits, first come first.
    var line: [Place] = []
    var memberCount = 0
    /// Nanoseconds that the last request cost.
    var lastCost: UInt64 = 0
    var nextNumber = 0

    /// Nil when the member may go, who then leaves the line; else when it is to come.
    mutating func wait(of member: Member, at now: UInt64) -> UInt64? {
      let wait = max(bytes.wait(at: now), requests.wait(at: now))
      while wait == 0, let first = line.first, first.member != member.number,
        RateLimiter.elapsed(since: first.due, at: now) > RateLimiter.patience
      {
        // Its ring broke or its guest stopped asking; the others need not suffer for it.
        line.removeFirst()
      }
      let place = line.firstIndex { $0.member == member.number }
      if wait == 0 && (place ?? line.count) == 0 {
        if place != nil { line.removeFirst() }
        return nil
      }
      // Those before it each take about one request.
      let before = UInt64(place ?? line.count)
      let (others, overflow) = before.multipliedReportingOverflow(by: lastCost)
      let step = min(overflow ? .max : others, RateLimiter.longestWait)
      let delay = max(1000, min(RateLimiter.longestWait, wait &+ step < wait ? .max : wait &+ step))
      let (sum, wraps) = now.addingReportingOverflow(delay)
      let due = wraps ? UInt64.max : sum
      if let place {
        line[place].due = due
      } else {
        line.append(Place(member: member.number, due: due))
      }
      return due
    }

    mutating func charge(byteCount: Int, at now: UInt64) {
      let cost = bytes.charge(UInt64(max(0, byteCount)), at: now)
      lastCost = max(cost, requests.charge(1, at: now))
    }
  }

  private let state: Mutex<State>
  // Spares devices without limits the lock.
  private let isLimited: Atomic<Bool>

  /// Times told are no further off, so that new limits soon count for those who wait.
  static var longestWait: UInt64 { 100_000_000 }
  /// Who does not come in this time after being due is passed over.
  static var patience: UInt64 { 20_000_000 }

  /// The least burst, in nanoseconds of the rate: a thread that wakes up late must not lose what it could have
  /// passed meanwhile. A tenth of a second, as QEMU's throttling has it.
  public static var leastBurstNanoseconds: UInt64 { 100_000_000 }

  /// A limiter that owes nothing.
  public init(
    limits: RateLimits = .unlimited, leastBurstNanoseconds least: UInt64 = leastBurstNanoseconds
  ) {
    state = Mutex(
      State(
        limits: limits,
        bytes: RateBucket(rate: limits.bytesPerSecond, burst: limits.bytesBurst, least: least),
        requests: RateBucket(rate: limits.requestsPerSecond, burst: limits.requestsBurst, least: least)))
    isLimited = Atomic(limits.isLimited)
  }

  /// The limits in force.
  public var limits: RateLimits { state.withLock { $0.limits } }

  /// Replaces the limits. What is owed stays owed and is paid at the new rate.
  public func set(_ limits: RateLimits, atNanoseconds now: UInt64) {
    state.withLock { state in
      state.bytes.change(rate: limits.bytesPerSecond, burst: limits.bytesBurst, at: now)
      state.requests.change(rate: limits.requestsPerSecond, burst: limits.requestsBurst, at: now)
      state.limits = limits
      if !limits.isLimited { state.line.removeAll(keepingCapacity: true) }
      isLimited.store(limits.isLimited, ordering: .releasing)
    }
  }

  /// Gives a queue its place. Allocates; ``leave(_:)`` follows when the queue closes.
  public func join() -> Member {
    state.withLock { state in
      let number = state.nextNumber
      state.nextNumber += 1
      state.memberCount += 1
      state.line.reserveCapacity(state.memberCount)
      return Member(number: number)
    }
  }

  /// Takes a queue's place away.
  public func leave(_ member: Member) {
    state.withLock { state in
      state.memberCount -= 1
      state.line.removeAll { $0.member == member.number }
    }
  }

  /// Nil when the queue may take a request now; else the time when to ask again, after `now` and at most
  /// 100 ms off.
  public func admits(_ member: Member, atNanoseconds now: UInt64) -> UInt64? {
    guard isLimited.load(ordering: .acquiring) else { return nil }
    return state.withLock { $0.wait(of: member, at: now) }
  }

  /// ``admits(_:atNanoseconds:)`` and ``charge(byteCount:atNanoseconds:)`` in one step, for a request that is
  /// known before it is taken: what passes is charged, and no other thread comes in between.
  public func take(_ member: Member, byteCount: Int, atNanoseconds now: UInt64) -> UInt64? {
    guard isLimited.load(ordering: .acquiring) else { return nil }
    return state.withLock { state in
      if let due = state.wait(of: member, at: now) { return due }
      state.charge(byteCount: byteCount, at: now)
      return nil
    }
  }

  /// Notes a request that passed; `byteCount` is what it moves, 0 for a flush.
  public func charge(byteCount: Int, atNanoseconds now: UInt64) {
    guard isLimited.load(ordering: .acquiring) else { return }
    state.withLock { $0.charge(byteCount: byteCount, at: now) }
  }

  /// Nanoseconds from `start` to `now` on a clock that wraps; 0 when `now` comes first.
  static func elapsed(since start: UInt64, at now: UInt64) -> UInt64 {
    let passed = now &- start
    return passed <= UInt64.max / 2 ? passed : 0
  }
}

/// A token bucket in units of time: a debt of nanoseconds, of which the burst's worth may stay unpaid.
struct RateBucket {
  /// Units a second; 0 for no limit.
  private(set) var rate: UInt64
  /// Nanoseconds of debt that hold nothing up.
  private var allowance: UInt64
  /// Nanoseconds owed at `time`.
  private var debt: UInt64 = 0
  private var time: UInt64?
  /// The allowance is never less than this.
  private let least: UInt64
  /// Units times 10^9, less than `rate`, that were too few for a whole nanosecond.
  private var remainder: UInt64 = 0

  init(rate: UInt64, burst: UInt64, least: UInt64) {
    self.rate = rate
    self.least = least
    allowance = max(least, Self.scaled(burst, 1_000_000_000, over: rate).quotient)
  }

  /// Nanoseconds until the next request may pass.
  mutating func wait(at now: UInt64) -> UInt64 {
    guard rate != 0 else { return 0 }
    pay(now)
    return debt > allowance ? debt - allowance : 0
  }

  /// Adds a request of `units`; returns its cost in nanoseconds.
  mutating func charge(_ units: UInt64, at now: UInt64) -> UInt64 {
    guard rate != 0 else { return 0 }
    pay(now)
    let (cost, left) = Self.scaled(units, 1_000_000_000, over: rate)
    // Fractions are kept, so that many small requests cost what a large one does.
    let fraction = remainder + left
    remainder = fraction % rate
    let whole = cost &+ fraction / rate
    let (sum, overflow) = debt.addingReportingOverflow(whole)
    debt = overflow ? UInt64.max / 2 : min(sum, UInt64.max / 2)
    return whole
  }

  mutating func change(rate newRate: UInt64, burst: UInt64, at now: UInt64) {
    if rate == 0 {
      // Nothing was counted until now.
      (debt, time) = (0, now)
    } else {
      pay(now)
      debt = newRate == 0 ? 0 : min(Self.scaled(debt, rate, over: newRate).quotient, UInt64.max / 2)
    }
    remainder = 0
    rate = newRate
    allowance = max(least, Self.scaled(burst, 1_000_000_000, over: newRate).quotient)
  }

  private mutating func pay(_ now: UInt64) {
    let passed = time.map { RateLimiter.elapsed(since: $0, at: now) } ?? 0
    debt = debt > passed ? debt - passed : 0
    // A data thread's clock may be a turn behind another's; what was paid with once is not paid with again.
    if time == nil || passed > 0 { time = now }
  }

  /// a * b / c without overflow; the largest number when the quotient does not fit, 0 when c is 0.
  static func scaled(_ a: UInt64, _ b: UInt64, over c: UInt64) -> (quotient: UInt64, remainder: UInt64) {
    guard c != 0 else { return (0, 0) }
    let product = a.multipliedFullWidth(by: b)
    guard product.high < c else { return (.max, 0) }
    return c.dividingFullWidth(product)
  }
}
