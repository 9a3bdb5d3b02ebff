import CUring
import Glibc

/// Which of the kernel's interfaces carries the I/O of a data thread.
public enum IOEngine: String, Sendable, CaseIterable {
  /// io_uring where the kernel allows it, libaio elsewhere.
  case automatic
  /// io_uring, or the thread does not start.
  case uring
  /// libaio: for kernels that forbid io_uring (`kernel.io_uring_disabled`, seccomp) or are older than it. What
  /// it cannot do without waiting (page cache, fallocate) is done by two threads of the ring's own.
  case aio
}

extension IORing {
  /// Makes a ring on the wanted engine; ``IORing/engine`` tells which one it is. What is thrown tells the
  /// administrator what to do.
  public static func open(entries: UInt32, engine: IOEngine = .automatic) throws(HostError) -> IORing {
    switch engine {
    case .uring:
      do throws(HostError) {
        return try openUring(entries: entries)
      } catch {
        throw HostError("\(error); or let the engine be chosen (automatic), or choose aio")
      }
    case .aio:
      return try openAIO(entries: entries, fallbackReason: nil)
    case .automatic:
      let refusal: HostError
      do throws(HostError) {
        return try openUring(entries: entries)
      } catch {
        refusal = error
      }
      do throws(HostError) {
        return try openAIO(entries: entries, fallbackReason: refusal)
      } catch {
        throw HostError("\(refusal); and without it: \(error)")
      }
    }
  }

  private static func openAIO(entries: UInt32, fallbackReason: HostError?) throws(HostError) -> IORing {
    do throws(SystemError) {
      return IORing(try LinuxAIO(entries: entries), fallbackReason: fallbackReason)
    } catch {
      throw aioRefusal(error)
    }
  }

  /// What a refusal of libaio's calls means and how to mend it.
  public static func aioRefusal(_ error: SystemError) -> HostError {
    switch (error.call, error.errno) {
    case ("io_setup", EAGAIN):
      return HostError(
        "libaio: the machine's requests are used up; raise `sysctl fs.aio-max-nr` (1048576 suits most), or"
          + " start fewer data threads")
    case ("io_setup", ENOSYS):
      return HostError("libaio: this kernel has none; use a kernel with CONFIG_AIO or with io_uring")
    case ("io_setup", EPERM):
      return HostError("libaio: forbidden to this process; allow io_setup in its seccomp profile")
    default:
      return HostError("libaio: \(error); Linux 4.18 or later is needed")
    }
  }
}
