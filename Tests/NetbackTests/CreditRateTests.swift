import Netback
import RingKit
import Testing

/// The `rate` node, and what an interface's limiter makes of it (net.md, rule 23).
struct CreditRateTests {
  static let second: UInt64 = 1_000_000_000

  static func error(_ text: String) -> CreditRateError? {
    do throws(CreditRateError) {
      _ = try CreditRate(node: text)
      return nil
    } catch { return error }
  }

  @Test func trap23_theNodeIsReadStrictly() throws {
    let usual = try CreditRate(node: "625000,50000")
    #expect(usual.byteCount == 625_000 && usual.microseconds == 50_000)
    #expect(try CreditRate(node: "625000") == usual)
    #expect(try CreditRate(node: "1,1").microseconds == 1)
    #expect(try CreditRate(node: "18446744073709551615,18446744073709551615").byteCount == .max)
    for text in [
      "", ",", "1,", ",1", "1,2,3", " 1,2", "1, 2", "1,2\n", "+1,2", "-1,2", "0x10,2", "1e3,2", "١,٢",
      "1.5,2",
      "18446744073709551616,1", "1,18446744073709551616", String(repeating: "9", count: 4096),
    ] {
      #expect(Self.error(text) == .unreadable(text), "\(text)")
    }
    #expect(Self.error("0,50000") == .noBytes("0,50000") && Self.error("0") == .noBytes("0"))
    #expect(Self.error("5,0") == .noWindow("5,0"))
    #expect("\(CreditRateError.unreadable(String(repeating: "9", count: 4096)))".count < 200)
    #expect("\(CreditRateError.noWindow("5,0"))".contains("\"625000,50000\" for 100 Mbit/s"))
  }

  @Test func trap23_ratesAreWorkedOutWithoutWrapping() throws {
    func limits(_ text: String) throws -> RateLimits { try CreditRate(node: text).limits }
    #expect(try limits("625000,50000").bytesPerSecond == 12_500_000)
    #expect(try limits("625000,50000").bytesBurst == 625_000)
    #expect(try limits("1000,1000").bytesPerSecond == 1_000_000)
    #expect(try limits("1000,1000").bytesBurst == 128 << 10)
    // One byte a minute is the slowest there is, and 2^50 the fastest; both are limits.
    #expect(try limits("1,60000000").bytesPerSecond == 1)
    #expect(try limits("18446744073709551615,1").bytesPerSecond == 1 << 50)
    #expect(try limits("18446744073709551615,18446744073709551615").bytesPerSecond == 1_000_000)
    #expect(try limits("18446744073709551615,18446744073709551614").bytesPerSecond == 1_000_000)
    #expect(!CreditRate.limiter(nil).limits.isLimited)
  }

  /// Two queues that send as fast as they may: together they keep to the rate of the interface, both get on,
  /// and the largest packet is never stuck, whatever the rate.
  @Test(arguments: ["625000,50000", "1000,1000", "125,1000000", "20000,50000"])
  func trap23_allQueuesShareTheRate(_ text: String) throws {
    let rate = try CreditRate(node: text)
    let limiter = CreditRate.limiter(rate)
    let queues = [limiter.join(), limiter.join()]
    var now = UInt64.max - 5 * Self.second
    var passed: [UInt64] = [0, 0]
    var wake = [now, now]
    let size = 65535
    let start = now
    while now < .max - Self.second {
      let queue = wake[0] <= wake[1] ? 0 : 1
      now = max(now, wake[queue])
      if let due = limiter.take(queues[queue], byteCount: size, atNanoseconds: now) {
        #expect(due > now)
        wake[queue] = due
      } else {
        passed[queue] += UInt64(size)
        wake[queue] = now
      }
    }
    let bytesPerSecond = Double(rate.limits.bytesPerSecond)
    let seconds = Double(now - start) / Double(Self.second)
    let burst = max(Double(rate.limits.bytesBurst), bytesPerSecond / 100)
    let total = Double(passed[0] + passed[1])
    #expect(total <= bytesPerSecond * seconds + burst + Double(size) + 1)
    #expect(total >= bytesPerSecond * (seconds - 0.2))
    #expect(passed[0] + passed[1] >= 2 * 65535, "the largest packet passes at once")
    #expect(max(passed[0], passed[1]) - min(passed[0], passed[1]) <= UInt64(2 * burst) + 131_070)
  }

  /// A rate that changes while packets wait counts from then on.
  @Test func trap23_theRateMayChange() throws {
    let limiter = CreditRate.limiter(try CreditRate(node: "125,1000000"))
    let queue = limiter.join()
    var now: UInt64 = 1000
    while limiter.take(queue, byteCount: 65535, atNanoseconds: now) == nil {}
    let due = try #require(limiter.take(queue, byteCount: 65535, atNanoseconds: now))
    limiter.set(try CreditRate(node: "12500000,100000").limits, atNanoseconds: now)
    now = due
    #expect(limiter.take(queue, byteCount: 65535, atNanoseconds: now) == nil)
    limiter.set(.unlimited, atNanoseconds: now)
    for _ in 0..<1000 { #expect(limiter.take(queue, byteCount: 65535, atNanoseconds: now) == nil) }
  }
}
