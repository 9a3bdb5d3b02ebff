import CXen
import Glibc

/// Event channels through /dev/xen/evtchn (xenevtchn.h).
@safe
public final class XenEventChannels: EventChannels {
  // Sound: opened once, closed in deinit, used by one thread.
  private let handle: OpaquePointer
  public let descriptor: Int32
  private var pending = PendingPorts()

  /// Opens the device.
  public init() throws(HostError) {
    guard let handle = unsafe xenevtchn_open(ringback_quiet_logger(), 0) else {
      throw HostError.missingDevice("/dev/xen/evtchn", module: "xen-evtchn", errno: errno)
    }
    unsafe self.handle = handle
    descriptor = unsafe xenevtchn_fd(handle)
    // xenevtchn.h warns of kernels that ignore O_NONBLOCK (Linux 3.12). Every kernel that Ringback runs on
    // honours it in read(2), and a data thread must never wait here, so refuse to go on without it.
    let flags = fcntl(descriptor, F_GETFL)
    guard flags >= 0, fcntl(descriptor, F_SETFL, flags | O_NONBLOCK) == 0,
      fcntl(descriptor, F_GETFL) & O_NONBLOCK != 0
    else {
      let failure = SystemError(call: "fcntl O_NONBLOCK on /dev/xen/evtchn", errno: errno)
      unsafe xenevtchn_close(handle)
      throw HostError(failure.description)
    }
  }

  deinit { unsafe xenevtchn_close(handle) }

  public func bind(domain: DomainID, remotePort: Port) throws(EventChannelError) -> Port {
    let raw = unsafe xenevtchn_bind_interdomain(handle, UInt32(domain.rawValue), remotePort.rawValue)
    return try bound(raw, "bind to port \(remotePort.rawValue) of domain \(domain)")
  }

  public func allocateUnbound(for domain: DomainID) throws(EventChannelError) -> Port {
    let raw = unsafe xenevtchn_bind_unbound_port(handle, UInt32(domain.rawValue))
    return try bound(raw, "allocate a port for domain \(domain)")
  }

  private func bound(_ raw: Int32, _ operation: String) throws(EventChannelError) -> Port {
    guard raw > 0 else { throw EventChannelError(operation: operation, errno: errno) }
    let port = Port(rawValue: UInt32(raw))
    pending.add(port)
    return port
  }

  public func unbind(_ port: Port) {
    guard pending.remove(port) else { return }
    _ = unsafe xenevtchn_unbind(handle, port.rawValue)
  }

  public func notify(_ port: Port) throws(EventChannelError) {
    guard unsafe xenevtchn_notify(handle, port.rawValue) == 0 else {
      throw EventChannelError(operation: "notify port \(port.rawValue)", errno: errno)
    }
  }

  public func nextPending() -> Port? {
    while true {
      if let port = pending.next() { return port }
      guard readPorts() else { return nil }
    }
  }

  /// Reads as many pending ports as fit, in one call; false when there are none.
  private func readPorts() -> Bool {
    unsafe pending.refill { buffer in
      while true {
        // Sound: the kernel writes whole port numbers, at most as many as fit (drivers/xen/evtchn.c).
        let bytes = unsafe read(descriptor, buffer.baseAddress, buffer.count * 4)
        if bytes >= 0 { return bytes / 4 }
        if errno != EINTR { return 0 }
      }
    }
  }

  public func unmask(_ port: Port) {
    // The kernel ignores a port that is not ours or not masked.
    _ = unsafe xenevtchn_unmask(handle, port.rawValue)
  }
}
