import RingKit
import Testing

/// The limiter of a disk, by exact numbers and by its promise over any window.
struct RateLimiterTests {
  static let second: UInt64 = 1_000_000_000
  /// Clocks to begin at: the first second, an ordinary day, and the last second before the counter wraps.
  static let starts: [UInt64] = [0, 1, 86_400 * second, .max - second, .max - 5, .max]

  static func limiter(
    bytes: UInt64 = 0, burst: UInt64 = 0, requests: UInt64 = 0, requestBurst: UInt64 = 0
  ) throws -> RateLimiter {
    RateLimiter(
      limits: try RateLimits(
        bytesPerSecond: bytes, bytesBurst: burst, requestsPerSecond: requests, requestsBurst: requestBurst),
      leastBurstNanoseconds: 0)
  }

  /// Who wakes up 50 ms late for each request is not held to a fifth of 100 requests a second.
  @Test func aLateWakeUpCostsNothing() throws {
    let limiter = RateLimiter(limits: try RateLimits(requestsPerSecond: 100))
    let queue = limiter.join()
    var now = Self.second
    var passed = 0
    while now < 11 * Self.second {
      while limiter.admits(queue, atNanoseconds: now) == nil {
        limiter.charge(byteCount: 4096, atNanoseconds: now)
        passed += 1
      }
      now += 50_000_000
    }
    // Ten seconds, the tenth of a second that always may pass at once, and the one that is paid afterwards.
    #expect((995...1011).contains(passed), "\(passed)")
  }

  @Test func whatMakesNoSenseIsRefusedInWords() {
    func error(_ bytes: UInt64, _ bytesBurst: UInt64, _ requests: UInt64, _ burst: UInt64) -> RateLimitsError?
    {
      do throws(RateLimitsError) {
        _ = try RateLimits(
          bytesPerSecond: bytes, bytesBurst: bytesBurst, requestsPerSecond: requests, requestsBurst: burst)
        return nil
      } catch { return error }
    }
    #expect(error(0, 0, 0, 0) == nil && error(4096, 4096 * 3600, 1, 3600) == nil)
    #expect(error(1 << 50, 3600 << 50, 1_000_000_000, 0) == nil)
    #expect(error(4095, 0, 0, 0) == .bytesPerSecond(4095))
    #expect(error(1 << 50 + 1, 0, 0, 0) == .bytesPerSecond(1 << 50 + 1))
    #expect(error(.max, .max, .max, .max) == .bytesPerSecond(.max))
    #expect(error(4096, 4096 * 3600 + 1, 0, 0) == .burst(of: "bytes", 4096 * 3600 + 1, rate: 4096))
    #expect(error(0, 1, 0, 0) == .burstWithoutRate(of: "bytes", 1))
    #expect(error(0, 0, 1_000_000_001, 0) == .requestsPerSecond(1_000_000_001))
    #expect(error(0, 0, 1, 3601) == .burst(of: "requests", 3601, rate: 1))
    #expect(error(0, 0, 0, 1) == .burstWithoutRate(of: "requests", 1))
    #expect("\(RateLimitsError.bytesPerSecond(5))".contains("use 4096 to 2^50, or 0"))
    #expect("\(RateLimitsError.burst(of: "requests", 9, rate: 1))".contains("use at most 3600"))
    #expect(!RateLimits.unlimited.isLimited)
  }

  /// 10^6 bytes a second and no burst: a request of 4096 bytes is paid after 4,096,000 ns, to the nanosecond.
  @Test(arguments: starts) func bytesArePaidInTime(_ start: UInt64) throws {
    let limiter = try Self.limiter(bytes: 1_000_000)
    let queue = limiter.join()
    #expect(limiter.admits(queue, atNanoseconds: start) == nil)
    limiter.charge(byteCount: 4096, atNanoseconds: start)
    let (due, wraps) = start.addingReportingOverflow(4_096_000)
    #expect(limiter.admits(queue, atNanoseconds: start) == (wraps ? .max : due))
    #expect(limiter.admits(queue, atNanoseconds: start &+ 4_095_999) != nil)
    #expect(limiter.admits(queue, atNanoseconds: start &+ 4_096_000) == nil)
  }

  /// Idle time earns a burst and no more.
  @Test(arguments: starts) func aBurstPassesAtOnce(_ start: UInt64) throws {
    let limiter = try Self.limiter(requests: 100, requestBurst: 5)
    let queue = limiter.join()
    for round: UInt64 in 0..<3 {
      let now = start &+ round &* 3600 &* Self.second
      var passed = 0
      while limiter.admits(queue, atNanoseconds: now) == nil {
        limiter.charge(byteCount: 512, atNanoseconds: now)
        passed += 1
      }
      // The burst, and the request that goes into debt.
      #expect(passed == 6)
      #expect(limiter.admits(queue, atNanoseconds: now &+ 9_999_999) != nil)
      #expect(limiter.admits(queue, atNanoseconds: now &+ 10_000_000) == nil)
    }
  }

