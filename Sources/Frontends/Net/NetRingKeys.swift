import Netback
import RingKit

/// The nodes with which a frontend tells its backend of the rings, in the order in which Linux writes them
/// (xen-netfront.c, talk_to_netback; netif.h; net.md 1.6).
struct NetRingKeys {
  /// What the backend needs of one queue.
  struct Queue {
    var transmitReference: GrantReference
    var receiveReference: GrantReference
    var transmitPort: Port
    var receivePort: Port
  }

  var queues: [Queue]
  /// The control ring, if there is one.
  var control: (reference: GrantReference, port: Port)?

  /// The nodes below the frontend's directory for a backend that offers `features`.
  func nodes(
    features: NetBackendFeatures, options: NetFrontendOptions
  ) -> [(name: String, value: String)] {
    precondition(!queues.isEmpty)
    var nodes: [(name: String, value: String)] = []
    if features.headroom { nodes.append(("xdp-headroom", String(options.headroomByteCount))) }
    if features.maximumQueues != nil { nodes.append(("multi-queue-num-queues", String(queues.count))) }
    for (index, queue) in queues.enumerated() {
      // With one queue its keys stand at the top level, and must not stand anywhere else.
      let prefix = queues.count > 1 ? "queue-\(index)/" : ""
      nodes.append((prefix + "tx-ring-ref", String(queue.transmitReference.rawValue)))
      nodes.append((prefix + "rx-ring-ref", String(queue.receiveReference.rawValue)))
      if queue.transmitPort == queue.receivePort {
        nodes.append((prefix + "event-channel", String(queue.transmitPort.rawValue)))
      } else {
        nodes.append((prefix + "event-channel-tx", String(queue.transmitPort.rawValue)))
        nodes.append((prefix + "event-channel-rx", String(queue.receivePort.rawValue)))
      }
    }
    if let control {
      nodes.append(("ctrl-ring-ref", String(control.reference.rawValue)))
      nodes.append(("event-channel-ctrl", String(control.port.rawValue)))
    }
    nodes.append(("request-rx-copy", "1"))
    if options.notifiesOnPosting { nodes.append(("feature-rx-notify", "1")) }
    for (name, offload) in NetOffloads.namedFeatures where options.offloads.contains(offload) {
      nodes.append((name, "1"))
    }
    if !options.offloads.contains(.checksumIPv4) { nodes.append(("feature-no-csum-offload", "1")) }
    if features.multicastControl {
      nodes.append(("request-multicast-control", options.requestsMulticastControl ? "1" : "0"))
    }
    return FrontendDirectory.overriding(nodes, with: options.keys)
  }

  /// True of names at the top of a frontend's directory that a frontend writes, of any release; the others are
  /// the toolstack's (netif.h).
  static func belongsToFrontend(_ name: String) -> Bool {
    let names = ["tx-ring-ref", "rx-ring-ref", "ctrl-ring-ref", "multi-queue-num-queues", "xdp-headroom"]
    return names.contains(name)
      || ["queue-", "event-channel", "feature-", "request-"].contains { name.hasPrefix($0) }
  }
}
