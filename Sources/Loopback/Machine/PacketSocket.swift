import Glibc
import RingKit

/// A unix socket that keeps messages apart and carries descriptors (SOCK_SEQPACKET, SCM_RIGHTS; unix(7)).
struct PacketSocket: Sendable {
  /// The open socket.
  let descriptor: Descriptor

  /// Words in the longest message.
  static var maximumWordCount: Int { 512 }
  /// Descriptors in one message; the kernel's bound is 253 (SCM_MAX_FD).
  static var maximumDescriptorCount: Int { 128 }

  /// What arrived: a message, or the end of the connection.
  struct Packet {
    var words: [UInt32]
    var descriptors: [Descriptor]
  }

  private static func open() throws(SystemError) -> Descriptor {
    let raw = socket(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    guard raw >= 0 else { throw SystemError(call: "socket", errno: errno) }
    return Descriptor(owning: raw)
  }

  /// Calls `body` with the socket address of `path`.
  private static func withAddress(
    _ path: String, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32
  ) throws(SystemError) -> Int32 {
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    let bytes = Array(path.utf8)
    guard bytes.count < MemoryLayout.size(ofValue: address.sun_path) else {
      throw SystemError(call: "socket address \(path)", errno: ENAMETOOLONG)
    }
    unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: bytes) }
    // Sound: sockaddr_un is what the kernel expects behind a sockaddr pointer of that length.
    return unsafe withUnsafePointer(to: &address) { pointer in
      unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        unsafe body($0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
  }

  /// Connects to `path`; calls on it give up after `seconds`.
  static func connect(to path: String, giveUpAfter seconds: Int) throws(SystemError) -> PacketSocket {
    let descriptor = try open()
    var limit = timeval(tv_sec: seconds, tv_usec: 0)
    for option in [SO_RCVTIMEO, SO_SNDTIMEO] {
      _ = unsafe setsockopt(
        descriptor.raw, SOL_SOCKET, option, &limit, socklen_t(MemoryLayout<timeval>.size))
    }
    let result = unsafe try withAddress(path) { unsafe Glibc.connect(descriptor.raw, $0, $1) }
    guard result == 0 else { throw SystemError(call: "connect \(path)", errno: errno) }
    return PacketSocket(descriptor: descriptor)
  }

  /// Listens at `path`, where nothing may be.
  static func listen(at path: String) throws(SystemError) -> PacketSocket {
    let descriptor = try open()
    let result = unsafe try withAddress(path) { unsafe bind(descriptor.raw, $0, $1) }
    guard result == 0 else { throw SystemError(call: "bind \(path)", errno: errno) }
    guard Glibc.listen(descriptor.raw, 64) == 0 else { throw SystemError(call: "listen", errno: errno) }
    return PacketSocket(descriptor: descriptor)
  }

  /// The next connection of a listening socket.
  func accept() throws(SystemError) -> PacketSocket {
    let raw = Glibc.accept(descriptor.raw, nil, nil)
    guard raw >= 0 else { throw SystemError(call: "accept", errno: errno) }
    _ = fcntl(raw, F_SETFD, FD_CLOEXEC)
    return PacketSocket(descriptor: Descriptor(owning: raw))
  }

  /// Sends one message; with `waiting` false it fails with EAGAIN when the peer does not read.
  func send(_ words: [UInt32], _ descriptors: [Descriptor] = [], waiting: Bool) throws(SystemError) {
    precondition(words.count <= Self.maximumWordCount)
    precondition(descriptors.count <= Self.maximumDescriptorCount)
    let raws = descriptors.map(\.raw)
    var control = ControlBuffer()
    let controlCount = control.encode(raws)
    let flags = Int32(MSG_NOSIGNAL) | (waiting ? 0 : Int32(MSG_DONTWAIT))
    var sent = 0
    // Sound: every buffer outlives the call that reads it.
    unsafe words.withUnsafeBytes { bytes in
      unsafe control.bytes.withUnsafeMutableBytes { controlBytes in
        var vector = unsafe iovec(
          iov_base: UnsafeMutableRawPointer(mutating: bytes.baseAddress), iov_len: bytes.count)
        unsafe withUnsafeMutablePointer(to: &vector) { vector in
          var header = unsafe msghdr()
          unsafe header.msg_iov = vector
          unsafe header.msg_iovlen = 1
          unsafe header.msg_control = controlCount > 0 ? controlBytes.baseAddress : nil
          unsafe header.msg_controllen = controlCount
          sent = unsafe sendmsg(descriptor.raw, &header, flags)
        }
      }
    }
    let failure = errno
    // The kernel has references of its own from here on.
    withExtendedLifetime(descriptors) {}
    guard sent == words.count * 4 else { throw SystemError(call: "sendmsg", errno: sent < 0 ? failure : EIO) }
  }

  /// Receives one message, with up to `maximum` descriptors; nil at the end of the connection. More
  /// descriptors than that are closed by the kernel, and a longer message than allowed is an error.
  func receive(descriptorsUpTo maximum: Int, waiting: Bool) throws(SystemError) -> Packet? {
    precondition(maximum <= Self.maximumDescriptorCount)
    var words = [UInt32](repeating: 0, count: Self.maximumWordCount)
    var control = ControlBuffer()
    let room = maximum == 0 ? 0 : ControlBuffer.byteCount(for: maximum)
    var count = 0
    var controlCount = 0
    var truncated = false
    let flags = Int32(MSG_CMSG_CLOEXEC) | (waiting ? 0 : Int32(MSG_DONTWAIT))
    // Sound: the kernel writes no further than the lengths given here.
    unsafe words.withUnsafeMutableBytes { bytes in
      unsafe control.bytes.withUnsafeMutableBytes { controlBytes in
        var vector = unsafe iovec(iov_base: bytes.baseAddress, iov_len: bytes.count)
        unsafe withUnsafeMutablePointer(to: &vector) { vector in
          var header = unsafe msghdr()
          unsafe header.msg_iov = vector
          unsafe header.msg_iovlen = 1
          unsafe header.msg_control = room > 0 ? controlBytes.baseAddress : nil
          unsafe header.msg_controllen = room
          repeat {
            count = unsafe recvmsg(descriptor.raw, &header, flags)
          } while count < 0 && errno == EINTR
          controlCount = unsafe header.msg_controllen
          truncated = unsafe header.msg_flags & Int32(MSG_TRUNC) != 0
        }
      }
    }
    let failure = errno
    guard count >= 0 else { throw SystemError(call: "recvmsg", errno: failure) }
    let descriptors = control.decode(byteCount: controlCount).map(Descriptor.init(owning:))
    if count == 0 { return nil }
    guard !truncated, count % 4 == 0 else { throw SystemError(call: "recvmsg", errno: EMSGSIZE) }
    words.removeSubrange((count / 4)...)
    return Packet(words: words, descriptors: descriptors)
  }
}

/// Room for one SCM_RIGHTS control message: a cmsghdr and the descriptors (cmsg(3); its macros are not
/// visible here).
private struct ControlBuffer {
  private static var headerCount: Int { MemoryLayout<cmsghdr>.size }

