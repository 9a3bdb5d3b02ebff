import RingKit
import Testing

@Suite struct LatencyHistogramTests {
  @Test(arguments: [(LatencyHistogram.Precision.fine, 128.0), (.coarse, 16)])
  func quantilesAreWithinAStep(precision: LatencyHistogram.Precision, steps: Double) {
    var histogram = LatencyHistogram(precision)
    for value in UInt64(1)...10_000 { histogram.record(value * 100) }
    #expect(histogram.count == 10_000)
    #expect(histogram.minimum == 100)
    #expect(histogram.maximum == 1_000_000)
    #expect(histogram.mean == 500_050)
    #expect(histogram.total == 5_000_500_000)
    #expect(histogram.quantile(1) == 1_000_000)
    #expect(histogram.quantile(0) == 100)
    for (share, exact) in [(0.5, 500_000.0), (0.9, 900_000), (0.99, 990_000)] {
      let found = Double(histogram.quantile(share))
      #expect(found >= exact && found <= exact * (1 + 1 / steps), "\(share): \(found)")
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
    #expect(histogram.count == 2)
    var sum = LatencyHistogram()
    sum.add(histogram)
    sum.add(LatencyHistogram())
    sum.record(7)
    #expect(sum.count == 3)
    #expect(sum.minimum == 0)
    #expect(sum.quantile(0.6) == 7)
  }

  /// The steps meet at powers of two, so counts below one are exact however coarse they are.
  @Test(arguments: [LatencyHistogram.Precision.fine, .coarse])
  func countsBelowPowersOfTwoAreExact(precision: LatencyHistogram.Precision) {
    var histogram = LatencyHistogram(precision)
    for power in 5...40 {
      histogram.record(1 << UInt64(power) - 1)
      histogram.record(1 << UInt64(power))
    }
    #expect(histogram.count == 72)
    for power in 5...39 {
      #expect(histogram.count(belowPowerOfTwo: power) == UInt64(power - 5) * 2 + 1, "2^\(power)")
    }
    #expect(histogram.count(belowPowerOfTwo: 40) == 72)
    #expect(LatencyHistogram(precision).count(belowPowerOfTwo: 20) == 0)
  }
}
