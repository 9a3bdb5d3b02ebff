/// What a frontend wants to hear of multicast (netif.h, feature-multicast-control): a list of addresses that
/// it may change at any time, and that counts only while the filter is active.
public struct MulticastFilter: Sendable, Equatable {
  /// Addresses in the list at most, as in Linux (XEN_NETBK_MCAST_MAX).
  public static var capacity: Int { 64 }

  /// Whether the list counts: the value of request-multicast-control.
  public var isActive = false
  private var listed: [EthernetAddress] = []

  /// A filter that lets everything pass, with an empty list. Allocates all that it will need.
  public init() { listed.reserveCapacity(Self.capacity) }

  /// Addresses in the list.
  public var count: Int { listed.count }

  /// Adds an address, or takes it away; false when the list is full. An address is in it once, however often
  /// it is added, and taking away what is not in it changes nothing. Broadcast and addresses of a single
  /// interface pass anyhow, and use up no place.
  public mutating func change(_ address: EthernetAddress, isAdded: Bool) -> Bool {
    let place = listed.firstIndex(of: address)
    guard isAdded else {
      if let place { listed.remove(at: place) }
      return true
    }
    guard place == nil, address.isMulticast, !address.isBroadcast else { return true }
    guard listed.count < Self.capacity else { return false }
    listed.append(address)
    return true
  }

  /// Empties the list, for a frontend that connects anew, and lets everything pass.
  public mutating func reset() {
    listed.removeAll(keepingCapacity: true)
    isActive = false
  }

  /// Whether a frame for this destination goes to the frontend.
  public func accepts(_ destination: EthernetAddress) -> Bool {
    guard isActive, destination.isMulticast, !destination.isBroadcast else { return true }
    return listed.contains(destination)
  }
}
