import Glibc
import Testing

@testable import Loopback

/// A client that speaks the wire itself, so that it can misbehave.
@safe
final class StoreRawClient {
  let descriptor: Int32
  private var reader = StoreFrameReader()

  init(_ path: String) throws {
    descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    // The paths of fixtures are short; the address outlives the call.
    unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: path.utf8) }
    let result = unsafe withUnsafePointer(to: &address) {
      unsafe $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        unsafe connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    guard result == 0 else { throw StoreFixture.Failure(description: "connect: errno \(errno)") }
  }

  deinit { close(descriptor) }

  func send(_ bytes: [UInt8]) {
    unsafe bytes.withUnsafeBytes {
      let count = unsafe Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
      #expect(count == bytes.count)
    }
  }

  /// The next message, nil when the server has hung up; fails after 20 seconds.
  func message() throws -> StoreMessage? {
    while true {
      if let message = try reader.next() { return message }
      var ready = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
      guard unsafe poll(&ready, 1, 20_000) > 0 else {
        throw StoreFixture.Failure(description: "no message in 20 seconds")
      }
      var buffer = [UInt8](repeating: 0, count: 4096)
      let count = unsafe recv(descriptor, &buffer, buffer.count, 0)
      guard count > 0 else { return nil }
      reader.append(buffer[..<count])
    }
  }

  static func request(_ type: StoreMessageType, _ payload: String) -> [UInt8] {
    let bytes = payload.utf8.map { $0 == UInt8(ascii: "|") ? 0 : $0 }
    return StoreMessage(type: type.rawValue, request: 5, transaction: 0, payload: bytes).encoded
  }

  /// One request and the text of its reply, with `|` for NUL.
  func ask(_ type: StoreMessageType, _ payload: String) throws -> String? {
    send(Self.request(type, payload))
    return try message().map { StoreDialogue.shown($0.payload) }
  }
}
