import Glibc

/// Bytes that tell their place, counted from `first`.
func testBytes(from first: Int, count: Int) -> [UInt8] {
  (first..<first + count).map { UInt8(truncatingIfNeeded: ($0 &* 0x9E37_79B1) >> 13) }
}

/// A TCP socket of the namespace that it was made in, for bytes that tell their place.
final class StreamSocket: Sendable {
  private let descriptor: Int32

  private init(descriptor: Int32) { self.descriptor = descriptor }

  deinit { close(descriptor) }

  init(listeningAt address: String) throws {
    descriptor = try SocketCalls.make(address, SOCK_STREAM)
    try unsafe SocketCalls.withAddress(address, port: 0) {
      try SocketCalls.check("bind", unsafe bind(descriptor, $0, $1))
    }
    try SocketCalls.check("listen", listen(descriptor, 1))
  }

  init(connectingTo address: String, port: UInt16) throws {
    descriptor = try SocketCalls.make(address, SOCK_STREAM)
    try unsafe SocketCalls.withAddress(address, port: port) {
      try SocketCalls.check("connect", unsafe connect(descriptor, $0, $1))
    }
  }

  var port: UInt16 { SocketCalls.port(of: descriptor) }

  func accept() throws -> StreamSocket {
    let accepted = Glibc.accept(descriptor, nil, nil)
    try SocketCalls.check("accept", accepted)
    return StreamSocket(descriptor: accepted)
  }

  func send(_ byteCount: Int) {
    var sent = 0
    while sent < byteCount {
      let chunk = testBytes(from: sent, count: min(65536, byteCount - sent))
      var offset = 0
      while offset < chunk.count {
        let count = unsafe chunk.withUnsafeBytes {
          unsafe Glibc.send(
            descriptor, $0.baseAddress.map { unsafe $0 + offset }, chunk.count - offset, Int32(MSG_NOSIGNAL))
        }
        guard count > 0 else { return }
        offset += count
      }
      sent += chunk.count
    }
    shutdown(descriptor, Int32(SHUT_WR))
  }

  func shutDown() { shutdown(descriptor, Int32(SHUT_RDWR)) }

  /// Bytes that came until the sender ended, up to the first wrong one.
  func receive() -> Int {
    var received = 0
    var buffer = [UInt8](repeating: 0, count: 65536)
    while true {
      let count = unsafe buffer.withUnsafeMutableBytes {
        unsafe recv(descriptor, $0.baseAddress, $0.count, 0)
      }
      guard count > 0 else { return received }
      guard Array(buffer[0..<count]) == testBytes(from: received, count: count) else { return received }
      received += count
    }
  }
}

/// A UDP socket of the namespace that it was made in.
final class DatagramSocket {
  private let descriptor: Int32

  /// Bound to an address, or to none for one that only sends in the family of `like`.
  init(boundTo address: String?, like: String = "") throws {
    descriptor = try SocketCalls.make(address ?? like, SOCK_DGRAM)
    guard let address else { return }
    try unsafe SocketCalls.withAddress(address, port: 0) {
      try SocketCalls.check("bind", unsafe bind(descriptor, $0, $1))
    }
  }

  deinit { close(descriptor) }

  var port: UInt16 { SocketCalls.port(of: descriptor) }

  func send(_ bytes: [UInt8], to address: String, port: UInt16) throws {
    try unsafe SocketCalls.withAddress(address, port: port) { pointer, length in
      let sent = unsafe sendto(descriptor, bytes, bytes.count, 0, pointer, length)
      try SocketCalls.check("sendto", Int32(sent))
    }
  }

  func receive() throws -> [UInt8] {
    var buffer = [UInt8](repeating: 0, count: 65536)
    let count = unsafe buffer.withUnsafeMutableBytes { unsafe recv(descriptor, $0.baseAddress, $0.count, 0) }
    try SocketCalls.check("recv", Int32(count))
    return Array(buffer[..<count])
  }

  /// Joins a group of IPv4 at the interface with `address`.
  func join(_ group: String, at address: String) throws {
    var request = ip_mreq()
    unsafe inet_pton(AF_INET, group, &request.imr_multiaddr)
    unsafe inet_pton(AF_INET, address, &request.imr_interface)
    try SocketCalls.set(descriptor, Int32(IPPROTO_IP), IP_ADD_MEMBERSHIP, &request)
  }

  /// Sends to groups of IPv4 through the interface with `address`.
  func sendGroups(from address: String) throws {
    var interface = in_addr()
    unsafe inet_pton(AF_INET, address, &interface)
    try SocketCalls.set(descriptor, Int32(IPPROTO_IP), IP_MULTICAST_IF, &interface)
  }
}

/// Ethernet frames with a tag, of one interface (packet(7)).
final class FrameSocket {
  /// Local experimental (IEEE 802).
  private static let etherType: UInt16 = 0x88B5
  private static let everyProtocol: UInt16 = 3
  private let descriptor: Int32

