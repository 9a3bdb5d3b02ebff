import Blkback
import Foundation
import Frontends
import Glibc
import Loopback
import RingKit
import Testing

/// Guests that are rebooted and destroyed again and again while they use their disks: nothing is left behind,
/// and what one life wrote the next one reads. Each test has a process of its own, so that the descriptors and
/// the memory it counts are its own.
@Suite(.serialized, .timeLimit(.minutes(10))) struct LibxlCycleTests {
  @Test func fiftyRebootsUnderLoadLeaveNothing() async throws {
    let path = reportPath()
    await #expect(processExitsWith: .success) { [path = path as String] in
      GuestLives.exit(path, backend: 0) {
        try $0.observe("reboots", count: 50, settled: 20) { try $0.reboot() }
      }
    }
    try show(path)
  }

  /// Twenty after those that warm up. In a driver domain, which may have 128 watches: 20 guests with 7 disks each
  /// would use up more, were they not taken back.
  @Test func twentyDestructionsUnderLoadLeaveNothing() async throws {
    let path = reportPath()
    await #expect(processExitsWith: .success) { [path = path as String] in
      GuestLives.exit(path, backend: 3) {
        try $0.observe("destructions", count: 36, settled: 16) { try $0.destruction() }
      }
    }
    try show(path)
  }

  private func reportPath() -> String {
    FileManager.default.temporaryDirectory.appending(path: "lives-\(UUID().uuidString)").path
  }

  /// What the other process tells, which is printed whether it ended well or not.
  private func show(_ path: String) throws {
    defer { try? FileManager.default.removeItem(atPath: path) }
    let text = try String(contentsOfFile: path, encoding: .utf8)
    print(text)
    #expect(!text.contains("failed"), "\(text)")
  }
}

/// Lives of guests, one after the other, each under a number of its own with the same images.
private final class GuestLives {
  private static let disks: Range<UInt32> = 0..<7
  /// Every guest has another number than the one before. Loopback keeps a table for each that was ever used, so
  /// they come round, as Xen's do.
  private static let numbers: UInt16 = 4
  private let world: LibxlWorld
  private let image: String
  private let pattern: String
  private var number: UInt16 = 0
  private var report = ""

  /// Ends the process: well, unless something is thrown. What there is to tell goes into a file.
  static func exit(_ path: String, backend: UInt16, _ body: (GuestLives) throws -> Void) -> Never {
    var report = ""
    var status = EXIT_SUCCESS
    do {
      let lives = try GuestLives(backend: DomainID(rawValue: backend))
      defer { report = lives.report }
      try body(lives)
    } catch {
      report += "failed: \(error)"
      status = EXIT_FAILURE
    }
    try? report.write(to: URL(filePath: path), atomically: true, encoding: .utf8)
    Glibc.exit(status)
  }

  private init(backend: DomainID) throws {
    var offer = VbdOffer()
    offer.maximumQueues = 2
    world = try LibxlWorld(backend: backend, offer: offer, threadCount: 2)
    image = try world.makeImage()
    pattern = world.path("pattern.img")
    try writePattern()
  }

  /// What the next guest writes, and the one after it is to find.
  private func writePattern() throws {
    let seed = UInt8(truncatingIfNeeded: number)
    try Data((0..<(1 << 20)).map { UInt8(truncatingIfNeeded: $0 >> 9) ^ seed }).write(
      to: URL(filePath: pattern))
  }

  private func device(_ disk: UInt32) -> UInt32 { LibxlWorld.device + 16 * disk }

  /// A guest with a raw file that all guests have in turn, and disks in memory, all of them in use.
  private func begin() throws -> (DomainID, [BlockFrontend]) {
    number += 1
    let domain = DomainID(rawValue: 100 + number % Self.numbers)
    try world.addGuest(domain)
    var frontends: [BlockFrontend] = []
    for disk in Self.disks {
      try world.toolstack.attach(domain, device(disk), params: disk == 0 ? image : "ram:1M")
      var options = BlockFrontendOptions()
      options.queueCount = 1 + Int(number) % 2
      options.persistentGrants = number % 3 != 0
      let frontend = try world.frontend(domain, device(disk), options)
      try frontend.connect(timeoutMilliseconds: worldMilliseconds)
      frontends.append(frontend)
    }
    if number > 1, let difference = try ImageTransfer().compare(path: pattern, with: frontends[0]) {
      throw WorldFailure("guest \(number) does not find what the one before wrote: \(difference)")
    }
    try writePattern()
    try ImageTransfer().copyIn(path: pattern, to: frontends[0])
    for frontend in frontends {
      for queue in frontend.queues {
        while let handle = try queue.prepare(BlockFrontRequest(.read, sectorCount: 8)) {
          queue.submit(handle)
        }
      }
      try frontend.push()
    }
    return (domain, frontends)
  }

  /// The guest ends, in order or in a panic, and comes back under another number.
  func reboot() throws {
    var (domain, frontends) = try begin()
    let isOrderly = number % 2 == 0
    for (disk, frontend) in zip(Self.disks, frontends) {
      if isOrderly { try frontend.close(timeoutMilliseconds: worldMilliseconds) }
      try world.toolstack.remove(domain, device(disk), isForced: !isOrderly)
    }
    frontends = []
    world.removeGuest(domain)
    try waitForEnd(of: domain)
  }

  /// `xl destroy`, of a guest that is killed before its disks go, or after.
  func destruction() throws {
    var guest: (domain: DomainID, frontends: [BlockFrontend])? = try begin()
    guard let domain = guest?.domain else { return }
    if number % 2 == 0 {
      guest = nil
      world.removeGuest(domain)
    }
    try withExtendedLifetime(guest) {
      for disk in Self.disks { try world.toolstack.remove(domain, device(disk), isForced: true) }
    }
    guest = nil
    world.removeGuest(domain)
    try waitForEnd(of: domain)
  }

  /// The domain's own end is Loopback's affair; ours has been seen in Closed.
  private func waitForEnd(of domain: DomainID) throws {
    try world.wait(for: "domain \(domain) to be gone") {
      try !world.store.exists("/local/domain/\(domain)") && world.host.machine.statistics.portCount == 0
    }
  }

  /// Compares what is held after `settled` and after `count` rounds.
  func observe(_ name: String, count: Int, settled: Int, _ round: (GuestLives) throws -> Void) throws {
    var start: (held: HeldResources, nodes: Set<String>)?
    for cycle in 1...count {
      try round(self)
      try world.settle()
      world.daemon.forgetLines()
      guard cycle == settled || cycle == count else { continue }
      let (held, nodes) = (try HeldResources(world.host), try world.allNodes())
      report +=
        "after \(cycle) \(name) of a guest with \(Self.disks.count) disks: \(held), nodes \(nodes.count)\n"
      guard let start else {
        start = (held, nodes)
        continue
      }
      let growth = held.growth(since: start.held, heapSlack: 64 << 10)
      let added = nodes.subtracting(start.nodes).sorted()
      guard growth.isEmpty, added.isEmpty else {
        throw WorldFailure(
          "\(name) leak: \(growth.joined(separator: ", ")) \(added); open: \(HeldResources.openFiles)")
      }
    }
    try world.daemon.stop()
  }
}
