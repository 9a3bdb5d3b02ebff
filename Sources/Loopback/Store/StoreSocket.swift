import Glibc

/// One nonblocking descriptor of the store's server. A plain value: the loop that holds it closes it.
/// Marked safe because each call below hands the kernel memory that outlives the call, with its true length.
@safe
struct StoreSocket: Sendable {
  enum Received {
    case bytes(Int)
    case nothingYet
    case gone
  }

  enum Accepted {
    case client(StoreSocket)
    case nothingYet
    /// The process or the machine is out of descriptors or memory.
    case exhausted
  }

  static let pathBytesMax = 107
  private static let streamType = Int32(
    SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue)

  let descriptor: Int32

  /// A listening unix stream socket that only this user may connect to. A dead server's leftover is replaced.
  static func listening(at path: String) throws(StoreServerError) -> StoreSocket {
    guard path.utf8.count <= pathBytesMax else {
      throw .pathTooLong(path: path, bytes: path.utf8.count)
    }
    try removeLeftover(at: path)
    let socket = try make(path)
    // Linux gives the new file the socket's own mode: at no moment may others connect.
    guard fchmod(socket.descriptor, 0o600) == 0 else { throw socket.closed(afterFailing: "fchmod", path) }
    guard unsafe withAddress(path, { unsafe bind(socket.descriptor, $0, $1) }) == 0 else {
      throw socket.closed(afterFailing: "bind", path)
    }
    guard listen(socket.descriptor, 64) == 0 else { throw socket.closed(afterFailing: "listen", path) }
    return socket
  }

  /// Two connected ends: what is sent on one makes the other readable, which wakes a thread that polls it.
  static func pair() throws(StoreServerError) -> (StoreSocket, StoreSocket) {
    var ends: [Int32] = [-1, -1]
    // The call fills in two descriptors, and the array has room for two.
    guard unsafe socketpair(AF_UNIX, streamType, 0, &ends) == 0 else {
      throw failure("socketpair", "the store server")
    }
    return (StoreSocket(descriptor: ends[0]), StoreSocket(descriptor: ends[1]))
  }

  /// Waits until a descriptor is ready, or for `milliseconds` (-1: without end).
  static func wait(_ descriptors: inout [pollfd], milliseconds: Int32) {
    // The array is borrowed for the call and its own count goes along.
    let ready = unsafe poll(&descriptors, nfds_t(descriptors.count), milliseconds)
    // Interrupted: nothing is ready, and what `revents` holds means nothing.
    if ready < 0 { for index in descriptors.indices { descriptors[index].revents = 0 } }
  }

  static func unlinkSocket(_ path: String) {
    _ = unsafe unlink(path)
  }

  func accept() -> Accepted {
    while true {
      let descriptor = Glibc.accept(self.descriptor, nil, nil)
      if descriptor >= 0 {
        _ = fcntl(descriptor, F_SETFL, O_NONBLOCK)
        _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
        return .client(StoreSocket(descriptor: descriptor))
      }
      switch errno {
      case EINTR, ECONNABORTED: continue
      case EAGAIN: return .nothingYet
      default: return .exhausted
      }
    }
  }

  /// Reads into the front of `buffer`.
  func receive(into buffer: inout [UInt8]) -> Received {
    while true {
      let count = unsafe read(descriptor, &buffer, buffer.count)
      if count > 0 { return .bytes(count) }
      if count == 0 { return .gone }
      if errno == EAGAIN { return .nothingYet }
      if errno != EINTR { return .gone }
    }
  }

  /// Sends what the socket takes; 0 when it is full, nil when the peer is gone.
  func send(_ bytes: ArraySlice<UInt8>) -> Int? {
    while true {
      let count = unsafe bytes.withUnsafeBytes {
        // No SIGPIPE: a client that left must not end the process.
        unsafe Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
      }
      if count >= 0 { return count }
      if errno == EAGAIN { return 0 }
      if errno != EINTR { return nil }
    }
  }

  func close() {
    _ = Glibc.close(descriptor)
  }

  // MARK: Helpers of the above

  private static func make(_ path: String) throws(StoreServerError) -> StoreSocket {
    let descriptor = socket(AF_UNIX, streamType, 0)
    guard descriptor >= 0 else { throw failure("socket", path) }
    return StoreSocket(descriptor: descriptor)
  }

  /// A socket file that nobody answers on is removed; a live server's is left, and so is any other file
  /// (`bind` then fails).
  private static func removeLeftover(at path: String) throws(StoreServerError) {
    var status = stat()
    guard unsafe lstat(path, &status) == 0, status.st_mode & S_IFMT == S_IFSOCK else { return }
    let probe = try make(path)
    defer { probe.close() }
    let connected = unsafe withAddress(path, { unsafe connect(probe.descriptor, $0, $1) }) == 0
    // EAGAIN: its queue is full, so there is a server.
    if connected || errno == EAGAIN { throw .pathInUse(path: path) }
    unlinkSocket(path)
  }

  /// The path fits, as `listening` has checked, and the address lives as long as `body` runs.
  private static func withAddress(
    _ path: String, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32
  ) -> Int32 {
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    unsafe withUnsafeMutableBytes(of: &address.sun_path) { field in
      unsafe field.copyBytes(from: path.utf8.prefix(pathBytesMax))
    }
    return unsafe withUnsafePointer(to: &address) { pointer in
      unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        unsafe body($0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
  }

  private func closed(afterFailing call: String, _ path: String) -> StoreServerError {
    let error = Self.failure(call, path)
    close()
    return error
  }

  private static func failure(_ call: String, _ path: String) -> StoreServerError {
    let number = errno
    let reason = unsafe strerror(number).map { unsafe String(cString: $0) } ?? "unknown"
    return .system(call: call, path: path, errno: number, reason: reason)
  }
}
