import Netback
import RingKit
import Testing

/// Hashes of frames, by the vectors of Microsoft's "Verifying the RSS hash calculation".
struct HashToeplitzTests {
  static let key: [UInt8] = [
    0x6D, 0x5A, 0x56, 0xDA, 0x25, 0x5B, 0x0E, 0xC2, 0x41, 0x67, 0x25, 0x3D, 0x43, 0xA3, 0x8F, 0xB0,
    0xD0, 0xCA, 0x2B, 0xCB, 0xAE, 0x7B, 0x30, 0xB4, 0x77, 0xCB, 0x2D, 0xA3, 0x80, 0x30, 0xF2, 0x0C,
    0x6A, 0x42, 0xB7, 0x3B, 0xBE, 0xAC, 0x01, 0xFA,
  ]

  struct Vector: Sendable {
    var source: [UInt16]
    var sourcePort: UInt16
    var destination: [UInt16]
    var destinationPort: UInt16
    var addresses: UInt32
    var tcp: UInt32
    var isIPv6: Bool { source.count == 8 }
  }

  static func ipv4(_ a: UInt16, _ b: UInt16, _ c: UInt16, _ d: UInt16) -> [UInt16] {
    [a << 8 | b, c << 8 | d]
  }

  static let vectors = [
    Vector(
      source: ipv4(66, 9, 149, 187), sourcePort: 2794, destination: ipv4(161, 142, 100, 80),
      destinationPort: 1766, addresses: 0x323E_8FC2, tcp: 0x51CC_C178),
    Vector(
      source: ipv4(199, 92, 111, 2), sourcePort: 14230, destination: ipv4(65, 69, 140, 83),
      destinationPort: 4739, addresses: 0xD718_262A, tcp: 0xC626_B0EA),
    Vector(
      source: ipv4(24, 19, 198, 95), sourcePort: 12898, destination: ipv4(12, 22, 207, 184),
      destinationPort: 38024, addresses: 0xD2D0_A5DE, tcp: 0x5C2B_394A),
    Vector(
      source: ipv4(38, 27, 205, 30), sourcePort: 48228, destination: ipv4(209, 142, 163, 6),
      destinationPort: 2217, addresses: 0x8298_9176, tcp: 0xAFC7_327F),
    Vector(
      source: ipv4(153, 39, 163, 191), sourcePort: 44251, destination: ipv4(202, 188, 127, 2),
      destinationPort: 1303, addresses: 0x5D18_09C5, tcp: 0x10E8_28A2),
    Vector(
      source: [0x3FFE, 0x2501, 0x200, 0x1FFF, 0, 0, 0, 7], sourcePort: 2794,
      destination: [0x3FFE, 0x2501, 0x200, 3, 0, 0, 0, 1], destinationPort: 1766,
      addresses: 0x2CC1_8CD5, tcp: 0x4020_7D3D),
    Vector(
      source: [0x3FFE, 0x501, 8, 0, 0x260, 0x97FF, 0xFE40, 0xEFAB], sourcePort: 14230,
      destination: [0xFF02, 0, 0, 0, 0, 0, 0, 1], destinationPort: 4739,
      addresses: 0x0F0C_461C, tcp: 0xDDE5_1BBF),
    Vector(
      source: [0x3FFE, 0x1900, 0x4545, 3, 0x200, 0xF8FF, 0xFE21, 0x67CF], sourcePort: 44251,
      destination: [0xFE80, 0, 0, 0, 0x200, 0xF8FF, 0xFE21, 0x67CF], destinationPort: 38024,
      addresses: 0x4B61_E985, tcp: 0x02D1_FEEF),
  ]

  let pool: BufferPool
  let frame: PrivateBytes

