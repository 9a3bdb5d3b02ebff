import CUring
import Glibc

extension LocalSocket {
  /// Listens on a TCP port of 127.0.0.1, where other machines cannot reach it; 0 lets the kernel choose.
  public static func listen(loopbackPort port: UInt16) throws(SystemError) -> LocalSocket {
    let call = "listen on 127.0.0.1:\(port)"
    let fd = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    guard fd >= 0 else { throw SystemError(call: "socket", errno: errno) }
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = port.bigEndian
    address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
    var reuse: Int32 = 1
    // Sound: both structures are local, live for the calls, and their sizes are the ones passed. A daemon that
    // restarts may take the port of its predecessor at once.
    let isListening = unsafe withUnsafePointer(to: &address) { pointer in
      unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { generic in
        unsafe setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &reuse, socklen_t(MemoryLayout<Int32>.size)) == 0
          && bind(fd, generic, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0 && Glibc.listen(fd, 16) == 0
      }
    }
    guard isListening else {
      let failure = errno
      close(fd)
      throw SystemError(call: call, errno: failure)
    }
    return LocalSocket(descriptor: fd, boundPath: nil)
  }
}
