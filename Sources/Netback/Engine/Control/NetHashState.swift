public import RingKit

/// How a hash is made (netif.h, XEN_NETIF_CTRL_HASH_ALGORITHM_*).
@frozen
public enum NetHashAlgorithm: UInt32, Sendable, BitwiseCopyable {
  /// 0: none; the backend steers packets to queues as it likes.
  case none = 0
  /// 1: ``ToeplitzHash``.
  case toeplitz = 1
}

/// Sets of ``NetHashType`` (netif.h, XEN_NETIF_CTRL_HASH_TYPE_*).
@frozen
public struct NetHashTypes: OptionSet, Sendable, BitwiseCopyable {
  /// The bits on the wire.
  public let rawValue: UInt32
  /// Wraps the bits.
  @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }
  /// The set of one type.
  @inlinable public init(_ type: NetHashType) { rawValue = 1 << UInt32(type.rawValue) }
  /// All that exist: bits 0...3.
  @inlinable public static var all: NetHashTypes { NetHashTypes(rawValue: 15) }
}

/// Where a frame has what a hash is taken over.
@frozen
public struct NetHashFields: Equatable, Sendable, BitwiseCopyable {
  /// True for IPv6, false for IPv4.
  public var isIPv6: Bool
  /// First byte of the IP header within the frame.
  public var networkOffset: Int
  /// First byte of the TCP header; nil for other protocols, and for fragments, of which only the first has
  /// ports.
  public var tcpOffset: Int?

  /// Joins the fields.
  @inlinable
  public init(isIPv6: Bool, networkOffset: Int, tcpOffset: Int?) {
    self.isIPv6 = isIPv6
    self.networkOffset = networkOffset
    self.tcpOffset = tcpOffset
  }
}

/// What a frontend has set with its control ring about hashes and the queues they lead to (netif.h, control
/// messages 1 to 7).
///
/// A value: the control engine makes a new one for each change, and the queues' threads use it as it is.
public struct NetHashState: Sendable {
  /// Bytes of a key: as many as the longest input can meet, and as Linux takes
  /// (XEN_NETBK_MAX_HASH_KEY_SIZE).
  @inlinable public static var maximumKeyByteCount: Int { 40 }
  /// Entries of a mapping, as Linux takes (XEN_NETBK_MAX_HASH_MAPPING_SIZE).
  @inlinable public static var maximumMappingCount: Int { 128 }

  /// How hashes are made; none at first.
  public var algorithm = NetHashAlgorithm.none
  /// What they are taken over; nothing at first.
  public var types: NetHashTypes = []
  /// The key's ``maximumKeyByteCount`` bytes, those that were not told zero; all zero at first.
  public private(set) var key = [UInt8](repeating: 0, count: maximumKeyByteCount)
  /// The queue for each remainder of a hash; empty when the hash's remainder by the number of queues is the
  /// queue.
  public var mapping: [UInt16] = []
  @usableFromInline var toeplitz: ToeplitzHash

  /// Nothing set.
  public init() { toeplitz = ToeplitzHash(key: []) }

  /// Replaces the key by up to ``maximumKeyByteCount`` bytes; the others become zero.
  public mutating func setKey(_ bytes: [UInt8]) {
    precondition(bytes.count <= Self.maximumKeyByteCount)
    key = bytes + [UInt8](repeating: 0, count: Self.maximumKeyByteCount - bytes.count)
    toeplitz = ToeplitzHash(key: key)
  }

  /// True when packets are to be hashed.
  @inlinable public var isEnabled: Bool { algorithm != .none && !types.isEmpty }

  /// The frame's hash of the maximal type that is set and that the frame allows; nil when there is none.
  @inlinable
  public func hash(of frame: PrivateBytes, _ fields: NetHashFields) -> NetHash? {
    guard isEnabled else { return nil }
    // Whoever found the headers has checked this; a frame never decides whether we trap.
    let headerByteCount = fields.isIPv6 ? 40 : 20
    guard fields.networkOffset >= 0, fields.networkOffset <= frame.count - headerByteCount else { return nil }
    let addressByteCount = fields.isIPv6 ? 32 : 8
    let addresses = fields.networkOffset + (fields.isIPv6 ? 8 : 12)
    var value: UInt32 = 0
    if let ports = fields.tcpOffset, ports >= 0, ports <= frame.count - 4 {
      let type: NetHashType = fields.isIPv6 ? .ipv6TCP : .ipv4TCP
      if types.contains(NetHashTypes(type)) {
        toeplitz.add(addressByteCount, at: addresses, of: frame, position: 0, to: &value)
        toeplitz.add(4, at: ports, of: frame, position: addressByteCount, to: &value)
        return NetHash(type: type, algorithm: UInt8(algorithm.rawValue), value: value)
      }
    }
    let type: NetHashType = fields.isIPv6 ? .ipv6 : .ipv4
    guard types.contains(NetHashTypes(type)) else { return nil }
    toeplitz.add(addressByteCount, at: addresses, of: frame, position: 0, to: &value)
    return NetHash(type: type, algorithm: UInt8(algorithm.rawValue), value: value)
  }

  /// The queue, 0..<`queueCount`, that a packet belongs to. One without a hash counts as one with hash 0, as
  /// in Linux (interface.c, xenvif_select_queue).
  @inlinable
  public func queue(for hash: NetHash?, queueCount: Int) -> Int {
    let value = Int(hash?.value ?? 0)
    guard !mapping.isEmpty else { return value % queueCount }
    // The mapping was checked when it was set; the remainder holds even if there are fewer queues now.
    return Int(mapping[value % mapping.count]) % queueCount
  }
}
