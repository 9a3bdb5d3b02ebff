/// What became of a packet that was offered to a receive ring.
@frozen
public enum RxDelivery: Equatable, Sendable, BitwiseCopyable {
  /// The engine has it, and gives its buffer back when it is done.
  case taken
  /// The caller keeps it: so many slots have to be posted first. What was to be cut into segments goes on
  /// with `nextSegment`, 0 if none was sent yet.
  case noRoom(slotsNeeded: Int, nextSegment: Int)
  /// The caller keeps it: there is no memory for the next segment. A flush gives some back; if nothing was to
  /// be flushed, the host runs the queue again once there is some.
  case noMemory(nextSegment: Int)
  /// It will not be sent; its buffer has been given back, and the loss is counted.
  case dropped(RxDropReason)
}

/// Why a packet did not reach its guest.
@frozen
public enum RxDropReason: UInt8, Error, Sendable, BitwiseCopyable, CaseIterable {
  /// The queue is being closed.
  case closing
  /// The frontend broke the ring.
  case brokenRing
  /// Its length, or its place in its buffer, is none that a packet can have.
  case badLength
  /// It takes more data slots than frontends accept (netif.h, XEN_NETIF_NR_SLOTS_MIN).
  case tooManySlots
  /// It takes several slots, and the frontend takes one (netif.h, feature-sg).
  case severalSlots
  /// The room that the frontend wants before the data leaves none for an Ethernet header.
  case headroom
  /// What is left to be done to it can be done neither by the frontend nor here.
  case offload
  /// The hypervisor refused a copy; the frontend was told, and drops what it got.
  case copyFailed
  /// As much as may be waits for the frontend already (XSA-392).
  case backlogFull
  /// It waited for too long.
  case expired
  /// The frontend has posted too few slots for so long that its link is down.
  case stalled
}
