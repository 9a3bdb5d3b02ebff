import Glibc
import RingKit

/// Waiting for a few descriptors without allocating.
enum EventWait {
  /// Waits until one of two descriptors is readable, up to `nanoseconds` (rounded up to milliseconds).
  static func wait(
    _ first: Int32, _ second: Int32, nanoseconds: UInt64
  ) throws(SystemError) -> (first: Bool, second: Bool) {
    let milliseconds = Int32(clamping: (nanoseconds + 999_999) / 1_000_000)
    let wanted = pollfd(fd: first, events: Int16(POLLIN), revents: 0)
    var pair = (wanted, pollfd(fd: second, events: Int16(POLLIN), revents: 0))
    // Sound: a homogeneous tuple is laid out as an array of two, lent for the call.
    let count = unsafe withUnsafeMutableBytes(of: &pair) { bytes in
      unsafe poll(bytes.baseAddress?.assumingMemoryBound(to: pollfd.self), 2, milliseconds)
    }
    if count < 0 {
      guard errno == EINTR else { throw SystemError(call: "poll", errno: errno) }
      return (false, false)
    }
    return (pair.0.revents != 0, pair.1.revents != 0)
  }
}

/// A point in time until which something may take.
struct Deadline {
  private let end: UInt64
  /// The whole time allowed, for messages.
  let milliseconds: Int

  /// `milliseconds` from now.
  init(milliseconds: Int) {
    precondition(milliseconds >= 0)
    self.milliseconds = milliseconds
    end = MonotonicClock.nowNanoseconds() + UInt64(milliseconds) * 1_000_000
  }

  /// Nanoseconds left; 0 when the time is over.
  var left: UInt64 {
    let now = MonotonicClock.nowNanoseconds()
    return now < end ? end - now : 0
  }
}
