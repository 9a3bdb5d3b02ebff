import RingKit

/// What queues may hold of their thread's buffers: each on its own, or all of a ``NetQueueGroup`` together, as
/// packets go from one to another there.
final class NetBufferAccount {
  /// The limit, and what is in use.
  var share: BufferShare

  /// An account with nothing in use.
  init(limitByteCount: Int) { share = BufferShare(limitByteCount: limitByteCount) }
}

/// The queues of a connection whose frontend has a control ring. All live on one data thread, and so does that
/// ring: what it sets and stages reaches them without a message, and a packet that came to one queue of the
/// link (the kernel chose it by a hash of its own) is received by the queue that the frontend's hash says.
///
/// Together they hold no more buffers than one queue may.
final class NetQueueGroup: @unchecked Sendable {
  // Sound: control work makes it, and from then on only the data thread that owns the queues uses it: they join
  // where they are made, and leave when that thread's loop, which alone keeps them, lets go of them (``NetQueue``).

  // A queue and its group hold each other; the queue's leaving ends that.
  private var members: [NetDataQueue?]
  private var hash = NetHashState()
  /// The buffers of all of them.
  let account: NetBufferAccount
  /// Whether packets get a hash, or another queue, before they are received.
  private(set) var isHashing = false
  /// Whether packets may go to another queue than they came to.
  private(set) var isSteering = false

  /// A group of `count` queues, none of which is there yet, with a share of buffers for all.
  init(count: Int, bufferShareByteCount: Int) {
    members = [NetDataQueue?](repeating: nil, count: count)
    account = NetBufferAccount(limitByteCount: bufferShareByteCount)
  }

  /// A queue, while it is there.
  subscript(index: Int) -> NetDataQueue? { members[index] }

  /// A queue has been made.
  func join(_ queue: NetDataQueue) { members[queue.index] = queue }

  /// A queue is to go.
  func leave(_ queue: NetDataQueue) { members[queue.index] = nil }

  /// What holds for packets from here on. Without an algorithm the link's choice of a queue stands, as in
  /// Linux (interface.c, xenvif_select_queue).
  func setHash(_ state: NetHashState) {
    hash = state
    isHashing = state.algorithm != .none
    isSteering = isHashing && members.count > 1
    for queue in members { queue?.tellHashes(isHashing) }
  }

  /// Gives a packet its hash, if it has one, and finds its queue; nil when that is gone.
  func target(of packet: inout NetPacket, frame: PrivateBytes) -> NetDataQueue? {
    packet.offload.hash = nil
    if hash.isEnabled {
      let headers = PacketHeaders(frame)
      if headers.network != .none {
        packet.offload.hash = hash.hash(
          of: frame,
          NetHashFields(
            isIPv6: headers.network == .ipv6, networkOffset: headers.networkStart,
            tcpOffset: headers.transport == .tcp ? headers.transportStart : nil))
      }
    }
    return members[hash.queue(for: packet.offload.hash, queueCount: members.count)]
  }
}
