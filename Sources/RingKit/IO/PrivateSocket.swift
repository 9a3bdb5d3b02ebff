import CUring
import Glibc

/// A listening unix socket that only this process and whom it hands the descriptor to can reach: its name is
/// taken away at once, so that nothing of it is left whatever happens to the process.
@safe
public final class PrivateSocket: Sendable {
  /// The listening socket; a child process inherits it by being given it.
  public let descriptor: Int32
  private let place: Int32

  /// What this process connects to.
  public var path: String { "/proc/self/fd/\(place)" }

  /// Listens in a directory of its own, made below `directory` (which is made when it is missing) for this
  /// user alone, and removed before this returns. Where `directory` cannot be written, /tmp serves.
  public init(below directory: String, backlog: Int32 = 16) throws(SystemError) {
    unsafe mkdir(directory, 0o755)
    let made = Self.makeDirectory("\(directory)/") ?? Self.makeDirectory("/tmp/ringback-")
    guard let made else { throw SystemError(call: "mkdtemp in \(directory)", errno: errno) }
    let name = "\(made)/s"
    let fd = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    defer {
      unsafe unlink(name)
      unsafe rmdir(made)
    }
    guard fd >= 0 else { throw SystemError(call: "socket", errno: errno) }
    // Sound: the address lives for the call. A path only names the place, O_PATH below keeps it.
    let failure: Int32? = unsafe LocalSocket.withAddress(name) { address, length in
      unsafe Glibc.bind(fd, address, length) == 0 && Glibc.listen(fd, backlog) == 0 ? nil : errno
    }
    if let failure {
      close(fd)
      throw SystemError(call: "listen on \(name)", errno: failure)
    }
    place = unsafe open(name, ringback_o_path() | O_CLOEXEC)
    guard place >= 0 else {
      let failure = errno
      close(fd)
      throw SystemError(call: "open \(name)", errno: failure)
    }
    descriptor = fd
  }

  deinit {
    close(descriptor)
    close(place)
  }

  private static func makeDirectory(_ prefix: String) -> String? {
    var template = Array("\(prefix)XXXXXX".utf8CString)
    // Sound: mkdtemp changes the six last characters in place.
    return unsafe template.withUnsafeMutableBufferPointer { buffer in
      guard let base = buffer.baseAddress, let made = unsafe mkdtemp(base) else { return nil }
      return unsafe String(cString: made)
    }
  }
}
