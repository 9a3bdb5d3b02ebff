/// How many lines a guest may cause (XSA-43's class): a burst, then a few a minute; the rest is counted.
struct LogBudget {
  /// Lines in a burst, and lines regained each minute.
  static let linesPerMinute = 10

  private var tokens = Double(linesPerMinute)
  private var lastNanoseconds: UInt64 = 0
  private var suppressedCount = 0

  /// What to do with a line: nil drops it; a number allows it and says how many were dropped before.
  mutating func allow(atNanoseconds now: UInt64) -> Int? {
    if now > lastNanoseconds {
      let minutes = Double(now - lastNanoseconds) / 60e9
      tokens = min(Double(Self.linesPerMinute), tokens + minutes * Double(Self.linesPerMinute))
      lastNanoseconds = now
    }
    guard tokens >= 1 else {
      suppressedCount += 1
      return nil
    }
    tokens -= 1
    return takeSuppressedCount()
  }

  /// Lines that were dropped since the last one that was written.
  mutating func takeSuppressedCount() -> Int {
    defer { suppressedCount = 0 }
    return suppressedCount
  }
}
