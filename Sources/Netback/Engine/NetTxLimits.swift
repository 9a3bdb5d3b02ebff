/// How much the transmit direction takes on.
@frozen
public struct NetTxLimits: Equatable, Sendable, BitwiseCopyable {
  /// Packets of one turn, 1...256; requests that only change the multicast filter count as well. Linux'
  /// NAPI budget is 64.
  public let packetCount: Int
  /// Data slots that a packet may have, 18 (netif.h, XEN_NETIF_NR_SLOTS_MIN) to 256: one with more is dropped
  /// and its slots answered ERROR. Linux takes 19; 64 let a packet of 64 KiB come in pieces of 1 KiB.
  public let acceptedSlotCount: Int
  /// Data slots beyond which the frontend is not mistaken but hostile, and its ring broken: at least
  /// ``acceptedSlotCount``, at most the ring's 256. Linux has 21.
  public let toleratedSlotCount: Int

  /// Checks that the limits are in their ranges, which are the program's own matter.
  public init(packetCount: Int = 64, acceptedSlotCount: Int = 64, toleratedSlotCount: Int = 128) {
    precondition((1...NetLimits.ringSlotCount).contains(packetCount))
    precondition((NetLimits.slotCount...toleratedSlotCount).contains(acceptedSlotCount))
    precondition(toleratedSlotCount <= NetLimits.ringSlotCount)
    self.packetCount = packetCount
    self.acceptedSlotCount = acceptedSlotCount
    self.toleratedSlotCount = toleratedSlotCount
  }
}
