import Glibc

@testable import Loopback

/// A running server in a directory of its own, gone with the fixture.
final class StoreFixture {
  let directory: String
  let server: StoreServer

  struct Failure: Error, CustomStringConvertible {
    let description: String
  }

  init(quota: StoreQuota = StoreQuota()) throws {
    var template = Array("/tmp/store-XXXXXX\0".utf8.map { CChar(bitPattern: $0) })
    // The template is private to this call and ends in its NUL.
    guard unsafe mkdtemp(&template) != nil else { throw Failure(description: "mkdtemp: errno \(errno)") }
    directory = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    server = try StoreServer(directory: directory, quota: quota)
    try server.start()
  }

  deinit {
    server.stop()
    _ = unsafe rmdir(directory)
  }

  func socket(_ domain: UInt16 = 0) -> String {
    StoreServer.socketPath(in: directory, domain: domain)
  }

  /// Runs one of xenstore-utils as a domain.
  func tool(_ name: String, _ arguments: String..., domain: UInt16 = 0) throws -> StoreToolProcess.Result {
    try StoreToolProcess.run("xenstore-\(name)", arguments, socket: socket(domain))
  }
}
