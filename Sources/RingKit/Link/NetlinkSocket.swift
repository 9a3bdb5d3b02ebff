// Both: the constants of <sys/socket.h> belong to whichever of the two the compiler meets first.
import CUring
import Glibc

/// A socket of rtnetlink, in the network namespace of the thread that made it, whichever thread uses it later.
@safe
final class NetlinkSocket {
  /// `struct sockaddr_nl` (linux/netlink.h).
  private struct Address {
    var family = UInt16(AF_NETLINK)
    var padding: UInt16 = 0
    var port: UInt32 = 0
    var groups: UInt32 = 0
  }

  /// A datagram as it came.
  enum Datagram {
    case bytes([UInt8])
    /// It did not fit, or was not the kernel's.
    case unusable
    /// None is there yet; only of a socket that does not wait.
    case none
    /// Some were lost (ENOBUFS): the receiver was too slow.
    case overflow
  }

  /// The kernel sends at most 32 KiB at once (netlink_dump), and single messages of a link are shorter.
  static let byteCount = 65536

  let descriptor: Int32

  /// Opens one that hears the multicast groups of the mask `groups`.
  init(groups: UInt32, waits: Bool) throws(SystemError) {
    let kind =
      Int32(SOCK_RAW.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | (waits ? 0 : Int32(SOCK_NONBLOCK.rawValue))
    descriptor = socket(AF_NETLINK, kind, 0 /* NETLINK_ROUTE */)
    guard descriptor >= 0 else { throw SystemError(call: "socket(AF_NETLINK)", errno: errno) }
    var address = Address()
    address.groups = groups
    // Sound: the layout is that of sockaddr_nl, twelve bytes, and lives for the call.
    let failure = unsafe withUnsafePointer(to: &address) { pointer in
      unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        unsafe bind(descriptor, $0, 12) == 0 ? 0 : errno
      }
    }
    guard failure == 0 else {
      close(descriptor)
      throw SystemError(call: "bind(AF_NETLINK)", errno: failure)
    }
  }

  deinit { close(descriptor) }

  /// Sends a message to the kernel.
  func send(_ message: [UInt8]) throws(SystemError) {
    while true {
      // Sound: the bytes are the array's, as many as said.
      let count = unsafe message.withUnsafeBytes { buffer in
        unsafe Glibc.send(descriptor, buffer.baseAddress, buffer.count, 0)
      }
      if count == message.count { return }
      if count >= 0 { throw SystemError(call: "send(AF_NETLINK)", errno: EMSGSIZE) }
      if errno != EINTR { throw SystemError(call: "send(AF_NETLINK)", errno: errno) }
    }
  }

  /// Takes the next datagram.
  func receive() throws(SystemError) -> Datagram {
    var sender = Address()
    var length = socklen_t(12)
    var count = 0
    while true {
      // Sound: the array's storage is ours for the call, its size is the one passed, and the kernel writes no
      // more of the sender than the length says.
      let bytes = unsafe [UInt8](unsafeUninitializedCapacity: Self.byteCount) { buffer, initialized in
        count = unsafe withUnsafeMutablePointer(to: &sender) { pointer in
          unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
            unsafe recvfrom(
              descriptor, buffer.baseAddress, buffer.count, Int32(MSG_TRUNC), $0, &length)
          }
        }
        initialized = max(0, min(count, buffer.count))
      }
      if count >= 0 {
        // Port 0 is the kernel; a longer count tells that the rest was cut off.
        return count <= bytes.count && sender.port == 0 ? .bytes(bytes) : .unusable
      }
      switch errno {
      case EINTR: continue
      case EAGAIN: return .none
      case ENOBUFS: return .overflow
      default: throw SystemError(call: "recv(AF_NETLINK)", errno: errno)
      }
    }
  }
}
