import CUring
import Glibc
import RingKit
import Testing

/// Why the tests of TAPs cannot run here; nil when they can.
let tapObstacle: String? = {
  if geteuid() != 0 { return "TAPs need root (CAP_NET_ADMIN), or `unshare -rn`" }
  if unsafe access("/dev/net/tun", R_OK | W_OK) != 0 { return "this machine has no /dev/net/tun" }
  do { _ = try NetworkNamespace() } catch { return "no network namespace can be made: \(error)" }
  return NetworkNamespace.path(of: "ip") == nil ? "Debian's package iproute2 is missing" : nil
}()

/// Runs a test where no interface of the machine can be touched; on the test's own thread, so that what fails
/// inside is this test's failure.
func inNetwork(_ body: (NetworkNamespace) throws -> Void) throws {
  let network = try NetworkNamespace()
  try network.inside { try body(network) }
}

/// Waits, ten seconds at most, for what a closed queue leads to. A program that another test is starting holds
/// all descriptors until it has begun, so that it may take a moment.
func onceClosed(_ isTrue: () throws -> Bool) throws -> Bool {
  var poll = DescriptorPoll()
  for _ in 0..<2000 {
    if try isTrue() { return true }
    _ = try poll.wait(timeoutMilliseconds: 5)
  }
  return false
}

/// The error of a call that must fail.
func failure(_ body: () throws -> Void) -> LinkError.Reason? {
  do { try body() } catch { return (error as? LinkError)?.reason }
  return nil
}

extension TapDevice {
  /// A TAP that is up, with carrier, and on which the kernel says nothing of its own accord.
  static func running(_ name: String, in network: NetworkNamespace) throws -> TapDevice {
    let device = try TapDevice(creating: name)
    try network.ip("link set dev \(name) addrgenmode none")
    // In this order the kernel has its queues ready when the call returns, not a little later.
    try device.setCarrier(true)
    try device.setUp(true)
    return device
  }
}

/// The other side of an interface: what it sends, we read from the TAP; what we write, it receives. Each frame
/// has a virtio-net header of 10 bytes before it (packet(7), PACKET_VNET_HDR).
@safe
final class PacketSocket {
  let descriptor: Int32
  private let index: Int32

  init(index: Int32, etherType: UInt16 = 0x0003) throws {
    self.index = index
    descriptor = socket(AF_PACKET, Int32(SOCK_RAW.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    try #require(descriptor >= 0)
    var on: Int32 = 1
    try #require(unsafe setsockopt(descriptor, 263, 15, &on, 4) == 0)
    var limit = timeval(tv_sec: 10, tv_usec: 0)
    try #require(
      unsafe setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        == 0)
    let bound = unsafe withAddress(etherType) { unsafe bind(descriptor, $0, 20) }
    try #require(bound == 0)
  }

  deinit { close(descriptor) }

  /// `struct sockaddr_ll`, 20 bytes.
  private func withAddress(_ etherType: UInt16, _ body: (UnsafePointer<sockaddr>) -> Int32) -> Int32 {
    var words: (UInt16, UInt16, Int32, UInt64, UInt32) = (UInt16(AF_PACKET), etherType.bigEndian, index, 0, 0)
    return unsafe withUnsafePointer(to: &words) { pointer in
      unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { unsafe body($0) }
    }
  }

  func send(_ bytes: [UInt8]) throws {
    let count = unsafe bytes.withUnsafeBytes { unsafe Glibc.send(descriptor, $0.baseAddress, $0.count, 0) }
    try #require(count == bytes.count, "send: \(errno)")
  }

  func receive() throws -> [UInt8] {
    var count = 0
    let bytes = unsafe [UInt8](unsafeUninitializedCapacity: 70_000) { buffer, initialized in
      count = unsafe recv(descriptor, buffer.baseAddress, buffer.count, 0)
      initialized = max(0, count)
    }
    try #require(count >= 0, "recv: \(errno)")
    return bytes
  }
}

/// A frame of an experimental protocol that nobody answers, with a number in it.
func numberedFrame(_ number: UInt8, byteCount: Int = 60) -> [UInt8] {
  var frame: [UInt8] = [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 2, 0, 0, 0, 0, 1, 0x88, 0xB5]
  frame += (14..<byteCount).map { UInt8(truncatingIfNeeded: $0) &* 3 &+ number }
  return frame
}

/// Ethernet, IPv4 and TCP headers before `payloadByteCount` bytes, with the pseudo header's sum in place.
func tcpFrame(payloadByteCount: Int) -> [UInt8] {
  func sum(_ bytes: [UInt8], _ start: UInt32 = 0) -> UInt16 {
    var total = start
    for index in stride(from: 0, to: bytes.count, by: 2) {
      total += UInt32(bytes[index]) << 8 | UInt32(index + 1 < bytes.count ? bytes[index + 1] : 0)
    }
    while total > 0xFFFF { total = total & 0xFFFF + total >> 16 }
    return UInt16(total)
  }
  let length = 40 + payloadByteCount
  var ip: [UInt8] = [
    0x45, 0, UInt8(length >> 8), UInt8(length & 0xFF), 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
  ]
  let check = ~sum(ip)
  ip[10] = UInt8(check >> 8)
  ip[11] = UInt8(check & 0xFF)
  let tcpLength = UInt32(20 + payloadByteCount)
  let pseudo = sum(Array(ip[12..<20]), 6 + tcpLength)
  var tcp: [UInt8] = [0x30, 0x39, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0x20, 0, 0, 0, 0, 0]
  tcp[16] = UInt8(pseudo >> 8)
  tcp[17] = UInt8(pseudo & 0xFF)
  return [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 2, 0, 0, 0, 0, 1, 8, 0] + ip + tcp
    + (0..<payloadByteCount).map { UInt8(truncatingIfNeeded: $0 &* 7) }
}

/// A virtio-net header for ``tcpFrame(payloadByteCount:)`` that is to be cut into segments of 1000 bytes.
let segmentationHeader: [UInt8] = [1, 1, 54, 0, 0xE8, 3, 34, 0, 16, 0]
