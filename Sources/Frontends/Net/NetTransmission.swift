public import Netback
import RingKit

/// What a frontend says of a packet beside its bytes.
public struct NetTransmission: Sendable {
  /// Flags of the first slot; those of framing are added.
  public var flags: NetTxFlags
  /// The extra info of segmentation.
  public var segmentation: NetExtraInfo?
  /// The packet's hash.
  public var hash: NetHash?
  /// Extra infos before those two, as they are but for their flag: for tests of a backend's checks. An empty
  /// array costs nothing.
  public var otherExtras: [NetExtraInfo]
  /// The caller's own name for the packet, given back with its completion.
  public var tag: UInt64

  /// Says this.
  @inlinable
  public init(
    flags: NetTxFlags = [], segmentation: NetExtraInfo? = nil, hash: NetHash? = nil,
    otherExtras: [NetExtraInfo] = [], tag: UInt64 = 0
  ) {
    self.flags = flags
    self.segmentation = segmentation
    self.hash = hash
    self.otherExtras = otherExtras
    self.tag = tag
  }

  /// Says what is to be done to the packet, as Linux's netfront does (xen-netfront.c, xennet_start_xmit).
  @inlinable
  public init(_ offload: PacketOffload, tag: UInt64 = 0) {
    self.init(hash: offload.hash, tag: tag)
    switch offload.checksum {
    case .unknown: break
    case .validated: flags = .dataValidated
    case .partial: flags = [.checksumBlank, .dataValidated]
    }
    if offload.segmentation != .none {
      segmentation = NetExtraInfo(segmentation: offload.segmentation, size: offload.segmentSize)
    }
  }

  /// Slots of extra infos.
  @inlinable
  var extraCount: Int { otherExtras.count + (segmentation == nil ? 0 : 1) + (hash == nil ? 0 : 1) }

  /// The extra info at `position`.
  @inlinable
  func extra(at position: Int) -> NetExtraInfo? {
    if position < otherExtras.count { return otherExtras[position] }
    if position == otherExtras.count, let segmentation { return segmentation }
    return hash.map(NetExtraInfo.init(hash:))
  }
}

/// A transmitted packet that the backend has answered in full.
@frozen
public struct NetTransmitCompletion: Equatable, Sendable, BitwiseCopyable {
  /// ``NetTransmission/tag``; nil for the answer to a raw slot.
  public let tag: UInt64?
  /// OKAY if each of its slots ended so, else the status of the last one that did not.
  public let status: NetStatus
  /// Slots it had, without those of extra infos.
  public let slotCount: Int
}

/// How a packet's bytes are cut into slots.
public struct NetSlotCut: Equatable, Sendable {
  /// One slot.
  public struct Piece: Equatable, Sendable {
    /// First byte within the page.
    public var offset: Int
    /// Bytes, 0...4096 less the offset.
    public var byteCount: Int

    /// Names a place in a page.
    public init(offset: Int, byteCount: Int) {
      precondition(offset >= 0 && byteCount >= 0 && offset + byteCount <= pageByteCount)
      self.offset = offset
      self.byteCount = byteCount
    }
  }

  /// The slots, in order.
  public var pieces: [Piece]

  /// These slots.
  public init(_ pieces: [Piece]) { self.pieces = pieces }

  /// As few slots as there can be, with the first one's data at `firstOffset`.
  public static func pages(byteCount: Int, firstOffset: Int = 0) -> NetSlotCut {
    var pieces: [Piece] = []
    var left = byteCount
    var offset = firstOffset
    repeat {
      let count = min(left, pageByteCount - offset)
      pieces.append(Piece(offset: offset, byteCount: count))
      left -= count
      offset = 0
    } while left > 0
    return NetSlotCut(pieces)
  }

  /// Any cut into at most `maximumSlots` slots, 16 or more, at any offsets: the first slot holds an Ethernet
  /// header (netif.h; net.md trap 8), and others may be empty where that is allowed.
  public static func random(
    byteCount: Int, maximumSlots: Int = NetLimits.slotCount, allowsEmpty: Bool = false,
    using generator: inout some RandomNumberGenerator
  ) -> NetSlotCut {
    let least = max(1, (byteCount + pageByteCount - 1) / pageByteCount)
    precondition(least <= maximumSlots)
    let most = allowsEmpty ? maximumSlots : max(least, min(maximumSlots, byteCount / 14))
    let count = Int.random(in: least...most, using: &generator)
    var left = byteCount
    let pieces = (0..<count).map { position in
      let after = count - position - 1
      let smallest = position == 0 ? min(NetLimits.ethernetHeaderByteCount, left) : allowsEmpty ? 0 : 1
      let low = min(left, max(smallest, left - after * pageByteCount))
      let high = max(low, min(pageByteCount, allowsEmpty ? left : left - after))
      let size = after == 0 ? left : Int.random(in: low...high, using: &generator)
      left -= size
      return Piece(offset: Int.random(in: 0...(pageByteCount - size), using: &generator), byteCount: size)
    }
    return NetSlotCut(pieces)
  }
}
