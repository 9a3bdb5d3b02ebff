/// Why a packet of the guest was answered with an error and went nowhere.
@frozen
public enum NetTxError: Error, Equatable, Sendable, BitwiseCopyable {
  /// The packet, or what its first slot holds of it, is shorter than an Ethernet header of 14 bytes.
  case tooShort
  /// A later slot is larger than what is left of the packet: old frontends do so with packets of 64 KiB and
  /// more, whose size does not fit the field (Linux, xenvif_count_requests).
  case overlongSlot
  /// It has more data slots than are accepted.
  case tooManySlots
  /// A grant copy failed.
  case failedCopy
  /// Its headers and what was said of them do not agree.
  case refused(PacketRefusal)
}

/// What the transmit direction of a queue has done since it connected. Plain numbers, owned by the queue's
/// thread.
@frozen
public struct NetTxCounters: Equatable, Sendable, BitwiseCopyable {
  /// Packets handed on.
  public var packets: UInt64 = 0
  /// Their bytes.
  public var bytes: UInt64 = 0
  /// Those of the packets that are to be cut into segments.
  public var segmentedPackets: UInt64 = 0
  /// Those of the packets that went to another guest's pages from this one's.
  public var directPackets: UInt64 = 0
  /// Slots answered, those of extra infos among them.
  public var slots: UInt64 = 0
  /// Slots of extra infos answered.
  public var extraInfos: UInt64 = 0
  /// Slots answered ERROR.
  public var errors: UInt64 = 0
  /// Packets dropped as ``NetTxError/tooShort``.
  public var tooShort: UInt64 = 0
  /// Packets dropped for a ``NetTxError/overlongSlot``.
  public var overlongSlots: UInt64 = 0
  /// Packets dropped for ``NetTxError/tooManySlots``.
  public var tooManySlots: UInt64 = 0
  /// Packets dropped for a ``NetTxError/failedCopy``.
  public var failedCopies: UInt64 = 0
  /// Packets that were refused for their headers.
  public var refused: UInt64 = 0
  /// The first of them, and why, for whoever looks into it.
  public var firstRefusal: PacketRefusal?
  /// Requests to change the multicast filter that were granted.
  public var multicastChanges: UInt64 = 0
  /// Requests to change the multicast filter that were not, because it was full.
  public var multicastRefusals: UInt64 = 0
  /// Slots moved by grant copy.
  public var grantCopies: UInt64 = 0
  /// Slots moved out of staged pages.
  public var stagedCopies: UInt64 = 0
  /// Times that a packet had to wait for credit.
  public var creditWaits: UInt64 = 0
  /// Times that a packet had to wait for a buffer.
  public var bufferWaits: UInt64 = 0
  /// Events sent to the frontend.
  public var notifications: UInt64 = 0

  /// All zero.
  @inlinable public init() {}

  /// Packets that were answered with an error, whatever the reason.
  @inlinable public var drops: UInt64 { tooShort + overlongSlots + tooManySlots + failedCopies + refused }

  /// Counts a dropped packet.
  mutating func count(_ error: NetTxError) {
    switch error {
    case .tooShort: tooShort += 1
    case .overlongSlot: overlongSlots += 1
    case .tooManySlots: tooManySlots += 1
    case .failedCopy: failedCopies += 1
    case .refused(let reason):
      if firstRefusal == nil { firstRefusal = reason }
      refused += 1
    }
  }
}
