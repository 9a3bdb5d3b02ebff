import Glibc
public import RingKit
import Synchronization

/// A Xen in miniature: grants are pages of shared memory, event channels are eventfds, and domains are
/// processes (or threads) that connect to a socket and say who they are.
///
/// It checks what Xen checks: a grant is of use only to the domain it was made for, a read-only one cannot be
/// written, a port can be bound only by the domain it waits for. It is no wall against people, since who can
/// reach the directory can be any domain.
public final class LoopbackMachine: Sendable {
  /// What the machine holds at a moment.
  public struct Statistics: Equatable, Sendable {
    /// Connected domains.
    public let domainCount: Int
    /// Connections of all domains.
    public let connectionCount: Int
    /// Shares that have not ended.
    public let shareCount: Int
    /// Granted pages.
    public let grantedPageCount: Int
    /// Pages mapped by domains other than by their owner's sharing.
    public let mappedPageCount: Int
    /// Event channel ports.
    public let portCount: Int
  }

  private enum Phase {
    case running(pthread_t)
    case stopped
  }

  private let loop: MachineLoop
  private let path: String
  private let phase: Mutex<Phase>

  /// Where the machine of `directory` listens.
  static func socketPath(in directory: String) -> String { directory + "/hypervisor" }

  /// Starts a machine in `directory`, which is made (mode 0700) when it is missing. `domainGone` is called on
  /// the machine's thread when a domain's last connection ends, after its grants and ports went.
  public init(
    directory: String, domainGone: @escaping @Sendable (DomainID) -> Void = { _ in }
  ) throws(HostError) {
    guard sysconf(Int32(_SC_PAGESIZE)) == pageByteCount else {
      throw HostError("loopback needs a kernel with 4 KiB pages: a grant is one such page")
    }
    path = Self.socketPath(in: directory)
    DescriptorLimit.raise()
    do {
      if unsafe mkdir(directory, 0o700) != 0 && errno != EEXIST {
        throw SystemError(call: "mkdir \(directory)", errno: errno)
      }
      try Self.removeStaleSocket(path)
      let listener = try PacketSocket.listen(at: path)
      loop = try MachineLoop(listener: listener, domainGone: domainGone)
    } catch {
      throw HostError("loopback cannot start in \(directory): \(error)")
    }
    var thread = pthread_t()
    let context = unsafe Unmanaged.passRetained(loop)
    // Sound: the thread takes over the reference that was retained for it.
    let result = unsafe pthread_create(
      &thread, nil,
      { context in
        if let context = unsafe context {
          unsafe Unmanaged<MachineLoop>.fromOpaque(context).takeRetainedValue().run()
        }
        return nil
      }, context.toOpaque())
    guard result == 0 else {
      unsafe context.release()
      throw HostError(
        "loopback cannot start: \(SystemError(call: "pthread_create", errno: result))")
    }
    phase = Mutex(.running(thread))
  }

  deinit { stop() }

  /// A socket file that nobody listens at is what a killed machine left behind.
  private static func removeStaleSocket(_ path: String) throws(SystemError) {
    do {
      _ = try PacketSocket.connect(to: path, giveUpAfter: 1)
    } catch {
      switch error.errno {
      case ENOENT: return
      case ECONNREFUSED:
        if unsafe unlink(path) != 0 { throw SystemError(call: "unlink \(path)", errno: errno) }
        return
      default: throw error
      }
    }
    throw SystemError(call: "another loopback runs there; listen", errno: EADDRINUSE)
  }

  /// Ends the machine: mappings stay with those who have them, everything else ends. Idempotent; not to be
  /// called from `domainGone`.
  public func stop() {
    let running: pthread_t? = phase.withLock { phase in
      defer { phase = .stopped }
      if case .running(let thread) = phase { return thread }
      return nil
    }
    guard let running else { return }
    loop.stop()
    pthread_join(running, nil)
    _ = unsafe unlink(path)
  }

  /// What the machine holds now.
  public var statistics: Statistics {
    loop.inspect { state in
      let shares = state.domains.values.flatMap(\.shares.values)
      return Statistics(
        domainCount: state.domains.count, connectionCount: state.connections.count,
        shareCount: shares.count,
        grantedPageCount: state.domains.values.reduce(0) { count, domain in
          count + domain.shareOf.count { $0 != 0 }
        },
        mappedPageCount: state.maps.values.reduce(0) { $0 + $1.pageCount },
        portCount: state.domains.values.reduce(0) { $0 + $1.ports.count })
    }
  }

  /// Pages of `owner` that other domains have mapped now: 0 after an orderly disconnect (the grant ledger).
  public func mappedPageCount(of owner: DomainID) -> Int {
    loop.inspect { $0.mappedPageCount(of: owner) }
  }
}
