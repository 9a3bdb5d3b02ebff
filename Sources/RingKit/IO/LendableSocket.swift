import CUring
import Glibc

/// A listening unix socket with a name that others connect to, made to be handed to a program that serves on
/// it for a while: the socket stays with us, and connections wait in it whoever listens.
@safe
public final class LendableSocket: ListeningSocket, Sendable {
  public let descriptor: Int32
  /// The name; taken away with this object.
  public let path: String
  /// What the kernel knows it by. QEMU takes away the name that a socket was bound to when it stops serving
  /// on it (util/qemu-sockets.c, socket_listen_cleanup), so that is another one than ``path``, and gone already.
  private let boundName: String

  /// Listens at `path`, for this user alone; what was there before is replaced.
  public init(path: String, backlog: Int32 = 16) throws(SystemError) {
    let call = "listen on \(path)"
    let fd = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    guard fd >= 0 else { throw SystemError(call: call, errno: errno) }
    let name = "\(path).\(String(UInt32.random(in: 0...UInt32.max), radix: 36))"
    // Sound: the address and the strings live for the calls.
    let failure: Int32? = unsafe LocalSocket.withAddress(name) { address, length in
      // Created without any permission for others: the mask is set before the name appears.
      let mask = umask(0o177)
      defer { umask(mask) }
      guard unsafe Glibc.bind(fd, address, length) == 0 else { return errno }
      return unsafe Glibc.listen(fd, backlog) == 0 && rename(name, path) == 0 ? nil : errno
    }
    if let failure {
      unsafe unlink(name)
      close(fd)
      throw SystemError(call: call, errno: failure)
    }
    _ = fcntl(fd, F_SETFL, O_NONBLOCK)
    (descriptor, self.path, boundName) = (fd, path, name)
  }

  deinit {
    unsafe unlink(path)
    close(descriptor)
  }

  /// Closes the connections that wait to be accepted; how many there were.
  public func refuseWaiting() -> Int {
    var count = 0
    while true {
      let fd = accept(descriptor, nil, nil)
      if fd >= 0 {
        close(fd)
        count += 1
      } else if errno != ECONNABORTED && errno != EINTR {
        return count
      }
    }
  }

  /// Connections there are, waiting or with whoever serves them. The kernel tells of them below the
  /// listener's name (proc(5), /proc/[pid]/net/unix).
  public func connectionCount() throws(SystemError) -> Int {
    let table = "/proc/self/net/unix"
    let fd = unsafe open(table, O_RDONLY | O_CLOEXEC)
    guard fd >= 0 else { throw SystemError(call: "open \(table)", errno: errno) }
    defer { close(fd) }
    var text: [UInt8] = []
    while true {
      var count = 0
      // Sound: the array's storage is ours for the call and its size is the one passed.
      let bytes = unsafe [UInt8](unsafeUninitializedCapacity: 65536) { buffer, initialized in
        count = unsafe read(fd, buffer.baseAddress, buffer.count)
        initialized = max(0, count)
      }
      guard count >= 0 else { throw SystemError(call: "read \(table)", errno: errno) }
      if count == 0 { break }
      text += bytes
    }
    let ending = Array(" \(boundName)".utf8)
    // The fields: number, references, protocol, flags, type, state, inode, name. The listener's flags have
    // SO_ACCEPTCON; a connection's have not.
    return text.split(separator: UInt8(ascii: "\n")).count { line in
      guard line.count > ending.count, line.suffix(ending.count) == ending[...] else { return false }
      let fields = line.split(separator: UInt8(ascii: " "))
      return fields.count > 3 && fields[3] == Array("00000000".utf8)[...]
    }
  }
}

/// A socket that connections come in on, whose descriptor a child process can be given.
public protocol ListeningSocket: AnyObject {
  /// The listening socket; open for as long as the object lives.
  var descriptor: Int32 { get }
}

extension PrivateSocket: ListeningSocket {}
