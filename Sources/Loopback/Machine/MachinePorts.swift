import RingKit

extension MachineState {
  /// A pair of events between two ends; it lives as long as one of them does.
  struct Channel: Hashable {
    let number: UInt64
  }

  /// Which of a channel's two events an end listens to.
  enum Side {
    case first, second
    var other: Side { self == .first ? .second : .first }
  }

  /// One end of an event channel.
  struct PortEnd: Equatable {
    let connection: Connection
    let channel: Channel
    let side: Side
    /// The domain at the other end, or that may bind to this one.
    let remote: DomainID
    /// The port at the other end; nil while unbound.
    var remotePort: UInt32?
  }

  /// Ports of one domain, port 0 being none.
  static var maximumPort: UInt32 { 4095 }

  private func freePort(of domain: DomainID) throws(MachineRefusal) -> UInt32 {
    guard let ports = domains[domain]?.ports else { throw .unknownDomain }
    guard let port = (1...Self.maximumPort).first(where: { ports[$0] == nil }) else { throw .noSpace }
    return port
  }

  /// Allocates a port that `remote` may bind to; `remote` need not exist yet.
  mutating func allocatePort(
    _ connection: Connection, for remote: DomainID
  ) throws(MachineRefusal) -> (port: UInt32, end: PortEnd) {
    let caller = try domain(of: connection)
    let port = try freePort(of: caller)
    lastChannel += 1
    let end = PortEnd(
      connection: connection, channel: Channel(number: lastChannel), side: .first, remote: remote)
    domains[caller]?.ports[port] = end
    return (port, end)
  }

  /// Binds a new port to `remotePort` of `remote`, which must be unbound and meant for the caller
  /// (EVTCHNOP_bind_interdomain).
  mutating func bindPort(
    _ connection: Connection, remote: DomainID, remotePort: UInt32
  ) throws(MachineRefusal) -> (port: UInt32, end: PortEnd) {
    let caller = try domain(of: connection)
    guard let remoteDomain = domains[remote] else { throw .unknownDomain }
    guard let far = remoteDomain.ports[remotePort], far.remotePort == nil, far.remote == caller else {
      throw .badPort
    }
    let port = try freePort(of: caller)
    let end = PortEnd(
      connection: connection, channel: far.channel, side: far.side.other, remote: remote,
      remotePort: remotePort)
    domains[caller]?.ports[port] = end
    domains[remote]?.ports[remotePort]?.remotePort = port
    return (port, end)
  }

  /// Closes a port of the caller; returns the channel when that was its last end.
  mutating func closePort(_ connection: Connection, port: UInt32) throws(MachineRefusal) -> Channel? {
    let caller = try domain(of: connection)
    guard domains[caller]?.ports[port]?.connection == connection else { throw .badPort }
    return removePort(port, of: caller)
  }

  /// The other end goes back to unbound for the same domain, so that a backend which starts again can bind to
  /// the very same port (evtchn_close of Xen's event_channel.c).
  mutating func removePort(_ port: UInt32, of domain: DomainID) -> Channel? {
    guard let end = domains[domain]?.ports.removeValue(forKey: port) else { return nil }
    guard let remotePort = end.remotePort, domains[end.remote]?.ports[remotePort] != nil else {
      return end.channel
    }
    domains[end.remote]?.ports[remotePort]?.remotePort = nil
    return nil
  }
}
