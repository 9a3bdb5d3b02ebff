import Netback
import RingKit
import Testing

/// A frame in parts, to be put together byte by byte as the protocols' own documents draw them.
struct TestFrame {
  enum Network: CaseIterable { case ipv4, ipv6 }
  enum Transport: Equatable { case tcp, udp, other(UInt8) }

  var tags: [UInt16] = []
  var network = Network.ipv4
  /// IPv4: options, a multiple of 4 bytes.
  var options: [UInt8] = []
  /// IPv6: extension headers, each without its first byte.
  var extensions: [(type: UInt8, rest: [UInt8])] = []
  var flagsAndOffset: UInt16 = 0x4000
  var transport = Transport.tcp
  var transportOptions: [UInt8] = []
  var transportFlags: UInt8 = 0x18
  var sequence: UInt32 = 0xFFFF_FF00
  var payload: [UInt8] = []
  var padding: [UInt8] = []
  /// What stands in the field of TCP's or UDP's checksum.
  var checksum: UInt16 = 0xBEEF
  var destination: [UInt8] = [2, 0, 0, 0, 0, 2]

  static func payload(_ count: Int) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ $0 >> 8) }
  }

  var networkStart: Int { 14 + 4 * tags.count }
  var transportStart: Int {
    networkStart
      + (network == .ipv4 ? 20 + options.count : 40 + extensions.reduce(0) { $0 + 1 + $1.rest.count })
  }
  var headerByteCount: Int {
    switch transport {
    case .tcp: transportStart + 20 + transportOptions.count
    case .udp: transportStart + 8
    case .other: transportStart
    }
  }
  var protocolNumber: UInt8 {
    switch transport {
    case .tcp: 6
    case .udp: 17
    case .other(let number): number
    }
  }
  var segmentationType: NetSegmentationType { network == .ipv4 ? .tcpIPv4 : .tcpIPv6 }
  var checksumOffset: Int { transport == .tcp ? 16 : 6 }

  var bytes: [UInt8] {
    var bytes = destination + [2, 0, 0, 0, 0, 7]
    for (index, tag) in tags.enumerated() { bytes += tag.wire + UInt16(5 + index).wire }
    bytes += (network == .ipv4 ? UInt16(0x0800) : 0x86DD).wire
    let segment = segmentBytes
    switch network {
    case .ipv4:
      var header: [UInt8] = [UInt8(0x45 + options.count / 4), 0]
      header += UInt16(20 + options.count + segment.count).wire + UInt16(0xFFFE).wire + flagsAndOffset.wire
      header += [64, protocolNumber, 0, 0, 192, 168, 77, 7, 192, 168, 77, 1] + options
      header.replaceSubrange(10..<12, with: (~naiveSum(header)).wire)
      bytes += header
    case .ipv6:
      var next = protocolNumber
      var chain: [UInt8] = []
      for (type, rest) in extensions.reversed() {
        chain = [next] + rest + chain
        next = type
      }
      bytes += [0x60, 0, 0, 0] + UInt16(chain.count + segment.count).wire + [next, 64]
      bytes += [0xFD, 0x77] + [UInt8](repeating: 0, count: 13) + [7]
      bytes += [0xFD, 0x77] + [UInt8](repeating: 0, count: 13) + [1] + chain
    }
    return bytes + segment + padding
  }

  private var segmentBytes: [UInt8] {
    switch transport {
    case .tcp:
      UInt16(40000).wire + UInt16(5001).wire + UInt16(sequence >> 16).wire
        + UInt16(truncatingIfNeeded: sequence).wire + [1, 2, 3, 4]
        + [UInt8(5 + transportOptions.count / 4) << 4, transportFlags, 0x20, 0] + checksum.wire + [0, 0]
        + transportOptions + payload
    case .udp:
      UInt16(40000).wire + UInt16(5001).wire + UInt16(8 + payload.count).wire + checksum.wire + payload
    case .other: payload
    }
  }
}

extension UInt16 {
  var wire: [UInt8] { [UInt8(self >> 8), UInt8(truncatingIfNeeded: self)] }
}

/// RFC 1071's sum, one number at a time.
func naiveSum(_ bytes: some Sequence<UInt8>) -> UInt16 {
  var sum: UInt32 = 0
  for (index, byte) in bytes.enumerated() {
    sum += UInt32(byte) << (index % 2 == 0 ? 8 : 0)
    if sum > 0xFFFF { sum -= 0xFFFF }
  }
  return UInt16(sum)
}

/// The sum of pseudo header and segment, as a receiver makes it: 0xFFFF when the checksum is right.
func naiveTransportSum(_ frame: [UInt8], _ headers: PacketHeaders) -> UInt16 {
  let segment = Array(frame[headers.transportStart..<headers.packetEnd])
  let addresses = Array(frame[headers.addressesStart..<headers.addressesStart + headers.addressesByteCount])
  let pseudo = [0, headers.protocolNumber] + UInt16(segment.count).wire
  return naiveSum(addresses + pseudo + segment)
}

/// Frames in buffers of ours, each exactly as long as its bytes.
final class FrameMemory {
  let pool: BufferPool
  private let frames: [PrivateBytes]

  init() throws {
    pool = try BufferPool(byteCount: 1 << 19)
    let pool = pool
    frames = try (0..<2).map { _ in pool.bytes(of: try #require(pool.allocate(byteCount: 1 << 17))) }
  }

  /// The bytes, before which 16 more may be written at `room`.
  func load(_ bytes: [UInt8]) -> PrivateBytes {
    let frame = frames[0].slice(from: 16, count: bytes.count)
    var at = 0
    for byte in bytes {
      frame[at] = byte
      at += 1
    }
    return frame
  }

  /// `count` bytes of other memory, zeroed; or, with what stands there, the first `kept` of them.
  func room(_ count: Int, keeping kept: Int = 0) -> PrivateBytes {
    frames[1].zero(from: 0, count: count)
    return frames[1].slice(from: 0, count: max(count, kept))
  }
}

extension PrivateBytes {
  var array: [UInt8] { (0..<count).map { self[$0] } }
}

/// Frames of every shape that the parser knows.
enum FrameShapes {
  static let hopByHop: (type: UInt8, rest: [UInt8]) = (0, [0, 1, 4, 0, 0, 0, 0])
  static let destinationOptions: (type: UInt8, rest: [UInt8]) = (
    60, [1, 1, 12] + [UInt8](repeating: 0, count: 12)
  )
  static let usedUpRouting: (type: UInt8, rest: [UInt8]) = (43, [2, 4, 0] + [UInt8](repeating: 9, count: 20))
  static let atomicFragment: (type: UInt8, rest: [UInt8]) = (44, [0, 0, 0, 1, 2, 3, 4])
  static let authentication: (type: UInt8, rest: [UInt8]) = (51, [4] + [UInt8](repeating: 3, count: 22))

  static let timestamps: [UInt8] = [1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8]

  static func all(payload: Int) -> [TestFrame] {
    var frames: [TestFrame] = []
    for network in TestFrame.Network.allCases {
      for transport in [TestFrame.Transport.tcp, .udp] {
        for tags in [[], [0x8100], [0x88A8, 0x8100]] as [[UInt16]] {
          var frame = TestFrame(tags: tags, network: network, transport: transport)
          frame.payload = TestFrame.payload(payload)
          frames.append(frame)
          if transport == .tcp { frame.transportOptions = timestamps }
          if network == .ipv4 {
            frame.options = [148, 4, 0, 0]
          } else {
            frame.extensions = [hopByHop, destinationOptions, usedUpRouting]
          }
          frames.append(frame)
        }
      }
    }
    return frames
  }
}
