import Blkback
import RingKit

/// The nodes with which a frontend tells its backend of the rings, in the order in which Linux writes them
/// (blkif.h, "Frontend XenBus Nodes"; multi-queue and multi-page notes).
struct RingKeys {
  /// What the backend needs of one ring.
  struct Queue {
    var references: [GrantReference]
    var port: Port
  }

  /// The nodes below the frontend's directory.
  static func nodes(queues: [Queue], options: BlockFrontendOptions) -> [(name: String, value: String)] {
    precondition(!queues.isEmpty)
    var nodes: [(name: String, value: String)] = []
    if queues.count > 1 { nodes.append(("multi-queue-num-queues", String(queues.count))) }
    let pageCount = queues[0].references.count
    let numbersPages = pageCount > 1 || options.writesZeroRingPageOrder
    if numbersPages { nodes.append(("ring-page-order", String(pageCount.trailingZeroBitCount))) }
    for (index, queue) in queues.enumerated() {
      // With one queue its keys stand at the top level, and must not stand anywhere else.
      let prefix = queues.count > 1 ? "queue-\(index)/" : ""
      for (page, reference) in queue.references.enumerated() {
        nodes.append((prefix + "ring-ref" + (numbersPages ? String(page) : ""), String(reference.rawValue)))
      }
      nodes.append((prefix + "event-channel", String(queue.port.rawValue)))
    }
    nodes.append(("protocol", options.abi.protocolName))
    nodes.append(("feature-persistent", options.persistentGrants ? "1" : "0"))
    return FrontendDirectory.overriding(nodes, with: options.keys)
  }

  /// True of names at the top of a frontend's directory that a frontend writes, of any release; the others are
  /// the toolstack's (blkif.h).
  static func belongsToFrontend(_ name: String) -> Bool {
    ["ring-page-order", "protocol", "multi-queue-num-queues"].contains(name)
      || ["ring-ref", "queue-", "event-channel", "feature-"].contains { name.hasPrefix($0) }
  }
}
