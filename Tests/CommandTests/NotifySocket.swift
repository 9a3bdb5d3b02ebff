import Foundation
import Glibc
import RingKit

/// A socket that a daemon's notices come to, as systemd's.
final class NotifySocket {
  /// What NOTIFY_SOCKET says.
  let address: String
  private let descriptor: Int32

  /// Listens at a path, or by an abstract name.
  init(abstract: Bool = false) throws {
    let name = "ringback-notify-\(UUID().uuidString)"
    address = abstract ? "@\(name)" : "/tmp/\(name)"
    descriptor = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    var target = sockaddr_un()
    target.sun_family = sa_family_t(AF_UNIX)
    var bytes = Array(address.utf8)
    if abstract { bytes[0] = 0 }
    let length = socklen_t(MemoryLayout<sa_family_t>.size + bytes.count)
    // Sound: the name is much shorter than the address' array, and all of it is ours for the call.
    unsafe withUnsafeMutableBytes(of: &target.sun_path) { unsafe $0.copyBytes(from: bytes) }
    let isBound = unsafe withUnsafePointer(to: &target) { pointer in
      unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        unsafe bind(descriptor, $0, length) == 0
      }
    }
    guard isBound else { throw SystemError(call: "bind \(address)", errno: errno) }
  }

  deinit {
    close(descriptor)
    if address.hasPrefix("/") { unsafe unlink(address) }
  }

  /// The next notice; throws when none comes within a minute.
  func next() throws -> String {
    var poll = DescriptorPoll()
    poll.set([(descriptor, false)])
    guard try !poll.wait(timeoutMilliseconds: 60_000).isEmpty else {
      throw SystemError(call: "no notice", errno: ETIMEDOUT)
    }
    return receive()
  }

  private func receive() -> String {
    // Sound: the array's storage is ours for the call, and its size is the one passed.
    let bytes = unsafe [UInt8](unsafeUninitializedCapacity: 4096) { buffer, count in
      count = unsafe max(0, recv(descriptor, buffer.baseAddress, buffer.count, 0))
    }
    return String(decoding: bytes, as: UTF8.self)
  }

  /// Reads up to the notice that begins so, and gives all that came, but for the watchdog's unless they are
  /// asked for.
  func wait(for start: String) throws -> [String] {
    var notices: [String] = []
    while true {
      let notice = try next()
      if notice != "WATCHDOG=1" || notice.hasPrefix(start) { notices.append(notice) }
      if notice.hasPrefix(start) { return notices }
    }
  }
}
