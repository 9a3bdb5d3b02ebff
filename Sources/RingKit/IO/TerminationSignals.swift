import CUring
import Glibc

/// SIGTERM, SIGINT and SIGHUP as a readable descriptor.
///
/// Make it before any thread starts: threads inherit the mask, so the signals reach only this descriptor.
@safe
public final class TerminationSignals {
  /// What was asked for.
  public enum Request: Sendable {
    /// SIGTERM or SIGINT: stop cleanly.
    case stop
    /// SIGHUP: read the configuration again.
    case reload
  }

  /// Readable when a signal came.
  public let descriptor: Int32

  /// Blocks the signals for this thread and those it starts.
  public init() throws(SystemError) {
    var mask = sigset_t()
    // Sound: the set is a local variable, passed for the duration of each call.
    unsafe sigemptyset(&mask)
    for signal in [SIGTERM, SIGINT, SIGHUP] { unsafe sigaddset(&mask, signal) }
    unsafe pthread_sigmask(SIG_BLOCK, &mask, nil)
    descriptor = unsafe signalfd(-1, &mask, Int32(SFD_CLOEXEC | SFD_NONBLOCK))
    guard descriptor >= 0 else { throw SystemError(call: "signalfd", errno: errno) }
  }

  deinit { close(descriptor) }

  /// The next signal that came, nil when there is none.
  public func next() -> Request? {
    var information = signalfd_siginfo()
    let size = MemoryLayout<signalfd_siginfo>.size
    // Sound: exactly one structure's bytes are read into it.
    guard unsafe read(descriptor, &information, size) == size else { return nil }
    return information.ssi_signo == UInt32(SIGHUP) ? .reload : .stop
  }
}
