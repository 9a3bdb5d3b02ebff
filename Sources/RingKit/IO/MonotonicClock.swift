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
}
