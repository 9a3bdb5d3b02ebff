public import Netback
public import RingKit

/// What a network backend offers before the rings exist (netif.h, feature-* of the backend; net.md 1.5).
/// Absent nodes have the defaults of the header.
public struct NetBackendFeatures: Equatable, Sendable {
  /// `feature-rx-copy`: received data is copied into the frontend's pages. Linux's netfront does without no
  /// other way.
  public var receiveCopy = false
  /// `feature-split-event-channels`: the two rings of a queue may have a port each.
  public var splitEventChannels = false
  /// `multi-queue-max-queues`; nil when it is absent, which means one and that no number is to be written.
  public var maximumQueues: Int?
  /// What the backend takes beside plain frames: `feature-sg`, `feature-gso-tcpv4`, `feature-gso-tcpv6`,
  /// `feature-no-csum-offload` and `feature-ipv6-csum-offload`.
  public var offloads = NetOffloads()
  /// `feature-multicast-control`: it filters multicast frames where that is asked for.
  public var multicastControl = false
  /// `feature-dynamic-multicast-control`: which may be at any time.
  public var dynamicMulticastControl = false
  /// `feature-xdp-headroom` (Linux only): it leaves bytes free before received data.
  public var headroom = false
  /// `feature-ctrl-ring`: it answers a control ring.
  public var controlRing = false

  /// A backend that offers nothing.
  public init() {}

  /// Reads them from the backend's directory.
  public static func read(from store: any StoreAccess, backendPath: String) throws(StoreError)
    -> NetBackendFeatures
  {
    func isSet(_ name: String) throws(StoreError) -> Bool {
      try store.flag("\(backendPath)/\(name)", default: false)
    }
    var features = NetBackendFeatures()
    features.receiveCopy = try isSet("feature-rx-copy")
    features.splitEventChannels = try isSet("feature-split-event-channels")
    features.maximumQueues = try store.decimalIfPresent(
      "\(backendPath)/multi-queue-max-queues", in: 1...65536)
    features.multicastControl = try isSet("feature-multicast-control")
    features.dynamicMulticastControl = try isSet("feature-dynamic-multicast-control")
    features.headroom = try isSet("feature-xdp-headroom")
    features.controlRing = try isSet("feature-ctrl-ring")
    if try !isSet("feature-no-csum-offload") { features.offloads.insert(.checksumIPv4) }
    for (name, offload) in NetOffloads.namedFeatures where try isSet(name) {
      features.offloads.insert(offload)
    }
    return features
  }
}

extension NetOffloads {
  /// The offloads that are off unless a node says otherwise, in the order in which Linux's netfront writes
  /// them (xen-netfront.c, talk_to_netback).
  static var namedFeatures: [(name: String, offload: NetOffloads)] {
    [
      ("feature-sg", .scatterGather), ("feature-gso-tcpv4", .segmentationIPv4),
      ("feature-gso-tcpv6", .segmentationIPv6), ("feature-ipv6-csum-offload", .checksumIPv6),
    ]
  }

  /// Everything that netif.h knows.
  public static var all: NetOffloads {
    [.checksumIPv4, .checksumIPv6, .scatterGather, .segmentationIPv4, .segmentationIPv6]
  }
}
