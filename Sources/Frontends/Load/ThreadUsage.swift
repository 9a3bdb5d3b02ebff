import Glibc

/// Processor time of the calling thread (getrusage, RUSAGE_THREAD), in nanoseconds.
public struct ThreadUsage: Equatable, Sendable {
  /// In user mode.
  public var userNanoseconds: UInt64 = 0
  /// In the kernel.
  public var systemNanoseconds: UInt64 = 0

  /// None.
  public init() {}

  /// What the calling thread used since its start.
  public static func ofThisThread() -> ThreadUsage {
    // bits/resource.h; glibc shows the name only with _GNU_SOURCE.
    let thread: Int32 = 1
    var usage = rusage()
    // Sound: the call fills the local variable; it fails only for a wrong first argument.
    _ = unsafe getrusage(thread, &usage)
    var result = ThreadUsage()
    result.userNanoseconds = nanoseconds(usage.ru_utime)
    result.systemNanoseconds = nanoseconds(usage.ru_stime)
    return result
  }

  /// What was used since `start`.
  public func since(_ start: ThreadUsage) -> ThreadUsage {
    var result = ThreadUsage()
    result.userNanoseconds = userNanoseconds - start.userNanoseconds
    result.systemNanoseconds = systemNanoseconds - start.systemNanoseconds
    return result
  }

  private static func nanoseconds(_ time: timeval) -> UInt64 {
    UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_usec) * 1000
  }
}
