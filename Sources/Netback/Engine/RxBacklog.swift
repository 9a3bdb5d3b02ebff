import RingKit

/// Packets that wait for slots, first come first, in a table of fixed size. What they hold of memory is
/// bounded, so that a guest which posts nothing costs no more than that (XSA-392).
public struct RxBacklog: ~Copyable, Sendable {
  /// Bytes that wait at most unless told otherwise: half of what a ring of pages can take, as in Linux's
  /// netback (XENVIF_RX_QUEUE_BYTES).
  public static var defaultByteLimit: Int { NetLimits.ringSlotCount / 2 * pageByteCount }

  private var packets: [NetPacket?]
  private var start = 0
  /// Packets that wait.
  public private(set) var count = 0
  /// Bytes of the buffers that they hold.
  public private(set) var byteCount = 0
  /// Bytes that they may hold.
  public let byteLimit: Int

  /// Makes room for `capacity` packets which hold `byteLimit` bytes of buffers at most.
  public init(capacity: Int, byteLimit: Int = RxBacklog.defaultByteLimit) {
    precondition(capacity > 0 && byteLimit >= 0)
    packets = [NetPacket?](repeating: nil, count: capacity)
    self.byteLimit = byteLimit
  }

  /// Packets that fit at most.
  public var capacity: Int { packets.count }

  /// The packet that waits longest.
  public var first: NetPacket? { count > 0 ? packets[start] : nil }

  /// Puts a packet at the end; false if there is no room for it, or it would hold too much.
  public mutating func append(_ packet: NetPacket) -> Bool {
    let held = Int(packet.buffer.segment.length)
    guard count < packets.count, held <= byteLimit - byteCount else { return false }
    packets[(start + count) % packets.count] = packet
    count += 1
    byteCount += held
    return true
  }

  /// Takes the packet that waits longest out.
  public mutating func removeFirst() -> NetPacket? {
    guard count > 0, let packet = packets[start] else { return nil }
    packets[start] = nil
    start = (start + 1) % packets.count
    count -= 1
    byteCount -= Int(packet.buffer.segment.length)
    return packet
  }
}
