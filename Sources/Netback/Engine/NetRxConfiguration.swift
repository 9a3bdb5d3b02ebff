import RingKit

/// What a frontend wants of the packets that it receives. May change between turns: XDP's headroom does while
/// the frontend is Reconfiguring.
@frozen
public struct NetRxConfiguration: Equatable, Sendable, BitwiseCopyable {
  /// The most bytes that a frontend may ask for before the data: Linux's XEN_NETIF_MAX_XDP_HEADROOM, its
  /// netback cuts off what is beyond.
  @inlinable public static var largestHeadroom: Int { 0x7FFF }

  /// What the frontend takes beside plain frames.
  public var accepted: NetOffloads
  /// Bytes before the data in each page, told in an extra info unless 0 (xdp-headroom, Linux commit
  /// 1c9535c701a7); 0...``largestHeadroom``.
  public private(set) var headroom: Int
  /// Whether the frontend is told hashes: it has set an algorithm (netif.h,
  /// XEN_NETIF_CTRL_TYPE_SET_HASH_ALGORITHM).
  public var tellsHashes: Bool

  /// Joins the values; a headroom out of range is brought into it.
  public init(accepted: NetOffloads, headroom: Int = 0, tellsHashes: Bool = false) {
    self.accepted = accepted
    self.headroom = min(max(headroom, 0), Self.largestHeadroom)
    self.tellsHashes = tellsHashes
  }

  /// Slots for a packet of `byteCount` bytes with `extraCount` extra infos beside the headroom's.
  ///
  /// The first one holds an Ethernet header at least, or the whole packet (XSA-522): all but the last are
  /// full.
  func slotsNeeded(byteCount: Int, extraCount: Int) throws(RxDropReason) -> Int {
    let capacity = slotCapacity
    guard capacity >= NetLimits.ethernetHeaderByteCount else { throw .headroom }
    let extras = extraCount + (headroom > 0 ? 1 : 0)
    if byteCount <= capacity { return 1 + extras }
    guard accepted.contains(.scatterGather) else { throw .severalSlots }
    let count = (byteCount + capacity - 1) / capacity
    guard count <= NetLimits.slotCount else { throw .tooManySlots }
    return count + extras
  }

  /// Bytes of data that one page takes; 0 or less if the headroom leaves none.
  var slotCapacity: Int { pageByteCount - headroom }
}
