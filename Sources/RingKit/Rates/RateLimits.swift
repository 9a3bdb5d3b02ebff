/// How much a device may do: bytes and requests a second over reads and writes together, each with a burst that
/// may pass at once after idle time.
public struct RateLimits: Sendable, Equatable {
  /// Bytes a second; 0 for no limit, else 4096...2^50.
  public let bytesPerSecond: UInt64
  /// Bytes that pass at once after idle time, at most an hour's worth; a tenth of a second's worth always may.
  public let bytesBurst: UInt64
  /// Requests a second; 0 for no limit, else at most 10^9.
  public let requestsPerSecond: UInt64
  /// Requests that pass at once after idle time, at most an hour's worth; a tenth of a second's worth always
  /// may.
  public let requestsBurst: UInt64

  /// No limits.
  public static let unlimited = RateLimits()

  private init() { (bytesPerSecond, bytesBurst, requestsPerSecond, requestsBurst) = (0, 0, 0, 0) }

  /// Checks that the limits make sense; a rate of 0 is no limit, and has no burst.
  public init(
    bytesPerSecond: UInt64 = 0, bytesBurst: UInt64 = 0, requestsPerSecond: UInt64 = 0,
    requestsBurst: UInt64 = 0
  ) throws(RateLimitsError) {
    if bytesPerSecond != 0 {
      guard (4096...1 << 50).contains(bytesPerSecond) else { throw .bytesPerSecond(bytesPerSecond) }
      guard bytesBurst <= bytesPerSecond * Self.longestBurstSeconds else {
        throw .burst(of: "bytes", bytesBurst, rate: bytesPerSecond)
      }
    } else if bytesBurst != 0 {
      throw .burstWithoutRate(of: "bytes", bytesBurst)
    }
    if requestsPerSecond != 0 {
      guard requestsPerSecond <= 1_000_000_000 else { throw .requestsPerSecond(requestsPerSecond) }
      guard requestsBurst <= requestsPerSecond * Self.longestBurstSeconds else {
        throw .burst(of: "requests", requestsBurst, rate: requestsPerSecond)
      }
    } else if requestsBurst != 0 {
      throw .burstWithoutRate(of: "requests", requestsBurst)
    }
    self.bytesPerSecond = bytesPerSecond
    self.bytesBurst = bytesBurst
    self.requestsPerSecond = requestsPerSecond
    self.requestsBurst = requestsBurst
  }

  /// A rate that comes from somebody else's rules, as near to it as can be kept: 1...2^50 bytes a second, with
  /// any burst.
  public init(clampedBytesPerSecond rate: UInt64, bytesBurst: UInt64 = 0) {
    bytesPerSecond = min(max(1, rate), 1 << 50)
    self.bytesBurst = bytesBurst
    (requestsPerSecond, requestsBurst) = (0, 0)
  }

  /// A burst of more is a limit that is none.
  static var longestBurstSeconds: UInt64 { 3600 }
  /// False when everything passes.
  public var isLimited: Bool { bytesPerSecond != 0 || requestsPerSecond != 0 }
}

/// Why limits make no sense.
public enum RateLimitsError: Error, Equatable, CustomStringConvertible {
  /// Bytes a second out of range: with less than a page a second one request takes longer than guests wait.
  case bytesPerSecond(UInt64)
  /// Requests a second out of range.
  case requestsPerSecond(UInt64)
  /// A burst that takes longer than an hour to earn.
  case burst(of: String, UInt64, rate: UInt64)
  /// A burst of something that has no limit.
  case burstWithoutRate(of: String, UInt64)

  /// What is wrong, and what would be right.
  public var description: String {
    switch self {
    case .bytesPerSecond(let rate):
      "a limit of \(rate) bytes a second cannot be kept: use 4096 to 2^50, or 0 for no limit"
    case .requestsPerSecond(let rate):
      "a limit of \(rate) requests a second cannot be kept: use 1 to 1000000000, or 0 for no limit"
    case .burst(let unit, let burst, let rate):
      "a burst of \(burst) \(unit) is more than an hour's worth of \(rate) \(unit) a second: use at most "
        + "\(rate * RateLimits.longestBurstSeconds)"
    case .burstWithoutRate(let unit, let burst):
      "a burst of \(burst) \(unit) means nothing without a limit of \(unit) a second: set both"
    }
  }
}
