/// Counts of durations in steps that grow with them: 32 steps to each power of two, so a step is at most 3.2
/// % of its value. Fixed memory, no allocation after the start.
public struct LatencyHistogram: Sendable {
  private static let stepBits = 5
  private static let steps = 1 << stepBits
  // 2^40 ns are 18 minutes; what takes longer counts as that.
  private static let powers = 40
  private var counts = [UInt64](repeating: 0, count: (powers - stepBits + 1) * steps)
  /// Durations recorded.
  public private(set) var count: UInt64 = 0
  /// The longest, exactly, in nanoseconds.
  public private(set) var maximum: UInt64 = 0
  /// The shortest, exactly, in nanoseconds; 0 when none was recorded.
  public private(set) var minimum: UInt64 = 0
  private var total: UInt64 = 0

  /// An empty histogram.
  public init() {}

  /// Records a duration in nanoseconds.
  public mutating func record(_ nanoseconds: UInt64) {
    counts[Self.index(of: nanoseconds)] += 1
    minimum = count == 0 ? nanoseconds : min(minimum, nanoseconds)
    maximum = max(maximum, nanoseconds)
    count += 1
    total &+= nanoseconds
  }

  /// The mean in nanoseconds; 0 when nothing was recorded.
  public var mean: UInt64 { count == 0 ? 0 : total / count }

  /// The duration that `share` (0...1) of the recorded ones did not exceed, in nanoseconds, rounded up to its
  /// step.
  public func quantile(_ share: Double) -> UInt64 {
    precondition(share >= 0 && share <= 1)
    guard count > 0 else { return 0 }
    let wanted = max(1, UInt64((share * Double(count)).rounded(.up)))
    var seen: UInt64 = 0
    for index in counts.indices {
      seen += counts[index]
      if seen >= wanted { return min(Self.highest(of: index), maximum) }
    }
    return maximum
  }

  /// Adds the counts of another histogram.
  public mutating func add(_ other: LatencyHistogram) {
    guard other.count > 0 else { return }
    for index in counts.indices { counts[index] += other.counts[index] }
    minimum = count == 0 ? other.minimum : min(minimum, other.minimum)
    maximum = max(maximum, other.maximum)
    count += other.count
    total &+= other.total
  }

  /// Values below 32 have a step each; above, the five bits after the highest one choose the step.
  static func index(of value: UInt64) -> Int {
    let value = min(value, 1 << UInt64(powers) - 1)
    guard value >= UInt64(steps) else { return Int(value) }
    let shift = UInt64.bitWidth - 1 - value.leadingZeroBitCount - stepBits
    return (shift + 1) * steps + Int(value >> UInt64(shift)) - steps
  }

  /// The highest value that falls on `index`.
  static func highest(of index: Int) -> UInt64 {
    guard index >= steps else { return UInt64(index) }
    let shift = UInt64(index / steps - 1)
    return (UInt64(index % steps + steps + 1) << shift) - 1
  }
}
