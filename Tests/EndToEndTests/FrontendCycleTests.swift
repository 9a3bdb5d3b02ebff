import Blkback
import Foundation
import Frontends
import Glibc
import Loopback
import RingKit
import Testing

/// Disks that come and go hundreds of times leave nothing behind. Each test has a process of its own, so that
/// the descriptors and the memory it counts are its own.
@Suite(.serialized, .timeLimit(.minutes(10))) struct FrontendCycleTests {
  @Test func twoHundredAttachmentsLeaveNothing() async throws {
    let report = Report()
    await #expect(processExitsWith: .success) { [path = report.path as String] in
      Cycles.exit(path) { try $0.attachments(count: 200, settled: 20) }
    }
    try report.show()
  }

  @Test func fiftyReconnectionsWithRequestsInFlightLeaveNothing() async throws {
    let report = Report()
    await #expect(processExitsWith: .success) { [path = report.path as String] in
      Cycles.exit(path) { try $0.reconnections(count: 50, settled: 10) }
    }
    try report.show()
  }

  /// What the other process tells, which is printed whether it ended well or not.
  private struct Report {
    let path = FileManager.default.temporaryDirectory.appending(path: "cycles-\(UUID().uuidString)").path

    func show() throws {
      defer { try? FileManager.default.removeItem(atPath: path) }
      let text = try String(contentsOfFile: path, encoding: .utf8)
      print(text)
      #expect(!text.contains("failed"), "\(text)")
    }
  }
}

/// Goes through connections of every shape, over every kind of store.
private final class Cycles {
  private let world: FrontendWorld
  /// What `params` may say.
  private var images: [String]
  /// Serves one of them.
  private let server: NBDTestServer
  private var number = 0
  private var report = ""

  /// Ends the process: well, unless something is thrown. What there is to tell goes into a file.
  static func exit(_ path: String, _ body: (Cycles) throws -> Void) -> Never {
    var report = ""
    var status = EXIT_SUCCESS
    do {
      let cycles = try Cycles()
      defer {
        cycles.server.kill()
        report = cycles.report
      }
      try body(cycles)
    } catch {
      report += "failed: \(error)"
      status = EXIT_FAILURE
    }
    try? report.write(to: URL(filePath: path), atomically: true, encoding: .utf8)
    Glibc.exit(status)
  }

  private init() throws {
    var offer = VbdOffer()
    offer.maximumQueues = 4
    world = try FrontendWorld(offer: offer, threadCount: 2)
    let image = world.path("cycles.img")
    _ = FileManager.default.createFile(atPath: image, contents: nil)
    let file = try FileHandle(forWritingTo: URL(filePath: image))
    try file.truncate(atOffset: 1 << 20)
    try file.close()
    let (socket, qcow2) = (world.path("nbd"), world.path("cycles.qcow2"))
    images = ["raw:\(image)", "ram:1M", "null:1M", "raw:\(image)", "ram:1M", "raw:\(image)"]
    server = try NBDTestServer.nbdkit(["memory", "size=1M"], socket: socket)
    images.append("nbd:unix:\(socket)")
    try run("/usr/bin/qemu-img", ["create", "-q", "-f", "qcow2", qcow2, "1M"])
    images += ["raw:\(image)", "null:1M", "qcow2:\(qcow2)"]
  }

  /// The shape of connection `number`.
  private func options(_ number: Int) -> BlockFrontendOptions {
    var options = BlockFrontendOptions()
    options.queueCount = 1 + number % 4
    options.ringPageOrder = number / 4 % 3
    options.abi = BlockABI.allCases[number % 3]
    options.persistentGrants = number % 2 == 0
    options.grantLifetime = number % 5 == 0 ? .request : .connection
    return options
  }

  private func load(_ count: UInt64) -> BlockWorkload {
    var load = BlockWorkload()
    load.readPercent = 50
    load.maximumBlockCount = 11
    load.queueDepth = 8
    load.requestCount = count
    load.writesBetweenFlushes = 10
    load.stallMilliseconds = worldMilliseconds
    return load
  }

