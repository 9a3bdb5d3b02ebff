public import RingKit

/// What an end takes beside plain frames of one slot, or leaves to the other one (netif.h, feature-*).
@frozen
public struct NetOffloads: OptionSet, Sendable, BitwiseCopyable {
  /// The bits; private to the program.
  public let rawValue: UInt8
  /// Wraps the bits.
  @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }
  /// Blank checksums of TCP and UDP over IPv4: unless feature-no-csum-offload is set.
  @inlinable public static var checksumIPv4: NetOffloads { NetOffloads(rawValue: 1) }
  /// Blank checksums of TCP and UDP over IPv6: feature-ipv6-csum-offload.
  @inlinable public static var checksumIPv6: NetOffloads { NetOffloads(rawValue: 2) }
  /// Packets of several slots: feature-sg.
  @inlinable public static var scatterGather: NetOffloads { NetOffloads(rawValue: 4) }
  /// TCP over IPv4 to be segmented: feature-gso-tcpv4.
  @inlinable public static var segmentationIPv4: NetOffloads { NetOffloads(rawValue: 8) }
  /// TCP over IPv6 to be segmented: feature-gso-tcpv6.
  @inlinable public static var segmentationIPv6: NetOffloads { NetOffloads(rawValue: 16) }
}

/// What is still to be done to a packet, and what is known of it: the common ground of netif's flags and
/// extra infos and of the virtio-net header of a TAP (net.md 3.5).
@frozen
public struct PacketOffload: Equatable, Sendable, BitwiseCopyable {
  /// How far the checksum of TCP or UDP is.
  @frozen
  public enum Checksum: UInt8, Sendable, BitwiseCopyable {
    /// It stands in the packet, and nobody has checked it.
    case unknown
    /// It has been checked, or comes from this machine.
    case validated
    /// Its field holds the sum of the pseudo header; the rest is to be added.
    case partial
  }

  /// How far the checksum is.
  public var checksum = Checksum.unknown
  /// Partial: the first byte that is summed, counted from the frame's first byte.
  public var checksumStart: UInt16 = 0
  /// Partial: the checksum's field, counted from ``checksumStart``.
  public var checksumOffset: UInt16 = 0
  /// What the packet is to be cut into, if at all; its checksum is partial then.
  public var segmentation = NetSegmentationType.none
  /// Bytes of TCP payload in each segment; 1 or more in a packet to be cut.
  public var segmentSize: UInt16 = 0
  /// Bytes of the headers of Ethernet, IP and TCP or UDP, where they were parsed; else 0.
  public var headerByteCount: UInt16 = 0
  /// The hash that the sender's end has told.
  public var hash: NetHash?

  /// Nothing to be done, nothing known.
  @inlinable public init() {}
}

/// A frame in a buffer of ours. Whoever has the packet holds the buffer.
@frozen
public struct NetPacket: Equatable, Sendable, BitwiseCopyable {
  /// Bytes before a frame in its buffer, at least: room for the header of a link.
  @inlinable public static var headroomByteCount: Int { 16 }

  /// The memory.
  public var buffer: IOBuffer
  /// The frame's first byte within the buffer, ``headroomByteCount`` or more.
  public var start: Int
  /// Bytes of the frame, 14...65535.
  public var byteCount: Int
  /// What is to be done to it.
  public var offload: PacketOffload

  /// Joins the parts.
  @inlinable
  public init(buffer: IOBuffer, start: Int, byteCount: Int, offload: PacketOffload = PacketOffload()) {
    self.buffer = buffer
    self.start = start
    self.byteCount = byteCount
    self.offload = offload
  }

  /// Bytes of a buffer in which a frame of `byteCount` bytes can begin at any offset of its second page, with
  /// the headroom in the first one: what is copied page by page then stays within pages of ours too.
  @inlinable
  public static func bufferByteCount(frame byteCount: Int) -> Int { pageByteCount + byteCount }
}