  init() throws {
    pool = try BufferPool(byteCount: pageByteCount)
    frame = pool.bytes(of: try #require(pool.allocate(byteCount: pageByteCount)))
  }

  /// Writes addresses and ports into a frame whose IP header begins at 14 and is followed by `options` bytes.
  func place(_ vector: Vector, options: Int = 0) -> NetHashFields {
    for offset in 0..<frame.count { frame[offset] = 0xA5 }
    let addresses = 14 + (vector.isIPv6 ? 8 : 12)
    for (index, word) in (vector.source + vector.destination).enumerated() {
      frame.setUInt16(word, at: addresses + index * 2)
    }
    let tcp = 14 + (vector.isIPv6 ? 40 : 20) + options
    frame.setUInt16(vector.sourcePort, at: tcp)
    frame.setUInt16(vector.destinationPort, at: tcp + 2)
    return NetHashFields(isIPv6: vector.isIPv6, networkOffset: 14, tcpOffset: tcp)
  }

  func state(_ types: NetHashTypes) -> NetHashState {
    var state = NetHashState()
    state.algorithm = .toeplitz
    state.types = types
    state.setKey(Self.key)
    return state
  }

  @Test(arguments: vectors)
  func hashesAreThoseOfTheVerificationSuite(_ vector: Vector) {
    for options in [0, 4, 40] {
      let fields = place(vector, options: options)
      var hash = state(.all).hash(of: frame, fields)
      #expect(hash?.value == vector.tcp && hash?.type == (vector.isIPv6 ? .ipv6TCP : .ipv4TCP))
      #expect(hash?.algorithm == 1)
      var plain = fields
      plain.tcpOffset = nil
      hash = state(.all).hash(of: frame, plain)
      #expect(hash?.value == vector.addresses && hash?.type == (vector.isIPv6 ? .ipv6 : .ipv4))
    }
  }

  /// The maximal type that is set, and no other.
  @Test(arguments: vectors)
  func onlyTypesThatAreSetAreUsed(_ vector: Vector) {
    let fields = place(vector)
    var plain = fields
    plain.tcpOffset = nil
    let (wide, narrow): (NetHashType, NetHashType) = vector.isIPv6 ? (.ipv6TCP, .ipv6) : (.ipv4TCP, .ipv4)
    for bits: UInt32 in 0..<16 {
      let state = state(NetHashTypes(rawValue: bits))
      let takesWide = state.types.contains(NetHashTypes(wide))
      let takesNarrow = state.types.contains(NetHashTypes(narrow))
      #expect(
        state.hash(of: frame, fields)?.value
          == (takesWide ? vector.tcp : takesNarrow ? vector.addresses : nil))
      #expect(state.hash(of: frame, plain)?.value == (takesNarrow ? vector.addresses : nil))
    }
    var off = state(.all)
    off.algorithm = .none
    #expect(off.hash(of: frame, fields) == nil)
  }

  /// An empty key hashes everything to zero (netif.h).
  @Test func aClearedKeyHashesToZero() {
    var state = state(.all)
    state.setKey([])
    for vector in Self.vectors { #expect(state.hash(of: frame, place(vector))?.value == 0) }
  }

  /// Offsets that lead out of the frame give no hash; nothing in a frame may trap.
  @Test func offsetsOutsideTheFrameGiveNoHash() {
    let state = state(.all)
    for isIPv6 in [false, true] {
      for network in [-1, 0, 14, 4050, 4064, 4076, 4084, 4095, 4096, Int.max - 100] {
        for tcp in [nil, -1, 0, 34, 4092, 4093, Int.max] as [Int?] {
          let fields = NetHashFields(isIPv6: isIPv6, networkOffset: network, tcpOffset: tcp)
          let fits = network >= 0 && network <= 4096 - (isIPv6 ? 40 : 20)
          let hash = state.hash(of: frame, fields)
          #expect((hash != nil) == fits)
          if let tcp, fits, tcp < 0 || tcp > 4092 { #expect(hash?.type == (isIPv6 ? .ipv6 : .ipv4)) }
        }
      }
    }
  }

  @Test func queuesFollowTheMapping() {
    var state = state(.all)
    let hash = NetHash(type: .ipv4, algorithm: 1, value: 0x8000_0003)
    #expect(state.queue(for: hash, queueCount: 1) == 0)
    #expect(state.queue(for: hash, queueCount: 4) == 3)
    #expect(state.queue(for: hash, queueCount: 5) == Int(0x8000_0003 % 5))
    state.mapping = [7, 6, 5]
    #expect(state.queue(for: hash, queueCount: 8) == [7, 6, 5][0x8000_0003 % 3])
    #expect(state.queue(for: nil, queueCount: 8) == 7)
    #expect(state.queue(for: nil, queueCount: 2) == 1)
  }
}