  /// Attaches a disk, uses it, and takes it away, now in good order, now with requests in flight.
  private func attachment() throws {
    number += 1
    try world.addDisk(nodes: ["params": images[number % images.count]])
    var frontend: BlockFrontend? = try world.connected(options(number))
    _ = try frontend.map { try load(40).run(on: $0) }
    switch number % 3 {
    case 0:
      // The guest leaves.
      try frontend?.close(timeoutMilliseconds: worldMilliseconds)
      try world.detach()
      _ = try frontend?.waitUntilForgotten(world)
    case 1:
      // The toolstack asks, while requests are in flight.
      try frontend?.leaveRequestsInFlight()
      try world.detach()
      try frontend?.close(timeoutMilliseconds: worldMilliseconds)
      _ = try frontend?.waitUntilForgotten(world)
    default:
      // It is taken away by force, while requests are in flight.
      try frontend?.leaveRequestsInFlight()
    }
    frontend = nil
    try world.removeDisk()
    try world.waitUntilUnmapped()
  }

  func attachments(count: Int, settled: Int) throws {
    try observe("attachments", count: count, settled: settled) { try attachment() }
    try world.stop()
  }

  func reconnections(count: Int, settled: Int) throws {
    try world.addDisk(byteCount: 1 << 20)
    let model = DiskModel(sectorCount: 1 << 11, seed: 50, initial: .zero)
    let frontend = try world.connected(options(3))
    try observe("reconnections", count: count, settled: settled) {
      number += 1
      var load = load(100)
      load.seed = UInt64(number)
      load.requestsBetweenReconnects = 60
      let result = try load.run(on: frontend, model: model)
      guard result.mismatches == 0, result.errors == 0 else {
        throw WorldFailure(
          "\(String(describing: result.firstMismatch)), \(String(describing: result.firstError))")
      }
    }
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
  }

  /// Compares what is held after `settled` and after `count` rounds.
  private func observe(_ name: String, count: Int, settled: Int, _ round: () throws -> Void) throws {
    var start: HeldResources?
    for cycle in 1...count {
      try round()
      world.daemon.forgetLines()
      guard cycle == settled || cycle == count else { continue }
      let held = try HeldResources(world.host)
      report += "after \(cycle) \(name): \(held)\n"
      guard let start else {
        start = held
        continue
      }
      let growth = held.growth(since: start, heapSlack: 64 << 10)
      guard growth.isEmpty else { throw WorldFailure("\(name) leak: \(growth.joined(separator: ", "))") }
    }
  }
}

extension BlockFrontend {
  /// Fills every ring with reads and does not wait for them.
  fileprivate func leaveRequestsInFlight() throws {
    for queue in queues {
      while let handle = try queue.prepare(BlockFrontRequest(.read, sectorCount: 8)) { queue.submit(handle) }
    }
    try push()
  }

  /// Waits until the backend has closed and does not come back.
  fileprivate func waitUntilForgotten(_ world: FrontendWorld) throws {
    _ = try world.waitForState(.closed)
  }
}

extension FrontendWorld {
  /// Takes both directories of the usual disk away at once, as libxl does by force.
  fileprivate func removeDisk() throws {
    try toolstack.transaction { tree throws(StoreError) in
      try tree.remove("/local/domain/\(Self.guest)/device/vbd/\(Self.device)")
      try tree.remove(backendPath())
    }
  }

  /// Waits until the backend's state is as wanted.
  fileprivate func waitForState(_ wanted: XenbusState) throws -> Bool {
    try wait("\(backendPath())/state to become \(wanted)") {
      try toolstack.state("\(backendPath())/state") == wanted
    }
  }

  /// Waits until the backend has let go of all pages and knows no disk.
  fileprivate func waitUntilUnmapped() throws {
    _ = try wait("all pages to be unmapped") {
      mappedPageCount == 0 && host.machine.statistics.portCount == 0
    }
  }

  private func wait(_ what: String, _ isDone: () throws -> Bool) throws -> Bool {
    let deadline = ContinuousClock.now + .milliseconds(worldMilliseconds)
    while try !isDone() {
      guard .now < deadline else {
        throw WorldFailure("waited for \(what); \(host.machine.statistics), log \(daemon.lines.suffix(5))")
      }
      sched_yield()
    }
    return true
  }
}