  /// Words of eight bytes, because a control message begins at such an address.
  var bytes = [UInt64](repeating: 0, count: byteCount(for: PacketSocket.maximumDescriptorCount) / 8)

  /// Bytes that `count` descriptors take, with padding.
  static func byteCount(for count: Int) -> Int { (headerCount + count * 4 + 7) & ~7 }

  /// Writes the message; returns its length in bytes, 0 when there are no descriptors.
  mutating func encode(_ descriptors: [Int32]) -> Int {
    guard !descriptors.isEmpty else { return 0 }
    var header = cmsghdr()
    header.cmsg_len = Self.headerCount + descriptors.count * 4
    header.cmsg_level = SOL_SOCKET
    header.cmsg_type = Int32(SCM_RIGHTS)
    // Sound: the buffer holds the header and the most descriptors that may be sent.
    unsafe bytes.withUnsafeMutableBytes { buffer in
      unsafe buffer.storeBytes(of: header, as: cmsghdr.self)
      for (index, descriptor) in descriptors.enumerated() {
        unsafe buffer.storeBytes(
          of: descriptor, toByteOffset: Self.headerCount + index * 4, as: Int32.self)
      }
    }
    return Self.byteCount(for: descriptors.count)
  }

  /// The descriptors in a received control area of `byteCount` bytes.
  func decode(byteCount: Int) -> [Int32] {
    guard byteCount >= Self.headerCount else { return [] }
    // Sound: the kernel wrote one control message, whose length is checked against the buffer's.
    return unsafe bytes.withUnsafeBytes { buffer in
      let header = unsafe buffer.load(as: cmsghdr.self)
      guard header.cmsg_level == SOL_SOCKET, header.cmsg_type == Int32(SCM_RIGHTS) else { return [] }
      let end = min(Int(header.cmsg_len), buffer.count)
      return stride(from: Self.headerCount, to: end - 3, by: 4).map {
        unsafe buffer.load(fromByteOffset: $0, as: Int32.self)
      }
    }
  }
}
