import RingKit

/// Everything the machine knows, without descriptors or sockets: requests come in as calls, refusals go out
/// as errors, and the caller turns results into memory and events.
struct MachineState {
  /// One connection of a domain; resources end with the connection that made them, as with Xen's device
  /// files.
  struct Connection: Hashable, Comparable {
    let number: UInt64
    static func < (left: Connection, right: Connection) -> Bool { left.number < right.number }
  }

  /// What one domain has.
  struct Domain {
    var connectionCount = 0
    /// First reference of the share that each reference belongs to; 0 for none.
    var shareOf = [UInt32](repeating: 0, count: GrantWord.tableCount)
    /// Where to look for free references.
    var nextReference = firstReference
    /// Shares by first reference.
    var shares: [UInt32: Share] = [:]
    /// Event channel ends by port.
    var ports: [UInt32: PortEnd] = [:]
  }

  /// Xen keeps the first entries of a grant table to itself (GNTTAB_NR_RESERVED_ENTRIES).
  static var firstReference: UInt32 { 8 }

  var domains: [DomainID: Domain] = [:]
  var connections: [Connection: DomainID] = [:]
  var maps: [UInt32: GrantMap] = [:]
  var lastMap: UInt32 = 0
  var lastShare: UInt32 = 0
  var lastChannel: UInt64 = 0

  /// Lets `domain` speak on `connection`.
  mutating func connect(_ connection: Connection, as domain: DomainID) throws(MachineRefusal) {
    // DOMID_FIRST_RESERVED of xen.h: no domain has these numbers.
    guard connections[connection] == nil, domain.rawValue < 0x7FF0 else { throw .malformed }
    connections[connection] = domain
    domains[domain, default: Domain()].connectionCount += 1
  }

  /// Who speaks on `connection`.
  func domain(of connection: Connection) throws(MachineRefusal) -> DomainID {
    guard let domain = connections[connection] else { throw .malformed }
    return domain
  }

  /// What the end of a connection takes with it.
  struct Departure {
    /// References that are granted no more, with their owner.
    var endedGrants: [EndedGrants] = []
    /// Channels with no end left.
    var closedChannels: [Channel] = []
    /// The domain, when this was its last connection.
    var goneDomain: DomainID?
  }

  /// Ends everything that belongs to `connection`.
  mutating func disconnect(_ connection: Connection) -> Departure {
    var departure = Departure()
    guard let id = connections.removeValue(forKey: connection), let domain = domains[id] else {
      return departure
    }
    maps = maps.filter { $0.value.connection != connection }
    for share in domain.shares.values.sorted(by: { $0.first < $1.first })
    where share.connection == connection {
      departure.endedGrants.append(removeShare(share))
    }
    for (port, end) in domain.ports.sorted(by: { $0.key < $1.key }) where end.connection == connection {
      if let channel = removePort(port, of: id) { departure.closedChannels.append(channel) }
    }
    domains[id]?.connectionCount -= 1
    if domains[id]?.connectionCount == 0 {
      domains[id] = nil
      departure.goneDomain = id
    }
    return departure
  }
}
