import CUring
import Glibc

/// A socket that short notices are sent from, one datagram each, without ever waiting.
@safe
public final class NoticeSocket {
  private let descriptor: Int32
  private let address: [UInt8]

  /// For notices to the unix datagram socket at `address`: an absolute path, or "@" and the name of an abstract
  /// one. Nil for any other address.
  public init?(address: String) throws(SystemError) {
    var bytes = Array(address.utf8)
    guard let first = bytes.first, first == UInt8(ascii: "/") || first == UInt8(ascii: "@"), bytes.count > 1,
      bytes.count < MemoryLayout<sockaddr_un>.size - MemoryLayout<sa_family_t>.size
    else { return nil }
    // An abstract name begins with a zero byte, and ends with the address (unix(7)).
    if first == UInt8(ascii: "@") { bytes[0] = 0 }
    self.address = bytes
    let kind = Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue)
    descriptor = socket(AF_UNIX, kind, 0)
    guard descriptor >= 0 else { throw SystemError(call: "socket", errno: errno) }
  }

  deinit { close(descriptor) }

  /// Sends a notice. False when the receiver's queue is full: it may be sent again later.
  public func send(_ notice: String) throws(SystemError) -> Bool {
    var target = sockaddr_un()
    target.sun_family = sa_family_t(AF_UNIX)
    let length = MemoryLayout<sa_family_t>.size + address.count
    let text = Array(notice.utf8)
    // Sound: the initialiser has seen that the address fits, and all storage lives for the call.
    unsafe withUnsafeMutableBytes(of: &target.sun_path) { unsafe $0.copyBytes(from: address) }
    let count = unsafe withUnsafePointer(to: &target) { pointer in
      unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        unsafe sendto(descriptor, text, text.count, Int32(MSG_NOSIGNAL), $0, socklen_t(length))
      }
    }
    if count >= 0 { return true }
    if errno == EAGAIN || errno == EINTR || errno == ENOBUFS { return false }
    throw SystemError(call: "send", errno: errno)
  }
}
