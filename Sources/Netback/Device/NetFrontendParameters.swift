public import RingKit

/// What a network frontend asks for when it connects: read once, in one transaction, checked, and never looked
/// at again while connected (net.md 1.6; trap 39). The guest can set all of it to anything.
public struct NetFrontendParameters: Equatable, Sendable {
  /// The rings of one queue and their event channels.
  public struct Queue: Equatable, Sendable {
    /// The transmit ring's page.
    public var transmitReference: GrantReference
    /// The receive ring's page.
    public var receiveReference: GrantReference
    /// The frontend's unbound port: of both rings, or of the transmit ring.
    public var port: Port
    /// That of the receive ring, where there are two.
    public var receivePort: Port?
  }

  /// The control ring.
  public struct Control: Equatable, Sendable {
    /// Its page.
    public var reference: GrantReference
    /// The frontend's unbound port.
    public var port: Port
  }

  /// The queues; at least one.
  public var queues: [Queue]
  /// What it takes from us.
  public var offloads: NetOffloads
  /// True when it sends an event after it has posted receive buffers (feature-rx-notify).
  public var notifiesReceive: Bool
  /// True when only multicast that it has asked for is wanted (request-multicast-control).
  public var controlsMulticast: Bool
  /// Bytes that it wants before received data in each page (xdp-headroom).
  public var headroom: Int
  /// The control ring, if it has one.
  public var control: Control?

  /// Reads the frontend's keys.
  static func read(
    from store: any StoreSession, frontendPath path: String, offer: VifOffer
  ) throws(VifError) -> NetFrontendParameters {
    var refusal: VifError?
    do throws(StoreError) {
      let read: NetFrontendParameters? = try store.transaction { tree throws(StoreError) in
        do throws(VifError) {
          return try parse(in: tree, path, offer)
        } catch {
          refusal = error
          return nil
        }
      }
      if let read { return read }
    } catch {
      throw VifError(error)
    }
    throw refusal ?? VifError("\(path) could not be read")
  }

  private static func parse(
    in tree: any StoreAccess, _ path: String, _ offer: VifOffer
  ) throws(VifError) -> NetFrontendParameters {
    do {
      guard try isSet("request-rx-copy", in: tree, path) else {
        throw VifError(
          "\(path)/request-rx-copy is not 1: this frontend wants received pages to be exchanged, which no backend "
            + "does any more; it needs a driver of this decade")
      }
      let count = try tree.decimal(
        "\(path)/multi-queue-num-queues", in: 1...(offer.maximumQueues ?? 1), default: 1)
      var queues: [Queue] = []
      for index in 0..<count {
        // With one queue the keys stand at the top level (netif.h, multi-queue).
        queues.append(try queue(in: tree, count == 1 ? path : "\(path)/queue-\(index)", offer))
      }
      let headroom = offer.headroom ? try Self.headroom(in: tree, path) : 0
      return NetFrontendParameters(
        queues: queues, offloads: try offloads(in: tree, path),
        notifiesReceive: try isSet("feature-rx-notify", in: tree, path),
        controlsMulticast: offer.multicastControl ? try controlsMulticast(in: tree, path) : false,
        headroom: headroom, control: offer.controlRing ? try control(in: tree, path) : nil)
    } catch let error as VifError {
      throw error
    } catch {
      throw VifError("\(error)")
    }
  }

  /// Bytes that the frontend wants before received data; may change while connected, by Reconfiguring.
  static func headroom(in tree: any StoreAccess, _ path: String) throws(StoreError) -> Int {
    try tree.decimal("\(path)/xdp-headroom", in: 0...VifOffer.headroomLimit, default: 0)
  }

  /// Whether the frontend controls its multicast; may change while connected (feature-dynamic-...).
  static func controlsMulticast(in tree: any StoreAccess, _ path: String) throws(StoreError) -> Bool {
    try isSet("request-multicast-control", in: tree, path)
  }

  /// Any number but 0 sets a feature, as Linux reads them (xenbus_read_unsigned).
  private static func isSet(
    _ name: String, in tree: any StoreAccess, _ path: String
  ) throws(StoreError) -> Bool {
    try tree.decimal("\(path)/\(name)", in: 0...UInt32.max, default: 0) != 0
  }

  /// Linux drops segmentation where the packets could not be in several slots or lack the checksum
  /// (netdev_fix_features), so that no frontend knows it otherwise.
  private static func offloads(in tree: any StoreAccess, _ path: String) throws(StoreError) -> NetOffloads {
    var offloads: NetOffloads = []
    if try !isSet("feature-no-csum-offload", in: tree, path) { offloads.insert(.checksumIPv4) }
    if try isSet("feature-ipv6-csum-offload", in: tree, path) { offloads.insert(.checksumIPv6) }
    guard try isSet("feature-sg", in: tree, path) else { return offloads }
    offloads.insert(.scatterGather)
    if offloads.contains(.checksumIPv4), try isSet("feature-gso-tcpv4", in: tree, path) {
      offloads.insert(.segmentationIPv4)
    }
    if offloads.contains(.checksumIPv6), try isSet("feature-gso-tcpv6", in: tree, path) {
      offloads.insert(.segmentationIPv6)
    }
    return offloads
  }

  private static func queue(
    in tree: any StoreAccess, _ path: String, _ offer: VifOffer
  ) throws(StoreError) -> Queue {
    let transmit = try reference("\(path)/tx-ring-ref", in: tree)
    let receive = try reference("\(path)/rx-ring-ref", in: tree)
    // As Linux's connect_data_rings: two ports if the first of them is there.
    if offer.splitEventChannels, try tree.exists("\(path)/event-channel-tx") {
      return Queue(
        transmitReference: transmit, receiveReference: receive,
        port: try port("\(path)/event-channel-tx", in: tree),
        receivePort: try port("\(path)/event-channel-rx", in: tree))
    }
    return Queue(
      transmitReference: transmit, receiveReference: receive,
      port: try port("\(path)/event-channel", in: tree), receivePort: nil)
  }

  private static func control(in tree: any StoreAccess, _ path: String) throws(StoreError) -> Control? {
    guard try tree.exists("\(path)/ctrl-ring-ref") else { return nil }
    return Control(
      reference: try reference("\(path)/ctrl-ring-ref", in: tree),
      port: try port("\(path)/event-channel-ctrl", in: tree))
  }

  private static func reference(
    _ path: String, in tree: any StoreAccess
  ) throws(StoreError) -> GrantReference {
    GrantReference(rawValue: try tree.decimal(path, in: 0...UInt32.max))
  }

  private static func port(_ path: String, in tree: any StoreAccess) throws(StoreError) -> Port {
    Port(rawValue: try tree.decimal(path, in: 1...UInt32.max))
  }
}

extension NetFrontendParameters: CustomStringConvertible {
  /// The negotiated shape in words, for the log.
  public var description: String {
    let names: [(NetOffloads, String)] = [
      (.scatterGather, "sg"), (.checksumIPv4, "csum4"), (.checksumIPv6, "csum6"),
      (.segmentationIPv4, "gso4"), (.segmentationIPv6, "gso6"),
    ]
    let taken = names.filter { offloads.contains($0.0) }.map(\.1).joined(separator: " ")
    return
      "queues: \(queues.count), event channels: \(queues.first?.receivePort == nil ? "joint" : "split"), "
      + "offloads: \(taken.isEmpty ? "none" : taken)" + (headroom > 0 ? ", headroom: \(headroom)" : "")
      + (control == nil ? "" : ", control ring") + (notifiesReceive ? "" : ", no rx-notify")
  }
}