  init(of interface: String) throws {
    descriptor = socket(AF_PACKET, Int32(SOCK_RAW.rawValue), Int32(Self.everyProtocol.bigEndian))
    try SocketCalls.check("socket", descriptor)
    try SocketCalls.limitWaiting(descriptor)
    // struct sockaddr_ll: family, protocol, index, and what only received frames have.
    var address = [UInt8](repeating: 0, count: 20)
    unsafe address.withUnsafeMutableBytes {
      unsafe $0.storeBytes(of: UInt16(AF_PACKET), as: UInt16.self)
      unsafe $0.storeBytes(of: Self.everyProtocol.bigEndian, toByteOffset: 2, as: UInt16.self)
      unsafe $0.storeBytes(of: Int32(if_nametoindex(interface)), toByteOffset: 4, as: Int32.self)
    }
    try unsafe address.withUnsafeBytes {
      let pointer = unsafe $0.baseAddress?.assumingMemoryBound(to: sockaddr.self)
      try SocketCalls.check("bind", unsafe bind(descriptor, pointer, socklen_t($0.count)))
    }
    // PACKET_AUXDATA: the kernel takes the tag out of what is received, and tells it beside.
    var yes: Int32 = 1
    try SocketCalls.set(descriptor, 263, 8, &yes)
  }

  deinit { close(descriptor) }

  func send(tag: UInt16, _ payload: [UInt8]) throws {
    var frame = [UInt8](repeating: 0xFF, count: 6) + [2, 0, 0, 0, 0, 9]
    for word in [0x8100, tag, Self.etherType] { frame += [UInt8(word >> 8), UInt8(word & 0xFF)] }
    frame += payload
    try SocketCalls.check("send", Int32(unsafe Glibc.send(descriptor, frame, frame.count, 0)))
  }

  /// The next frame of ours.
  func receive() throws -> (tag: UInt16, payload: [UInt8]) {
    while true {
      var frame = [UInt8](repeating: 0, count: 2048)
      var control = [UInt8](repeating: 0, count: 64)
      let count = unsafe frame.withUnsafeMutableBytes { data in
        unsafe control.withUnsafeMutableBytes { words in
          var part = unsafe iovec(iov_base: data.baseAddress, iov_len: data.count)
          return unsafe withUnsafeMutablePointer(to: &part) { parts in
            var message = unsafe msghdr()
            unsafe message.msg_iov = parts
            unsafe message.msg_iovlen = 1
            unsafe message.msg_control = words.baseAddress
            unsafe message.msg_controllen = words.count
            return unsafe recvmsg(descriptor, &message, 0)
          }
        }
      }
      try SocketCalls.check("recvmsg", Int32(count))
      guard count >= 14, frame[12] == 0x88, frame[13] == 0xB5 else { continue }
      // struct cmsghdr, then tp_vlan_tci of struct tpacket_auxdata.
      return (UInt16(control[32]) | UInt16(control[33]) << 8, Array(frame[14..<count]))
    }
  }
}

/// What all of them do.
enum SocketCalls {
  struct Failure: Error { var call: String, errno: Int32 }

  static func make(_ address: String, _ type: __socket_type) throws -> Int32 {
    let made = socket(
      address.contains(":") ? AF_INET6 : AF_INET, Int32(type.rawValue) | Int32(SOCK_CLOEXEC.rawValue),
      0)
    try check("socket", made)
    try limitWaiting(made)
    return made
  }

  static func check(_ call: String, _ result: Int32) throws {
    if result < 0 { throw Failure(call: call, errno: errno) }
  }

  static func withAddress(
    _ text: String, port: UInt16, _ body: (UnsafePointer<sockaddr>, socklen_t) throws -> Void
  ) throws {
    if text.contains(":") {
      var address = sockaddr_in6()
      address.sin6_family = sa_family_t(AF_INET6)
      address.sin6_port = port.bigEndian
      unsafe inet_pton(AF_INET6, text, &address.sin6_addr)
      try unsafe withUnsafePointer(to: &address) { pointer in
        try unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
          try unsafe body($0, socklen_t(MemoryLayout<sockaddr_in6>.size))
        }
      }
    } else {
      var address = sockaddr_in()
      address.sin_family = sa_family_t(AF_INET)
      address.sin_port = port.bigEndian
      unsafe inet_pton(AF_INET, text, &address.sin_addr)
      try unsafe withUnsafePointer(to: &address) { pointer in
        try unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
          try unsafe body($0, socklen_t(MemoryLayout<sockaddr_in>.size))
        }
      }
    }
  }

  static func port(of descriptor: Int32) -> UInt16 {
    var storage = sockaddr_in6()
    var length = socklen_t(MemoryLayout<sockaddr_in6>.size)
    return unsafe withUnsafeMutablePointer(to: &storage) { pointer in
      unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        _ = unsafe getsockname(descriptor, $0, &length)
      }
      // The port is at the same place in both families.
      return unsafe UInt16(bigEndian: pointer.pointee.sin6_port)
    }
  }

  /// A peer that vanished says nothing: what waits for it fails after this long.
  static func limitWaiting(_ descriptor: Int32) throws {
    for option in [SO_RCVTIMEO, SO_SNDTIMEO] {
      var limit = timeval(tv_sec: 30, tv_usec: 0)
      try set(descriptor, SOL_SOCKET, option, &limit)
    }
  }

  static func set<Value: BitwiseCopyable>(
    _ descriptor: Int32, _ level: Int32, _ option: Int32, _ value: inout Value
  ) throws {
    try check(
      "setsockopt",
      unsafe setsockopt(descriptor, level, option, &value, socklen_t(MemoryLayout<Value>.size)))
  }
}
