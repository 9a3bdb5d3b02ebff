import Histogram

/// Counts of durations in steps that grow with them (an HDR histogram): fixed memory, no allocation after the
/// start, exact sums.
public struct LatencyHistogram: Sendable {
  /// How finely values are told apart, and what it costs.
  public enum Precision: Sendable {
    /// A step is at most 1/128 of its value; 36 KiB.
    case fine
    /// A step is at most 1/16 of its value; 6 KiB. For what exists once a queue and kind of request.
    case coarse
  }

  /// 2^40 ns are 18 minutes; what takes longer counts as that.
  private static let highest: UInt64 = 1 << 40 - 1

  private var steps: Histogram<UInt64>
  /// Durations recorded.
  public var count: UInt64 { steps.totalCount }
  /// The longest, exactly, in nanoseconds.
  public private(set) var maximum: UInt64 = 0
  /// The shortest, exactly, in nanoseconds; 0 when none was recorded.
  public private(set) var minimum: UInt64 = 0
  /// The sum in nanoseconds; wraps after centuries.
  public private(set) var total: UInt64 = 0

  /// An empty histogram.
  public init(_ precision: Precision = .fine) {
    steps = Histogram(
      highestTrackableValue: Self.highest, numberOfSignificantValueDigits: precision == .fine ? .two : .one)
  }

  /// Records a duration in nanoseconds.
  public mutating func record(_ nanoseconds: UInt64) {
    minimum = count == 0 ? nanoseconds : min(minimum, nanoseconds)
    maximum = max(maximum, nanoseconds)
    total &+= nanoseconds
    steps.record(min(nanoseconds, Self.highest))
  }

  /// The mean in nanoseconds; 0 when nothing was recorded.
  public var mean: UInt64 { count == 0 ? 0 : total / count }

  /// The duration that `share` (0...1) of the recorded ones did not exceed, in nanoseconds, rounded up to its
  /// step.
  public func quantile(_ share: Double) -> UInt64 {
    precondition(share >= 0 && share <= 1)
    return count == 0 ? 0 : max(minimum, min(steps.valueAtPercentile(share * 100), maximum))
  }

  /// How many of the recorded durations are shorter than 2^`power` ns, exactly; `power` is 5...40.
  public func count(belowPowerOfTwo power: Int) -> UInt64 {
    precondition((5...40).contains(power))
    return count == 0 ? 0 : steps.count(within: 0...(1 << UInt64(power) - 1))
  }

  /// The steps that hold something, shortest first: the longest duration of each, and how many it holds.
  public var filledSteps: [(upTo: UInt64, count: UInt64)] {
    steps.recordedValues().map { ($0.value, $0.countAddedInThisIterationStep) }
  }

  /// Adds the counts of another histogram of the same precision. Allocates nothing.
  public mutating func add(_ other: LatencyHistogram) {
    guard other.count > 0 else { return }
    minimum = count == 0 ? other.minimum : min(minimum, other.minimum)
    maximum = max(maximum, other.maximum)
    total &+= other.total
    steps.add(other.steps)
  }
}
