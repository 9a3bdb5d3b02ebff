import Foundation
import Glibc
import RingKit
import Testing

/// Claims on images against QEMU's own, in both directions, with the tools of qemu-utils.
@Suite struct ImageLockQEMUTests {
  let directory: TemporaryDirectory
  let image: String

  init() throws {
    try #require(
      FileManager.default.isExecutableFile(atPath: "/usr/bin/qemu-nbd"),
      "qemu-utils is missing; `make packages` installs it")
    directory = try TemporaryDirectory()
    image = try directory.file("image", byteCount: 1 << 20)
  }

  func open(_ readOnly: Bool, _ sharing: ImageSharing, patience: UInt64 = 0) throws(StorageError)
    -> StorageFile
  {
    try StorageFile.open(
      path: image, readOnly: readOnly, direct: .never, sharing: sharing, patienceNanoseconds: patience)
  }

  func conflict(_ readOnly: Bool, _ sharing: ImageSharing, patience: UInt64 = 0) -> ImageConflict? {
    do throws(StorageError) {
      _ = try open(readOnly, sharing, patience: patience)
      return nil
    } catch {
      if case .inUse(let conflict) = error.reason { return conflict }
      Issue.record("\(error)")
      return nil
    }
  }

  /// Runs a tool for half a minute at most; what it complained of, nil when it was content.
  func complaint(of tool: String, _ arguments: [String]) throws -> String? {
    let log = directory.path("log")
    // No pipe: a server that goes into the background would keep it open.
    let words = ["timeout", "30", "/usr/bin/\(tool)"] + arguments.map { "'\($0)'" }
    let status = unsafe system(words.joined(separator: " ") + " </dev/null >/dev/null 2>'\(log)'")
    return status == 0 ? nil : try String(contentsOfFile: log, encoding: .utf8)
  }

  func reads(writable: Bool) throws -> String? {
    let mode = writable ? [] : ["-r"]
    return try complaint(of: "qemu-io", mode + ["-f", "raw", "-c", "read 0 512", image])
  }

  func resizes() throws -> String? {
    try complaint(of: "qemu-img", ["resize", "-q", "-f", "raw", image, "2M"])
  }

  @Test func ourWriterKeepsQEMUOut() throws {
    let held = try open(false, .nobody)
    for complaint in [try reads(writable: true), try reads(writable: false), try resizes()] {
      #expect(complaint?.contains("lock") == true, "\(complaint ?? "content")")
    }
    let server = ["-f", "raw", "-k", directory.path("socket"), image]
    #expect(try complaint(of: "qemu-nbd", server)?.contains("lock") == true)
    #expect(try held.currentByteCount() == 1 << 20)
  }

  @Test func ourReaderKeepsQEMUFromWriting() throws {
    let held = try open(true, .readers)
    #expect(try reads(writable: true)?.contains("write") == true)
    #expect(try reads(writable: false) == nil)
    #expect(try resizes()?.contains("lock") == true)
    #expect(try held.currentByteCount() == 1 << 20)
  }

  @Test func ourSharedWriterKeepsQEMUFromResizing() throws {
    let held = try open(false, .everybody)
    #expect(try reads(writable: true) == nil)
    #expect(try reads(writable: false) == nil)
    #expect(try resizes()?.contains("resize") == true)
    #expect(try held.currentByteCount() == 1 << 20)
  }

  @Test func whatWeLetGoIsFree() throws {
    do { _ = try open(false, .nobody) }
    #expect(try reads(writable: true) == nil)
    #expect(try resizes() == nil)
  }

  /// A server of QEMU's that holds the image until it is killed; its process number.
  func server(readOnly: Bool) throws -> pid_t {
    let file = directory.path("pid")
    let socket = directory.path("socket")
    let mode = readOnly ? ["-r"] : []
    let options = ["--fork", "-t", "-f", "raw", "-k", socket, "--pid-file", file, image]
    try #require(try complaint(of: "qemu-nbd", mode + options) == nil)
    let text = try String(contentsOfFile: file, encoding: .utf8)
    return try #require(pid_t(text.trimmingCharacters(in: .whitespacesAndNewlines)))
  }

  /// And the locks of a process that was killed vanish.
  @Test func aWriterOfQEMUKeepsUsOutUntilItIsKilled() throws {
    let number = try server(readOnly: false)
    defer { kill(number, SIGKILL) }
    for _ in 0..<2 {
      #expect(conflict(false, .nobody) == .writer)
      #expect(conflict(true, .readers) == .writer)
      #expect(conflict(false, .everybody) == nil, "w! is for those who know")
    }
    kill(number, SIGKILL)
    #expect(conflict(false, .nobody, patience: 20_000_000_000) == nil)
  }

  @Test func aReaderOfQEMUKeepsOnlyAWriterOut() throws {
    let number = try server(readOnly: true)
    defer { kill(number, SIGKILL) }
    #expect(conflict(false, .nobody) == .claimed)
    #expect(conflict(true, .readers) == nil)
    #expect(conflict(true, .everybody) == nil)
    kill(number, SIGKILL)
    #expect(conflict(false, .nobody, patience: 20_000_000_000) == nil)
  }
}
