import Glibc
import RingKit
import Synchronization
import Testing

@testable import Loopback

/// A running machine in a directory of its own, with domain 0 (the backend) and domain 1 (the frontend).
final class MachineFixture {
  let directory: String
  let machine: LoopbackMachine
  let gone: GoneDomains

  static let back = DomainID(rawValue: 0)
  static let front = DomainID(rawValue: 1)

  init() throws {
    directory = try makeTemporaryDirectory()
    let gone = try GoneDomains()
    self.gone = gone
    machine = try LoopbackMachine(directory: directory) { gone.add($0) }
  }

  deinit {
    machine.stop()
    _ = unsafe rmdir(directory)
  }

  func hypervisor(_ domain: DomainID) throws -> LoopbackHypervisor {
    try LoopbackHypervisor(directory: directory, domain: domain)
  }

  func grants(_ domain: DomainID) throws -> any GrantTable { try hypervisor(domain).openGrantTable() }
  func sharing(_ domain: DomainID) throws -> LoopbackGrantSharing {
    try #require(try hypervisor(domain).openGrantSharing() as? LoopbackGrantSharing)
  }
  func events(_ domain: DomainID) throws -> any EventChannels {
    try hypervisor(domain).openEventChannels()
  }
}

struct TestFailure: Error, CustomStringConvertible {
  let description: String
}

func makeTemporaryDirectory() throws -> String {
  var template = Array("/tmp/ringback-XXXXXX\0".utf8.map { CChar(bitPattern: $0) })
  // The template is private to this call and ends in its NUL.
  guard unsafe mkdtemp(&template) != nil else { throw TestFailure(description: "mkdtemp: errno \(errno)") }
  return String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
}

/// Domains that the machine reported gone; waiting for one is bounded.
final class GoneDomains: Sendable {
  private let domains = Mutex<[DomainID]>([])
  private let event: Descriptor

  init() throws { event = try .event() }

  func add(_ domain: DomainID) {
    domains.withLock { $0.append(domain) }
    event.signal()
  }

  /// Waits until `domain` was reported, and forgets that report.
  func wait(for domain: DomainID) throws {
    while true {
      let found = domains.withLock { domains in
        guard let index = domains.firstIndex(of: domain) else { return false }
        domains.remove(at: index)
        return true
      }
      if found { return }
      guard isReadable(event.raw, milliseconds: 10_000) else {
        throw TestFailure(description: "domain \(domain) was not reported gone within 10 s")
      }
      var count: UInt64 = 0
      _ = unsafe read(event.raw, &count, 8)
    }
  }
}

func isReadable(_ descriptor: Int32, milliseconds: Int32 = 0) -> Bool {
  var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
  return unsafe poll(&entry, 1, milliseconds) == 1
}

extension MappedPages {
  /// `count` bytes at `offset`.
  func bytes(at offset: Int = 0, count: Int) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count)
    var span = bytes.mutableSpan
    // Sound: bytes have no padding.
    var raw = unsafe span.mutableBytes
    copyOut(offset: offset, into: &raw)
    return bytes
  }

  /// Overwrites bytes beginning at `offset`.
  func write(_ bytes: [UInt8], at offset: Int = 0) {
    // Sound: bytes have no padding.
    copyIn(offset: offset, from: unsafe bytes.span.bytes)
  }

  /// Writes each page's index into its first byte, plus `base`.
  func number(from base: UInt8) {
    for page in 0..<pageCount { write([base &+ UInt8(truncatingIfNeeded: page)], at: page * pageByteCount) }
  }

  /// The first byte of each page.
  var numbers: [UInt8] { (0..<pageCount).map { bytes(at: $0 * pageByteCount, count: 1)[0] } }
}
