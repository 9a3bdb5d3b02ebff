import Glibc
public import RingKit

/// A whole host without Xen: the machine and its xenstore in one directory.
///
/// Domain 0 is there from the start. A domain whose last connection to the machine ends has died: its nodes
/// and its socket go, and `@releaseDomain` fires.
public final class LoopbackHost: Sendable {
  /// Where the sockets are: `hypervisor`, `xenstored`, `xenstored-<domid>`.
  public let directory: String
  /// The host's xenstore.
  public let store: StoreServer
  /// Grants and event channels.
  public let machine: LoopbackMachine

  /// Starts a host in `directory`, which is made (mode 0700) when it is missing.
  public init(directory: String) throws(HostError) {
    self.directory = directory
    if unsafe mkdir(directory, 0o700) != 0 && errno != EEXIST {
      let failure = SystemError(call: "mkdir \(directory)", errno: errno)
      throw HostError("loopback cannot start: \(failure)")
    }
    do {
      store = try StoreServer(directory: directory)
      try store.start()
    } catch {
      throw HostError("loopback cannot start its xenstore: \(error)")
    }
    machine = try LoopbackMachine(directory: directory) { [store] domain in
      store.release(domain: domain.rawValue)
    }
  }

  deinit { stop() }

  /// What a toolstack does for a new domain: its home in xenstore and its socket. It lives until it has
  /// connected to the machine and left, or until ``removeDomain(_:)``.
  public func addDomain(_ domain: DomainID) throws(HostError) {
    do {
      try store.introduce(domain: domain.rawValue)
    } catch {
      throw HostError("cannot add domain \(domain): \(error)")
    }
  }

  /// Takes the domain out of xenstore, as when it was destroyed; what it holds of the machine ends with its
  /// connections.
  public func removeDomain(_ domain: DomainID) { store.release(domain: domain.rawValue) }

  /// The host as `domain` sees it, from this process.
  public func hypervisor(for domain: DomainID) throws(HostError) -> LoopbackHypervisor {
    try LoopbackHypervisor(directory: directory, domain: domain)
  }

  /// Stops both, and removes the sockets. Idempotent.
  public func stop() {
    machine.stop()
    store.stop()
  }
}
