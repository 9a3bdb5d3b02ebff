// Both: the constants of <sys/socket.h> belong to whichever of the two the compiler meets first.
import CUring
import Glibc

/// A unix stream socket, non-blocking once connected: the administrator's way into the daemon.
@safe
public final class LocalSocket {
  /// The socket; closed with this object.
  public let descriptor: Int32
  private let boundPath: String?

  init(descriptor: Int32, boundPath: String?) {
    self.descriptor = descriptor
    self.boundPath = boundPath
  }

  deinit {
    close(descriptor)
    if let boundPath { unsafe unlink(boundPath) }
  }

  /// Listens at `path`, which only the owner can connect to. A socket left by a daemon that died is replaced;
  /// one that answers is an error.
  public static func listen(path: String) throws(SystemError) -> LocalSocket {
    if (try? connect(path: path)) != nil { throw SystemError(call: "listen on \(path)", errno: EADDRINUSE) }
    unsafe unlink(path)
    let fd = try open()
    let failure: Int32? = unsafe withAddress(path) { address, length in
      // Created without any permission for others: the mask is set before the name appears.
      let mask = umask(0o177)
      defer { umask(mask) }
      return unsafe Glibc.bind(fd, address, length) == 0 && Glibc.listen(fd, 128) == 0 ? nil : errno
    }
    if let failure {
      close(fd)
      throw SystemError(call: "listen on \(path)", errno: failure)
    }
    return LocalSocket(descriptor: fd, boundPath: path)
  }

  /// Connects to the daemon that listens at `path`.
  public static func connect(path: String) throws(SystemError) -> LocalSocket {
    let fd = try open()
    let failure: Int32? = unsafe withAddress(path) { address, length in
      unsafe Glibc.connect(fd, address, length) == 0 ? nil : errno
    }
    if let failure {
      close(fd)
      throw SystemError(call: "connect to \(path)", errno: failure)
    }
    return LocalSocket(descriptor: fd, boundPath: nil)
  }

  /// Accepts one waiting connection; nil when there is none.
  public func accept() -> LocalSocket? {
    let fd = Glibc.accept(descriptor, nil, nil)
    guard fd >= 0 else { return nil }
    setNonBlocking(fd)
    return LocalSocket(descriptor: fd, boundPath: nil)
  }

  /// Makes reads and writes return instead of waiting.
  public func setNonBlocking() { setNonBlocking(descriptor) }

  private func setNonBlocking(_ fd: Int32) {
    _ = fcntl(fd, F_SETFL, O_NONBLOCK)
    _ = fcntl(fd, F_SETFD, FD_CLOEXEC)
  }

  /// Tells the other end that no more will be written; what it writes can still be read.
  public func endWriting() { shutdown(descriptor, Int32(SHUT_WR)) }

  /// True once the other end is closed altogether, not only for writing.
  public var isHungUp: Bool {
    var wanted = pollfd(fd: descriptor, events: 0, revents: 0)
    // Sound: one structure, ours for the call; POLLHUP and POLLERR need not be asked for.
    return unsafe poll(&wanted, 1, 0) == 1 && wanted.revents & Int16(POLLHUP | POLLERR) != 0
  }

  /// Reads what is there, up to 64 KiB. Empty at the end of the stream; nil when nothing is there yet.
  public func read() throws(SystemError) -> [UInt8]? {
    // Sound: the array's storage is ours for the call and its size is the one passed.
    var count = 0
    let bytes = unsafe [UInt8](unsafeUninitializedCapacity: 65536) { buffer, initialized in
      count = unsafe Glibc.read(descriptor, buffer.baseAddress, buffer.count)
      initialized = max(0, count)
    }
    if count < 0 {
      if errno == EAGAIN || errno == EINTR { return nil }
      throw SystemError(call: "read", errno: errno)
    }
    return bytes
  }

  /// Writes as much of `bytes` as the socket takes and returns how much that was.
  public func write(_ bytes: ArraySlice<UInt8>) throws(SystemError) -> Int {
    // Sound: the slice's storage is valid for the call and its size is the one passed. No SIGPIPE by the
    // flag.
    let count = unsafe bytes.withUnsafeBytes { buffer in
      unsafe send(descriptor, buffer.baseAddress, buffer.count, Int32(MSG_NOSIGNAL))
    }
    if count < 0 {
      if errno == EAGAIN || errno == EINTR { return 0 }
      throw SystemError(call: "write", errno: errno)
    }
    return count
  }

  private static func open() throws(SystemError) -> Int32 {
    let fd = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    guard fd >= 0 else { throw SystemError(call: "socket", errno: errno) }
    return fd
  }

  static func withAddress(
    _ path: String, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32?
  ) -> Int32? {
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    let bytes = Array(path.utf8)
    guard bytes.count < MemoryLayout.size(ofValue: address.sun_path) else { return ENAMETOOLONG }
    // Sound: the length was just checked, the rest of the array stays zero, and the address lives for the
    // call.
    unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: bytes) }
    return unsafe withUnsafePointer(to: &address) { pointer in
      unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        unsafe body($0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
  }
}
