public import RingKit

/// A packet of a guest's whose first bytes are in private memory, checked and completed, while the rest is still
/// in its pages.
@frozen
public struct NetDirectPacket: BitwiseCopyable {
  /// The first bytes; all headers lie in them.
  public var leading: PrivateBytes
  /// Where the headers are.
  public var headers: PacketHeaders
  /// Bytes of the whole frame.
  public var byteCount: Int
  /// What is to be done to it.
  public var offload: PacketOffload
}

/// Slots that a receive ring has taken for a frame which somebody else copies there. It means something until
/// that ring is flushed.
@frozen
public struct RxReservation: BitwiseCopyable, Sendable, Equatable {
  /// The first data slot among those that are not flushed.
  let first: Int
  /// Extra infos between it and the next data slot.
  let extraCount: Int
  /// Data slots.
  public let dataSlotCount: Int
  /// Bytes of the frame.
  let byteCount: Int
  /// Bytes of the frame in each data slot but the last.
  let capacity: Int
}

/// The way of a packet from the pages of one guest to those of another.
@frozen
public struct NetDirectPath: BitwiseCopyable, Sendable, Equatable {
  /// The receiver, as the host names it.
  public var receiver: Int
  /// What it has reserved.
  public var slots: RxReservation

  /// Joins the two.
  public init(receiver: Int, slots: RxReservation) {
    self.receiver = receiver
    self.slots = slots
  }
}

/// Where a part of a packet goes.
@frozen
public struct NetDirectPlace: BitwiseCopyable, Sendable, Equatable {
  /// The first byte.
  public var destination: GrantCopyBatch.GrantedBytes
  /// Bytes.
  public var byteCount: Int
}

/// A copy of this turn's on its way past private memory.
struct NetDirectCopy: BitwiseCopyable {
  /// This turn's packet.
  var packet: UInt16
  /// The sender's slot; nil for what comes out of private memory.
  var slot: UInt16?
  /// The data slot of the path.
  var place: UInt16
  /// Where in the packet it begins.
  var offset: UInt16
  var byteCount: UInt16
}
