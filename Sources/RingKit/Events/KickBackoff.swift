/// Slows down a frontend that sends events without a cause: each such event delays the next unmasking of its
/// port, 1 ms, 2 ms, and so on up to 1 s (XSA-332; the kernel's own back-off does not reach userspace).
@frozen
public struct KickBackoff: BitwiseCopyable, Sendable {
  /// Events without a cause in a row that cost nothing: a late one now and then is ordinary.
  public static var freeCount: UInt64 { 8 }
  /// The longest delay.
  public static var longestNanoseconds: UInt64 { 1_000_000_000 }

  /// Events since the queue connected.
  public private(set) var kickCount: UInt64 = 0
  /// Of these, events that found nothing and for which nothing had been taken since the one before.
  public private(set) var spuriousCount: UInt64 = 0
  private var inRow: UInt64 = 0
  private var hasTakenSinceKick = false

  /// No event yet.
  public init() {}

  /// Takes a turn of the queue into account: whether an event brought it, and whether a request was taken.
  ///
  /// An event whose requests an earlier turn has taken had a cause: it was only slower than that turn.
  public mutating func note(kicked: Bool, tookSomething: Bool) {
    if tookSomething {
      hasTakenSinceKick = true
      inRow = 0
    }
    guard kicked else { return }
    kickCount += 1
    if !hasTakenSinceKick {
      spuriousCount += 1
      inRow += 1
    }
    hasTakenSinceKick = false
  }

  /// How long the port is to stay masked after a turn that found nothing more, in nanoseconds.
  public var unmaskDelayNanoseconds: UInt64 {
    guard inRow > Self.freeCount else { return 0 }
    return min(1_000_000 << min(inRow - Self.freeCount - 1, 10), Self.longestNanoseconds)
  }
}
