public import RingKit

/// How much a frontend may send, as its interface's `rate` node tells it: bytes in each window of time
/// (libxl, xl-network-configuration: `rate=`; Linux, xen_net_read_rate).
///
/// A ``RateLimiter`` keeps to it, one for all queues of an interface: with one for each queue, as in Linux, a
/// frontend multiplies its rate by the number of its queues.
public struct CreditRate: Equatable, Sendable {
  /// Bytes in a window; 1 or more.
  public let byteCount: UInt64
  /// The window in microseconds; 1 or more.
  public let microseconds: UInt64

  /// The window that xl takes unless it is told one, 50 ms.
  public static var usualMicroseconds: UInt64 { 50_000 }
  /// Bytes that pass at once after idle time, at least: what is less than the largest packet would stop it
  /// for good (Linux, tx_add_credit).
  public static var leastBurstByteCount: UInt64 { 128 << 10 }
  /// The least burst in nanoseconds of the rate: a thread that wakes up late must not lose what it could have
  /// passed meanwhile, also where the window is one of a few microseconds.
  public static var leastBurstNanoseconds: UInt64 { 10_000_000 }

  /// Reads the node: "bytes,microseconds", or "bytes" alone for a window of 50 ms.
  public init(node text: String) throws(CreditRateError) {
    let fields = text.split(separator: ",", omittingEmptySubsequences: false)
    guard fields.count <= 2, let bytes = Self.number(fields[0]) else { throw .unreadable(text) }
    var window = Self.usualMicroseconds
    if fields.count == 2 {
      guard let number = Self.number(fields[1]) else { throw .unreadable(text) }
      window = number
    }
    guard bytes > 0 else { throw .noBytes(text) }
    guard window > 0 else { throw .noWindow(text) }
    byteCount = bytes
    microseconds = window
  }

  /// The limits to set in the interface's limiter.
  public var limits: RateLimits {
    let product = byteCount.multipliedFullWidth(by: 1_000_000)
    // A rate that does not fit 64 bits is far beyond the clamp.
    let rate = product.high < microseconds ? microseconds.dividingFullWidth(product).quotient : .max
    return RateLimits(clampedBytesPerSecond: rate, bytesBurst: max(byteCount, Self.leastBurstByteCount))
  }

  /// A limiter for an interface, whose limits may be replaced at any time.
  public static func limiter(_ rate: CreditRate?) -> RateLimiter {
    RateLimiter(limits: rate?.limits ?? .unlimited, leastBurstNanoseconds: leastBurstNanoseconds)
  }

  /// Decimal digits only: no sign, no space, at most 64 bits.
  private static func number(_ text: Substring) -> UInt64? {
    guard !text.isEmpty, text.utf8.allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) })
    else { return nil }
    return UInt64(text)
  }
}

/// Why a `rate` node cannot be kept to.
public enum CreditRateError: Error, Equatable, Sendable, CustomStringConvertible {
  /// Not two numbers.
  case unreadable(String)
  /// Nothing would ever pass.
  case noBytes(String)
  /// A window of no time.
  case noWindow(String)

  /// What is wrong, and what would be right.
  public var description: String {
    let form = "write \"bytes,microseconds\", as \"625000,50000\" for 100 Mbit/s, or remove the node"
    return switch self {
    case .unreadable(let text): "rate \"\(text.prefix(64))\" is not two numbers: \(form)"
    case .noBytes(let text): "rate \"\(text.prefix(64))\" would let nothing pass: \(form)"
    case .noWindow(let text): "rate \"\(text.prefix(64))\" has a window of no time: \(form)"
    }
  }
}