  /// A request larger than the burst passes, and is paid for afterwards; nobody is told to wait for longer
  /// than new limits may take to count.
  @Test func aLargeRequestIsPaidAfterwards() throws {
    let limiter = try Self.limiter(bytes: 1 << 20, burst: 1 << 20)
    let queue = limiter.join()
    limiter.charge(byteCount: 16 << 20, atNanoseconds: 500)
    #expect(limiter.admits(queue, atNanoseconds: 500) == 100_000_500)
    #expect(limiter.admits(queue, atNanoseconds: 500 + 15 * Self.second - 1) != nil)
    #expect(limiter.admits(queue, atNanoseconds: 500 + 15 * Self.second) == nil)
  }

  /// Fractions of nanoseconds are not given away: 3 * 10^8 requests a second are 3 * 10^8, not 3.33.
  @Test func fractionsAddUp() throws {
    let limiter = try Self.limiter(requests: 300_000_000)
    let queue = limiter.join()
    var (now, passed) = (0 as UInt64, 0)
    while now < 30_000 {
      if limiter.admits(queue, atNanoseconds: now) == nil {
        limiter.charge(byteCount: 0, atNanoseconds: now)
        passed += 1
      } else {
        now += 1
      }
    }
    #expect((9000...9001).contains(passed))
  }

  @Test func bothBucketsCount() throws {
    let limiter = try Self.limiter(bytes: 1_000_000, requests: 10)
    let queue = limiter.join()
    limiter.charge(byteCount: 512, atNanoseconds: 0)
    #expect(limiter.admits(queue, atNanoseconds: 1_000_000) != nil, "a tenth of a second for the request")
    #expect(limiter.admits(queue, atNanoseconds: 100_000_000) == nil)
    limiter.charge(byteCount: 500_000, atNanoseconds: 100_000_000)
    #expect(limiter.admits(queue, atNanoseconds: 599_999_999) != nil, "half a second for the bytes")
    #expect(limiter.admits(queue, atNanoseconds: 600_000_000) == nil)
  }

  @Test func limitsChangeLive() throws {
    let limiter = try Self.limiter()
    let queue = limiter.join()
    limiter.charge(byteCount: 1 << 30, atNanoseconds: 5)
    #expect(limiter.admits(queue, atNanoseconds: 5) == nil)
    // What went before the limit is not counted against it.
    limiter.set(try RateLimits(bytesPerSecond: 1_000_000), atNanoseconds: 10)
    #expect(limiter.limits.bytesPerSecond == 1_000_000)
    #expect(limiter.admits(queue, atNanoseconds: 10) == nil)
    limiter.charge(byteCount: 1_000_000, atNanoseconds: 10)
    // Half paid; the other half is paid at the new rate.
    limiter.set(try RateLimits(bytesPerSecond: 10_000_000), atNanoseconds: 500_000_010)
    #expect(limiter.admits(queue, atNanoseconds: 550_000_009) == 550_000_009 + 1000)
    #expect(limiter.admits(queue, atNanoseconds: 550_000_010) == nil)
    limiter.charge(byteCount: 10_000_000, atNanoseconds: 600_000_000)
    limiter.set(.unlimited, atNanoseconds: 600_000_001)
    #expect(limiter.admits(queue, atNanoseconds: 600_000_001) == nil)
  }

  /// A clock that lags a little, as another thread's may, pays nothing twice.
  @Test func aLaggingClockPaysNothingTwice() throws {
    let limiter = try Self.limiter(bytes: 1_000_000)
    let queue = limiter.join()
    limiter.charge(byteCount: 1000, atNanoseconds: 1_000_000)
    #expect(limiter.admits(queue, atNanoseconds: 1_500_000) != nil)
    #expect(limiter.admits(queue, atNanoseconds: 1_100_000) != nil)
    #expect(limiter.admits(queue, atNanoseconds: 1_999_999) != nil)
    #expect(limiter.admits(queue, atNanoseconds: 2_000_000) == nil)
  }

