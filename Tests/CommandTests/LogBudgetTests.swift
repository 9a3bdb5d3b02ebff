import Testing

@testable import ringback

@Suite struct LogBudgetTests {
  /// security.md's `log-budget`: a guest that causes a million lines gets a handful, and the count is exact.
  @Test func aMillionLinesBecomeAHandful() {
    var budget = LogBudget()
    var written = 0
    var dropped = 0
    for line in 0..<1_000_000 {
      // One minute in all.
      if let before = budget.allow(atNanoseconds: UInt64(line) * 60_000) {
        written += 1
        dropped += before
      }
    }
    #expect(written <= 2 * LogBudget.linesPerMinute)
    #expect(written >= LogBudget.linesPerMinute)
    // After a pause the next line tells of all that were dropped before it.
    let last = budget.allow(atNanoseconds: 120_000_000_000)
    #expect(dropped + (last ?? -1) + written == 1_000_000)
  }

  @Test func aClockThatStandsStillGivesNothingBack() {
    var budget = LogBudget()
    var written = 0
    for _ in 0..<100 where budget.allow(atNanoseconds: 5) != nil { written += 1 }
    #expect(written == LogBudget.linesPerMinute)
  }
}
