import Foundation
import RingKit
import Testing

/// Sockets that programs serve on for a while.
@Suite final class LendableSocketTests {
  private let directory = FileManager.default.temporaryDirectory.appending(
    path: "rb-\(UUID().uuidString.prefix(8))")
  private var path: String { directory.appending(path: "nbd1.0").path }
  private var names: [String] { (try? FileManager.default.contentsOfDirectory(atPath: directory.path)) ?? [] }

  init() throws { try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true) }

  deinit { try? FileManager.default.removeItem(at: directory) }

  @Test func itsNameIsOnlyItsOwnersAndGoesWithIt() throws {
    // What a daemon that was killed left.
    #expect(FileManager.default.createFile(atPath: path, contents: nil))
    var socket: LendableSocket? = try LendableSocket(path: path)
    #expect(names == ["nbd1.0"])
    let mode = try FileManager.default.attributesOfItem(atPath: path)[.posixPermissions] as? Int
    #expect(mode == 0o600)
    #expect(socket?.path == path)
    socket = nil
    #expect(names == [])
  }

  @Test func connectionsAreCountedWhoeverHasThem() throws {
    let socket = try LendableSocket(path: path)
    let other = try LendableSocket(path: directory.appending(path: "nbd1.1").path)
    #expect(try socket.connectionCount() == 0)
    var clients = try (0..<3).map { _ in try LocalSocket.connect(path: path) }
    #expect(try socket.connectionCount() == 3)
    #expect(try other.connectionCount() == 0)
    let accepted = accept(socket.descriptor, nil, nil)
    #expect(accepted >= 0)
    #expect(try socket.connectionCount() == 3)
    close(accepted)
    #expect(try socket.connectionCount() == 2)
    #expect(socket.refuseWaiting() == 2)
    #expect(try socket.connectionCount() == 0)
    #expect(socket.refuseWaiting() == 0)
    #expect(clients.allSatisfy { $0.isHungUp })
    clients = []
  }

  @Test func whatTheKernelCallsItIsGone() throws {
    let socket = try LendableSocket(path: path)
    var address = sockaddr_un()
    var length = socklen_t(MemoryLayout<sockaddr_un>.size)
    // Sound: both are local and live for the call, and the length is the structure's.
    let got = unsafe withUnsafeMutablePointer(to: &address) { pointer in
      unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        unsafe getsockname(socket.descriptor, $0, &length)
      }
    }
    #expect(got == 0)
    let name = unsafe withUnsafeBytes(of: &address.sun_path) { bytes in
      unsafe String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
    }
    #expect(name.hasPrefix("\(path)."))
    #expect(
      !FileManager.default.fileExists(atPath: name), "a program that cleans up must not hit the real name")
  }

  @Test func aPlaceThatIsNotThereIsAnError() {
    #expect(throws: SystemError.self) { try LendableSocket(path: "/nonexistent/nbd1.0") }
    #expect(throws: SystemError.self) {
      try LendableSocket(path: "/tmp/" + String(repeating: "x", count: 108))
    }
  }
}