  /// Queues that always want more get the same number of turns, however the loop orders them.
  @Test(arguments: 2...8) func noQueueIsPassedOver(_ count: Int) throws {
    let limiter = try Self.limiter(requests: 1000, requestBurst: 3)
    let queues = (0..<count).map { _ in limiter.join() }
    var passed = [Int](repeating: 0, count: count)
    var due = [UInt64](repeating: 0, count: count)
    var now: UInt64 = 0
    while now < 4 * Self.second {
      // The first queue always asks first, as the first in a loop's table does.
      for index in 0..<count where due[index] <= now {
        while true {
          if let time = limiter.admits(queues[index], atNanoseconds: now) {
            #expect(time > now && time <= now + 100_000_000)
            due[index] = time
            break
          }
          limiter.charge(byteCount: 4096, atNanoseconds: now)
          passed[index] += 1
        }
      }
      now = max(now + 1, due.min() ?? now)
    }
    let total = passed.reduce(0, +)
    #expect((3980...4010).contains(total), "\(passed)")
    for number in passed { #expect(abs(number - total / count) <= 8, "\(passed)") }
  }

  /// One that was told a time and never comes again holds the others up only for a moment.
  @Test func whoDoesNotComeIsPassedOver() throws {
    let limiter = try Self.limiter(requests: 1000)
    let (gone, other) = (limiter.join(), limiter.join())
    limiter.charge(byteCount: 0, atNanoseconds: 0)
    let due = try #require(limiter.admits(gone, atNanoseconds: 0))
    #expect(limiter.admits(other, atNanoseconds: due) != nil, "it is the other's turn")
    #expect(limiter.admits(other, atNanoseconds: due + 20_000_001) == nil)
    limiter.charge(byteCount: 0, atNanoseconds: due + 20_000_001)
    #expect(limiter.admits(gone, atNanoseconds: due + 20_000_002) != nil)
    limiter.leave(gone)
    #expect(limiter.admits(other, atNanoseconds: due + 22_000_000) == nil, "who left stands in no line")
  }

  /// Over every window T: at most rate * T + burst + one request, and no less than the rate while all want more.
  @Test(arguments: starts, 1...4 as ClosedRange<UInt64>)
  func thePromiseHoldsOverEveryWindow(_ start: UInt64, _ seed: UInt64) throws {
    var numbers = SeededNumbers(seed: seed)
    let rate = UInt64.random(in: 4096...50_000_000, using: &numbers)
    let burst = UInt64.random(in: 0...rate, using: &numbers)
    let limiter = try Self.limiter(bytes: rate, burst: burst)
    let queues = (0..<3).map { _ in limiter.join() }
    var events: [(time: UInt64, bytes: UInt64)] = []
    var elapsed: UInt64 = 0
    var largest: UInt64 = 0
    for _ in 0..<600 {
      let queue = queues[Int.random(in: 0..<3, using: &numbers)]
      let now = start &+ elapsed
      if limiter.admits(queue, atNanoseconds: now) == nil {
        let bytes = UInt64.random(in: 0...2048, using: &numbers) * 512
        limiter.charge(byteCount: Int(bytes), atNanoseconds: now)
        largest = max(largest, bytes)
        events.append((elapsed, bytes))
      } else {
        elapsed += UInt64.random(in: 0...200_000_000, using: &numbers)
      }
    }
    #expect(events.count > 20)
    for first in events.indices {
      var sum: UInt64 = 0
      for event in events[first...] {
        sum += event.bytes
        let window = Double(event.time - events[first].time) / 1e9
        #expect(Double(sum) <= Double(rate) * window + Double(burst + largest) + 1)
      }
    }
  }

  /// Asking and paying in one step, for those who know beforehand what they move: with 10^6 bytes a second
  /// and a burst of 10,000, what passes at once is the burst and the one that goes beyond it.
  @Test(arguments: starts) func takingChargesAtOnce(_ start: UInt64) throws {
    let limiter = try Self.limiter(bytes: 1_000_000, burst: 10_000)
    let queue = limiter.join()
    var passed = 0
    while limiter.take(queue, byteCount: 1000, atNanoseconds: start) == nil { passed += 1 }
    #expect(passed == 11)
    let due = try #require(limiter.take(queue, byteCount: 1000, atNanoseconds: start))
    #expect(due == (start > .max - 1_000_000 ? .max : start + 1_000_000))
    // What was refused was not charged.
    #expect(limiter.take(queue, byteCount: 60_000, atNanoseconds: start &+ 1_000_000) == nil)
    #expect(limiter.take(queue, byteCount: 1, atNanoseconds: start &+ 60_999_999) != nil)
    #expect(limiter.take(queue, byteCount: 1, atNanoseconds: start &+ 61_000_000) == nil)
  }

  /// Others' rules know rates that no disk is offered.
  @Test func clampedRatesAreKept() {
    #expect(RateLimits(clampedBytesPerSecond: 0).bytesPerSecond == 1)
    #expect(RateLimits(clampedBytesPerSecond: .max).bytesPerSecond == 1 << 50)
    let limits = RateLimits(clampedBytesPerSecond: 125, bytesBurst: 1 << 40)
    #expect(limits.bytesPerSecond == 125 && limits.bytesBurst == 1 << 40 && limits.isLimited)
    let limiter = RateLimiter(
      limits: RateLimits(clampedBytesPerSecond: 125, bytesBurst: 0), leastBurstNanoseconds: 0)
    let queue = limiter.join()
    let isFirstIn = limiter.take(queue, byteCount: 125, atNanoseconds: 5) == nil
    #expect(isFirstIn && limiter.take(queue, byteCount: 1, atNanoseconds: 1_000_000_004) != nil)
    #expect(limiter.take(queue, byteCount: 1, atNanoseconds: 1_000_000_005) == nil)
  }
}
