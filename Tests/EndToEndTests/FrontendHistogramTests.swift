import Testing

@testable import Frontends

@Suite struct FrontendHistogramTests {
  @Test func stepsFollowEachOtherWithoutGapOrOverlap() {
    var lowest: UInt64 = 0
    for index in 0..<1000 {
      let highest = LatencyHistogram.highest(of: index)
      #expect(LatencyHistogram.index(of: lowest) == index)
      #expect(LatencyHistogram.index(of: highest) == index)
      #expect(highest - lowest <= lowest / 32)
      lowest = highest + 1
    }
  }

  @Test func quantilesAreWithinAStep() {
    var histogram = LatencyHistogram()
    for value in UInt64(1)...10_000 { histogram.record(value * 100) }
    #expect(histogram.count == 10_000)
    #expect(histogram.minimum == 100)
    #expect(histogram.maximum == 1_000_000)
    #expect(histogram.mean == 500_050)
    #expect(histogram.quantile(1) == 1_000_000)
    #expect(histogram.quantile(0) == 101)
    for (share, exact) in [(0.5, 500_000.0), (0.9, 900_000), (0.99, 990_000)] {
      let found = Double(histogram.quantile(share))
      #expect(found >= exact && found <= exact * 1.032, "\(share): \(found)")
    }
  }

  @Test func extremesAndSums() {
    var histogram = LatencyHistogram()
    #expect(histogram.quantile(0.5) == 0)
    #expect(histogram.mean == 0)
    histogram.record(0)
    histogram.record(.max)
    #expect(histogram.quantile(0.5) == 0)
    #expect(histogram.maximum == .max)
    var sum = LatencyHistogram()
    sum.add(histogram)
    sum.add(LatencyHistogram())
    sum.record(7)
    #expect(sum.count == 3)
    #expect(sum.minimum == 0)
    #expect(sum.quantile(0.6) == 7)
  }
}
