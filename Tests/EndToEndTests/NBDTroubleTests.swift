import Foundation
import Frontends
import RingKit
import Testing

@testable import Blkback

/// Servers that go away, come back as something else, or fail.
@Suite(.serialized, .timeLimit(.minutes(10))) struct NBDTroubleTests {
  static let byteCount = 8 << 20

  /// A world with a disk on a server that a test kills.
  private struct Place {
    let world: FrontendWorld
    let server: NBDTestServer
    let socket: String
    let image: String
  }

  private func place(
    _ format: String, closingNanoseconds: UInt64 = 30_000_000_000, journalByteCount: Int = 1 << 20
  ) throws -> Place {
    let socket = FileManager.default.temporaryDirectory.appending(
      path: "rb-nbd-\(UUID().uuidString.prefix(8))"
    ).path
    let world = try FrontendWorld(opening: { (disk) throws(VbdError) in
      try NBDStore(
        address: .unix(path: socket, export: ""), name: "the server",
        request: StoreRequest(location: socket), journalByteCount: journalByteCount,
        closingNanoseconds: closingNanoseconds)
    })
    let image = world.path("served")
    try run("/usr/bin/qemu-img", ["create", "-q", "-f", format, image, "\(Self.byteCount)"])
    let server = try NBDTestServer.qemu(image, format: format, socket: socket)
    try world.addDisk()
    return Place(world: world, server: server, socket: socket, image: image)
  }

  private func load(_ count: UInt64) -> BlockWorkload {
    var load = BlockWorkload()
    load.readPercent = 30
    load.queueDepth = 8
    load.requestCount = count
    load.stallMilliseconds = worldMilliseconds
    return load
  }

  private var model: DiskModel { DiskModel(sectorCount: Self.byteCount / 512, seed: 3, initial: .zero) }

  private func hears(_ place: Place, _ words: String) -> Bool {
    waitUntil { place.world.daemon.lines.contains { $0.message.contains(words) } }
  }

  /// Submits some requests that nobody answers now.
  private func submitWrites(_ frontend: BlockFrontend, count: Int) throws -> [RequestHandle] {
    let handles = try (0..<count).map { index in
      try #require(
        try frontend.submit(BlockFrontRequest(.write, sector: UInt64(index) * 8, sectorCount: 8)))
    }
    try frontend.push()
    return handles
  }

  @Test func aDiskWhoseServerIsGoneCanBeDetached() throws {
    let place = try place("raw", closingNanoseconds: 200_000_000)
    let frontend = try place.world.connected()
    place.server.kill()
    _ = try submitWrites(frontend, count: 5)
    #expect(hears(place, "trying again until it answers"))
    #expect(try frontend.nextCompletion() == nil)
    try place.world.detach()
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    #expect(place.world.mappedPageCount == 0)
    try place.world.stop()
  }

  @Test func aDaemonStopsThoughAServerIsGone() throws {
    let place = try place("raw", closingNanoseconds: 200_000_000)
    let frontend = try place.world.connected()
    _ = try submitWrites(frontend, count: 1)
    _ = try frontend.answer()
    place.server.kill()
    _ = try submitWrites(frontend, count: 3)
    #expect(hears(place, "trying again until it answers"))
    try place.world.stop()
  }

  @Test func aFrozenServerIsOnlyLatency() throws {
    let place = try place("qcow2")
    let frontend = try place.world.connected()
    place.server.freeze(true)
    let handles = try submitWrites(frontend, count: 8)
    try place.world.kickAndWait(frontend)
    #expect(try frontend.nextCompletion() == nil)
    place.server.freeze(false)
    for _ in handles { #expect(try frontend.answer().response.status == .okay) }
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try place.world.stop()
  }

  @Test func nonsenseInTheServersPlaceIsWaitedOut() throws {
    let place = try place("qcow2")
    let frontend = try place.world.connected()
    let model = model
    try load(300).run(on: frontend, model: model).expectIntegrity()
    place.server.kill()
    unsafe unlink(place.socket)
    let nonsense = try NBDFakeServer(path: place.socket) { connection in
      _ = try? connection.write(ArraySlice([UInt8](repeating: 0x42, count: 512)))
      return false
    }
    let handle = try #require(try frontend.submit(BlockFrontRequest(.read, sectorCount: 8)))
    try frontend.push()
    #expect(hears(place, "trying again until it answers"))
    #expect(try frontend.nextCompletion() == nil)
    nonsense.stop()
    try place.server.start()
    #expect(try frontend.answer().handle == handle)
    frontend.release(handle)
    try load(300).run(on: frontend, model: model).expectIntegrity()
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try place.world.stop()
  }

  @Test func anotherDiskInTheServersPlaceIsRefused() throws {
    let place = try place("raw")
    let frontend = try place.world.connected()
    #expect(try frontend.perform(BlockFrontRequest(.write, sectorCount: 8)) == .okay)
    place.server.kill()
    try run("/usr/bin/qemu-img", ["resize", "-q", "-f", "raw", place.image, "16M"])
    try place.server.start()
    #expect(try frontend.perform(BlockFrontRequest(.read, sectorCount: 8)) == .error)
    #expect(hears(place, "it is not the same disk"))
    #expect(try frontend.perform(BlockFrontRequest(.write, sectorCount: 8)) == .error)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try place.world.stop()
  }

  /// The journal belongs to the disk: what an earlier frontend wrote is written again too.
  @Test func aKilledServerLosesNothingBetweenTwoFrontends() throws {
    let place = try place("qcow2")
    let model = model
    for _ in 0..<3 {
      let frontend = try place.world.connected()
      try load(300).run(on: frontend, model: model).expectIntegrity()
      // The server is killed in the moment after the frontend left, with or without our last flush.
      try frontend.close(timeoutMilliseconds: worldMilliseconds)
      place.server.kill()
      try place.server.start()
    }
    let frontend = try place.world.connected()
    var all = BlockWorkload()
    all.pattern = .sequential
    all.blockByteCount = 32768
    all.requestCount = UInt64(Self.byteCount / 32768)
    try all.run(on: frontend, model: model).expectIntegrity()
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try place.world.stop()
  }

  /// A server whose flush fails has lost what it took; nobody is told anything else, ever.
  @Test(arguments: [1 << 20, 64 << 10])
  func aFailedFlushFencesTheDisk(journalByteCount: Int) throws {
    let socket = FileManager.default.temporaryDirectory.appending(
      path: "rb-nbd-\(UUID().uuidString.prefix(8))"
    ).path
    let server = try NBDTestServer.nbdkit(
      [
        "eval", "get_size=echo 8M", "pread=head -c $3 /dev/zero", "pwrite=cat > /dev/null",
        "can_flush=exit 0", "flush=echo EIO the medium is gone >&2; exit 1",
      ], socket: socket)
    let world = try FrontendWorld(opening: { (disk) throws(VbdError) in
      try NBDStore(
        address: .unix(path: socket, export: ""), name: "the server",
        request: StoreRequest(location: socket), journalByteCount: journalByteCount)
    })
    try world.addDisk()
    let frontend = try world.connected()
    let isOurs = journalByteCount < 1 << 20
    if isOurs {
      // Our own flush, when the journal fills up, is the first to meet it.
      var statuses: [BlockStatus] = []
      for index in 0..<32 {
        let write = BlockFrontRequest(.write, sector: UInt64(index) * 8, sectorCount: 8)
        statuses.append(try frontend.perform(write))
      }
      #expect(statuses.first == .okay && statuses.last == .error)
      #expect(
        waitUntil { world.daemon.lines.contains { $0.message.contains("the server had taken is lost") } })
    } else {
      #expect(try frontend.perform(BlockFrontRequest(.write, sectorCount: 8)) == .okay)
    }
    // The flush is never answered, and writes fail from then on; reads go on.
    let flush = try #require(try frontend.submit(BlockFrontRequest(.flush)))
    try frontend.push()
    #expect(
      waitUntil { world.daemon.lines.contains { $0.message.contains("lost data that the guest wrote") } })
    #expect(try frontend.perform(BlockFrontRequest(.write, sectorCount: 8)) == .error)
    #expect(try frontend.perform(BlockFrontRequest(.read, sectorCount: 8)) == .okay)
    _ = flush
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
    _ = server
  }

  @Test func anExportThatGrowsIsNoticed() throws {
    let world = try FrontendWorld()
    let (socket, file) = (world.path("nbd"), world.path("served"))
    try run("/usr/bin/qemu-img", ["create", "-q", "-f", "raw", file, "8M"])
    let server = try NBDTestServer.nbdkit(["file", file], socket: socket)
    try world.addDisk(nodes: ["params": "nbd:unix:\(socket)"])
    let frontend = try world.connected()
    #expect(try frontend.perform(BlockFrontRequest(.write, sectorCount: 8)) == .okay)
    try run("/usr/bin/qemu-img", ["resize", "-q", "-f", "raw", file, "16M"])
    #expect(try world.resize().get() == 16 << 11)
    #expect(
      try frontend.perform(BlockFrontRequest(.write, sector: (16 << 11) - 8, sectorCount: 8)) == .okay)
    #expect(try frontend.perform(BlockFrontRequest(.read, sectorCount: 8)) == .okay)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
    _ = server
  }

  /// With other writers there is no journal, which would write over what they wrote: each write is durable.
  @Test func aSharedDiskWritesDurably() throws {
    let world = try FrontendWorld()
    let (socket, log) = (world.path("nbd"), world.path("log"))
    let server = try NBDTestServer.nbdkit(
      ["memory", "size=8M", "logfile=\(log)"], socket: socket, options: ["--filter=log"])
    for (mode, flags) in [("w", "fua=0"), ("w!", "fua=1")] {
      try world.addDisk(nodes: ["params": "nbd:unix:\(socket)", "mode": mode], replacing: mode == "w!")
      let frontend = try world.connected()
      #expect(try frontend.perform(BlockFrontRequest(.write, sectorCount: 8)) == .okay)
      #expect(try frontend.perform(BlockFrontRequest(.flush)) == .okay)
      try frontend.close(timeoutMilliseconds: worldMilliseconds)
      let lines = try String(contentsOfFile: log, encoding: .utf8).split(separator: "\n")
      let last = try #require(lines.last { $0.contains(" Write ") && !$0.contains("...Write") })
      #expect(last.contains(flags), "\(last)")
    }
    #expect(world.daemon.lines.contains { $0.message.contains("shared with other writers") })
    try world.stop()
    _ = server
  }

  @Test func discardedRangesReadAsZerosOnRequest() throws {
    let world = try FrontendWorld(offer: NBDLoadTests.offer)
    let (socket, image) = (world.path("nbd"), world.path("served"))
    try Data(repeating: 0xFF, count: Self.byteCount).write(to: URL(filePath: image))
    let server = try NBDTestServer.qemu(image, format: "raw", socket: socket)
    try world.addDisk(nodes: ["params": "nbd:unix:\(socket)", "discard-mode": "zeroes"])
    let frontend = try world.connected()
    let (first, count) = (1000, 3000)
    #expect(
      try frontend.perform(BlockFrontRequest(.discard, sector: UInt64(first), sectorCount: count)) == .okay)
    #expect(try frontend.perform(BlockFrontRequest(.flush)) == .okay)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
    let bytes = try Data(contentsOf: URL(filePath: image))
    let zeros = first * 512..<(first + count) * 512
    #expect(bytes[zeros].allSatisfy { $0 == 0 })
    #expect(bytes[..<zeros.lowerBound].allSatisfy { $0 == 0xFF })
    #expect(bytes[zeros.upperBound...].allSatisfy { $0 == 0xFF })
    _ = server
  }

  @Test func aReadOnlyImageIsNotChanged() throws {
    let world = try FrontendWorld()
    let image = world.path("disk.qcow2")
    try run("/usr/bin/qemu-img", ["create", "-q", "-f", "qcow2", image, "\(Self.byteCount)"])
    let before = try Data(contentsOf: URL(filePath: image))
    try world.addDisk(nodes: ["params": "qcow2:\(image)", "mode": "r"])
    let frontend = try world.connected()
    #expect(try frontend.perform(BlockFrontRequest(.read, sectorCount: 8)) == .okay)
    #expect(try frontend.perform(BlockFrontRequest(.write, sectorCount: 8)) == .error)
    for process in NBDLoadTests.helpers(for: world.path("")) { kill(process, SIGKILL) }
    #expect(try frontend.perform(BlockFrontRequest(.read, sectorCount: 8)) == .okay)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
    #expect(try Data(contentsOf: URL(filePath: image)) == before)
  }

  /// Pausing lets the image go, and others may change it; QEMU's own lock says so.
  @Test func aPausedImageCanBeChangedByOthers() throws {
    let world = try FrontendWorld()
    let image = world.path("disk.qcow2")
    try run("/usr/bin/qemu-img", ["create", "-q", "-f", "qcow2", image, "\(Self.byteCount)"])
    try world.addDisk(nodes: ["params": "qcow2:\(image)"])
    let frontend = try world.connected()
    let model = model
    try load(300).run(on: frontend, model: model).expectIntegrity()
    #expect(throws: WorldFailure.self) { try run("/usr/bin/qemu-img", ["snapshot", "-c", "one", image]) }
    #expect(try world.pause() == nil)
    #expect(waitUntil { (try? run("/usr/bin/qemu-img", ["snapshot", "-c", "one", image])) != nil })
    #expect(try world.resume() == nil)
    try load(300).run(on: frontend, model: model).expectIntegrity()
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
    #expect(waitUntil { NBDLoadTests.helpers(for: world.path("")).isEmpty })
    try run("/usr/bin/qemu-img", ["check", "-q", image])
  }
}
