import CUring
import Glibc

/// CLOCK_MONOTONIC, the clock of every deadline here.
public enum MonotonicClock {
  /// Nanoseconds since an unspecified start.
  public static func nowNanoseconds() -> UInt64 {
    var time = timespec()
    // Sound: the call fills the local variable; this clock cannot fail.
    unsafe clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
  }

  /// What is to be added to this clock for the nanoseconds since 1970, as things stand; with overflow where the
  /// other clock is set before the start of this one.
  public static func epochOffsetNanoseconds() -> UInt64 {
    var time = timespec()
    // Sound: the call fills the local variable; this clock cannot fail.
    unsafe clock_gettime(CLOCK_REALTIME, &time)
    return (UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)) &- nowNanoseconds()
  }
}
