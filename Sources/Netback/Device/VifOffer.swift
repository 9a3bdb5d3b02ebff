import RingKit

/// What an interface offers its frontend (netif.h, "feature-*"; net.md 1.5).
public struct VifOffer: Equatable, Sendable {
  /// Most queues that any interface offers.
  public static let queueLimit = 8
  /// Bytes before the data that a frontend may ask for at most. Linux asks for 256; more than half a page would
  /// leave too little of each page for a packet of 64 KiB to fit into 18 slots twice over.
  public static let headroomLimit = 2048

  /// Most queues, 1...``queueLimit`` (netif.h, multi-queue-max-queues); nil for one a data thread.
  public var maximumQueues: Int?
  /// Packets of several slots (netif.h, feature-sg).
  public var scatterGather = true
  /// TCP to be segmented by us (netif.h, feature-gso-tcpv4 and -tcpv6); needs ``scatterGather`` and
  /// ``checksums``.
  public var segmentation = true
  /// Blank checksums from the frontend (netif.h, feature-no-csum-offload, feature-ipv6-csum-offload).
  public var checksums = true
  /// An event channel for each direction (netif.h, feature-split-event-channels).
  public var splitEventChannels = true
  /// Frontends tell which multicast addresses they listen to (netif.h, feature-multicast-control and
  /// feature-dynamic-multicast-control).
  public var multicastControl = true
  /// Frontends ask for room before received data (feature-xdp-headroom, Linux commit 1c9535c701a7).
  public var headroom = true
  /// Hashes, their mapping to queues, and staging grants (netif.h, feature-ctrl-ring).
  public var controlRing = true

  /// The usual offer.
  public init() {}

  /// The same offer with its number of queues settled for a daemon with so many data threads.
  func settled(threadCount: Int) -> VifOffer {
    var offer = self
    offer.maximumQueues = min(max(1, maximumQueues ?? threadCount), Self.queueLimit)
    offer.segmentation = segmentation && scatterGather && checksums
    return offer
  }

  /// The nodes below the backend's directory that announce this offer.
  var nodes: [DeviceNode] {
    func flag(_ isOffered: Bool) -> String { isOffered ? "1" : "0" }
    return [
      DeviceNode("feature-sg", flag(scatterGather)),
      DeviceNode("feature-gso-tcpv4", flag(segmentation)),
      DeviceNode("feature-gso-tcpv6", flag(segmentation)),
      DeviceNode("feature-no-csum-offload", flag(!checksums)),
      DeviceNode("feature-ipv6-csum-offload", flag(checksums)),
      DeviceNode("feature-rx-copy", "1"),
      DeviceNode("feature-rx-flip", "0"),
      DeviceNode("feature-multicast-control", flag(multicastControl)),
      DeviceNode("feature-dynamic-multicast-control", flag(multicastControl)),
      DeviceNode("feature-split-event-channels", flag(splitEventChannels)),
      DeviceNode("feature-xdp-headroom", flag(headroom)),
      DeviceNode("feature-ctrl-ring", flag(controlRing)),
      DeviceNode("multi-queue-max-queues", String(maximumQueues ?? 1)),
    ]
  }
}
