public import RingKit

/// An interface's TAP: made before InitWait, because the toolstack's script looks for it then (net.md 3.2), and
/// kept over the daemon's end, so that its bridge keeps the port.
public final class TapLink: VifLink {
  /// What the aliases of our TAPs begin with, by which a later daemon finds them.
  public static let aliasPrefix = "ringback "

  /// The interface's index, which stays when a script renames it.
  public var index: Int32 { device.index }

  private let device: TapDevice
  private let vif: DeviceAddress
  private var offloads: NetOffloads = []
  private var seen: LinkStatus?

  /// Makes the TAP of an interface, or takes over the one that an earlier daemon has left for it.
  public init(_ configuration: VifConfiguration, of vif: DeviceAddress) throws(VifError) {
    guard case .tap(let name) = configuration.target else { throw VifError("this link is no TAP") }
    self.vif = vif
    let alias = Self.aliasPrefix + vif.description
    do throws(LinkError) {
      if let left = try TapDevice.leftovers(aliasPrefix: alias).first(where: { $0.alias == alias }) {
        device = try TapDevice(attaching: left.index)
      } else {
        device = try TapDevice(creating: name)
        try device.setAlias(alias)
      }
      try device.setPersistent(true)
      seen = try device.status
    } catch {
      throw VifError(error)
    }
  }

  /// "TAP vif1.0".
  public var name: String { "TAP \(seen?.name ?? "\(device.index)")" }

  /// Opens the queues, and asks of the kernel just what this frontend takes.
  public func open(queueCount: Int, offloads: NetOffloads) throws(VifError) -> [NetLinkQueue] {
    do throws(LinkError) {
      try device.setQueueCount(queueCount)
      try device.setOffloads(TapOffloads(offloads))
      self.offloads = offloads
      seen = try device.status
      return device.queues.map { .tap($0) }
    } catch {
      throw VifError(error)
    }
  }

  /// Nobody takes packets any more, and none are to wait.
  public func close() {
    offloads = []
    setCarrier(false)
    // All that can fail here is that the TAP was deleted by somebody else.
    try? device.setOffloads([])
    try? device.setQueueCount(1)
  }

  /// The carrier, as the bridge sees it.
  public func setCarrier(_ isUp: Bool) { try? device.setCarrier(isUp) }

  /// A packet of the largest size where segmentation is left to the frontend, else the MTU with its header and
  /// two tags.
  public var frameByteCount: Int {
    let headers = NetLimits.ethernetHeaderByteCount + 8
    let segmented: NetOffloads = [.segmentationIPv4, .segmentationIPv6]
    if !offloads.isDisjoint(with: segmented) { return NetLimits.packetByteCount + headers }
    return Int(seen?.mtu ?? 1500) + headers
  }

  /// Looks again at name, MTU and whether it is up.
  public func refresh() -> String? {
    guard let status = try? device.status else {
      guard seen != nil else { return nil }
      seen = nil
      return "its TAP was deleted by somebody else; detach and attach the interface"
    }
    defer { seen = status }
    guard let seen else { return nil }
    var news: [String] = []
    if status.name != seen.name { news.append("\(seen.name) is now \(status.name)") }
    if status.mtu != seen.mtu { news.append("the MTU of \(status.name) is \(status.mtu)") }
    if status.isUp != seen.isUp { news.append("\(status.name) is \(status.isUp ? "up" : "down")") }
    if status.masterIndex != seen.masterIndex {
      news.append("\(status.name) is \(status.masterIndex == nil ? "in no bridge" : "in a bridge")")
    }
    return news.isEmpty ? nil : news.joined(separator: ", ")
  }

  /// It is persistent: it stays as it is, without a carrier.
  public func leave() { close() }

  /// Deletes it.
  public func remove() { try? device.delete() }

  /// Deletes what earlier daemons have left of interfaces that are gone; gives their names.
  public static func removeLeftovers(except isThere: (DeviceAddress) -> Bool) throws(LinkError) -> [String] {
    var removed: [String] = []
    for left in try TapDevice.leftovers(aliasPrefix: aliasPrefix) {
      let parts = left.alias.dropFirst(aliasPrefix.count).split(separator: "/").map(String.init)
      guard parts.count == 3, let vif = DeviceAddress(kind: parts[0], domain: parts[1], device: parts[2]),
        !isThere(vif)
      else { continue }
      try LinkControl().delete(left.index)
      removed.append(left.name)
    }
    return removed
  }
}

extension TapOffloads {
  /// What the kernel may leave to a frontend that takes these. The kernel knows blank checksums of both families
  /// or of none; those that a frontend does not take are completed by us.
  public init(_ offloads: NetOffloads) {
    self = []
    if !offloads.isDisjoint(with: [.checksumIPv4, .checksumIPv6]) { insert(.checksum) }
    // CWR in a segmented packet has no field in netif: without this bit the kernel cuts such packets itself.
    if offloads.contains(.segmentationIPv4) { insert(.tcpIPv4) }
    if offloads.contains(.segmentationIPv6) { insert(.tcpIPv6) }
  }
}
