import CUring
import Glibc
public import RingKit

/// Event channels of the loopback machine: an eventfd for each direction, and EPOLLONESHOT as the mask.
@safe
public final class LoopbackEventChannels: EventChannels {
  /// Our end of a channel.
  private struct End {
    /// Counts the events for us.
    let inbox: Descriptor
    /// Counts the events for the other end.
    let outbox: Descriptor
  }

  private let link: MachineLink
  private let presence: MachineLink
  private let epoll: Descriptor
  // By port: numbers are small, and an array needs no hash in the data path.
  private var ends: [End?] = []
  private var pending = PendingPorts()

  public var descriptor: Int32 { epoll.raw }

  init(link: MachineLink, presence: MachineLink) throws(SystemError) {
    self.link = link
    self.presence = presence
    let raw = epoll_create1(Int32(EPOLL_CLOEXEC))
    guard raw >= 0 else { throw SystemError(call: "epoll_create1", errno: errno) }
    epoll = Descriptor(owning: raw)
  }

  public func bind(domain: DomainID, remotePort: Port) throws(EventChannelError) -> Port {
    try open(
      .bindPort, [UInt32(domain.rawValue), remotePort.rawValue],
      "bind to port \(remotePort.rawValue) of domain \(domain)")
  }

  public func allocateUnbound(for domain: DomainID) throws(EventChannelError) -> Port {
    try open(.allocatePort, [UInt32(domain.rawValue)], "allocate a port for domain \(domain)")
  }

  private func open(
    _ request: MachineRequest, _ arguments: [UInt32], _ what: String
  ) throws(EventChannelError) -> Port {
    let reply: PacketSocket.Packet
    do {
      reply = try link.call(request, arguments)
    } catch {
      throw EventChannelError(operation: what, errno: error.errno)
    }
    guard let number = reply.words.first, number <= MachineState.maximumPort,
      reply.descriptors.count == 2
    else { throw EventChannelError(operation: what, errno: EPROTO) }
    let end = End(inbox: reply.descriptors[0], outbox: reply.descriptors[1])
    guard arm(end, number, EPOLL_CTL_ADD) else {
      let failure = errno
      _ = try? link.call(.closePort, [number])
      throw EventChannelError(operation: what, errno: failure)
    }
    while ends.count <= Int(number) { ends.append(nil) }
    ends[Int(number)] = end
    let port = Port(rawValue: number)
    pending.add(port)
    return port
  }

  /// Lets one event of the port be reported, and none after it until it is armed again.
  private func arm(_ end: End, _ port: UInt32, _ operation: Int32) -> Bool {
    var event = unsafe epoll_event(
      events: EPOLLIN.rawValue | EPOLLONESHOT.rawValue, data: epoll_data_t(u32: port))
    return unsafe epoll_ctl(epoll.raw, operation, end.inbox.raw, &event) == 0
  }

  private func end(of port: Port) -> End? {
    let index = Int(port.rawValue)
    return index < ends.count ? ends[index] : nil
  }

  public func unbind(_ port: Port) {
    guard pending.remove(port), let end = end(of: port) else { return }
    // The other side holds the same eventfd, so closing ours alone would leave it in the epoll set.
    var unused = unsafe epoll_event()
    _ = unsafe epoll_ctl(epoll.raw, EPOLL_CTL_DEL, end.inbox.raw, &unused)
    ends[Int(port.rawValue)] = nil
    _ = try? link.call(.closePort, [port.rawValue])
  }

  public func notify(_ port: Port) throws(EventChannelError) {
    guard let end = end(of: port) else {
      throw EventChannelError(operation: "notify port \(port.rawValue)", errno: ENOTCONN)
    }
    // With nobody at the other end the event is lost without an error, as in Xen.
    end.outbox.signal()
  }

  public func nextPending() -> Port? {
    while true {
      if let port = pending.next(), let end = end(of: port) {
        // Cleared before the caller looks: what comes later is a new event.
        var count: UInt64 = 0
        _ = unsafe read(end.inbox.raw, &count, 8)
        return port
      }
      guard collect() else { return nil }
    }
  }

  /// Takes the ports that epoll has ready, which masks them; false when there are none.
  private func collect() -> Bool {
    // Sound: epoll writes at most as many events as there is room for, and the ports fit the buffer. 64
    // events stay below the size up to which temporary memory is on the stack.
    unsafe pending.refill { buffer in
      unsafe withUnsafeTemporaryAllocation(of: epoll_event.self, capacity: min(buffer.count, 64)) { events in
        let count = unsafe epoll_wait(epoll.raw, events.baseAddress, Int32(events.count), 0)
        for index in 0..<max(0, Int(count)) {
          unsafe buffer[index] = events[index].data.u32
        }
        return Int(count)
      }
    }
  }

  public func unmask(_ port: Port) {
    guard let end = end(of: port) else { return }
    _ = arm(end, port.rawValue, EPOLL_CTL_MOD)
  }
}
