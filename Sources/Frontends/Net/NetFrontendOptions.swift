public import Netback

/// How a ``NetFrontend`` negotiates.
public struct NetFrontendOptions: Sendable {
  /// Queues; lowered to the backend's `multi-queue-max-queues`.
  public var queueCount = 1
  /// Whether each ring has its own event channel where the backend offers that.
  public var splitsEventChannels = true
  /// What is offered to the backend: `feature-sg`, `feature-gso-*`, checksums. With the checksums of IPv4
  /// `feature-no-csum-offload` is left out, as Linux does; without them it is written as 1.
  public var offloads = NetOffloads.all
  /// Writes `feature-rx-notify`, and signals the backend when receive pages were posted. Without it the
  /// backend has to look by itself.
  public var notifiesOnPosting = true
  /// Writes `request-multicast-control` where the backend offers to filter.
  public var requestsMulticastControl = false
  /// `xdp-headroom`: bytes before received data, 0...0x7FFF; written where the backend offers that, as Linux
  /// does with 0 and 256.
  public var headroomByteCount = 0
  /// Shares a control ring where the backend offers that.
  public var usesControlRing = false
  /// Data pages of each queue's transmit ring, 18...1024. A page holds one slot's data.
  public var transmitPageCount = NetLimits.ringSlotCount
  /// Data pages of each queue's receive ring, 1...1024. With fewer than 256 no more are posted.
  public var receivePageCount = NetLimits.ringSlotCount
  /// The names of receive requests are their ring slots, as Linux has them, with these bits turned over: a
  /// backend has to give back whatever it got.
  public var receiveIDMask: UInt16 = 0
  /// Goes on at the next connection with the rings and the ports of the last one, with what is in them: as
  /// after a backend that was started anew. The number of queues stays then.
  public var keepsRings = false
  /// Where the counters of the transmit and receive rings start: anything but 0 needs a backend that attaches
  /// at `rsp_prod`, as Linux does.
  public var firstRingIndex: UInt32 = 0
  /// Frontend nodes to write otherwise than negotiated, by name below the frontend's directory; nil leaves
  /// the node out. Names not negotiated at all are added. For tests of a backend's checks.
  public var keys: [String: String?] = [:]

  /// What Linux does by default, with one queue.
  public init() {}
}
