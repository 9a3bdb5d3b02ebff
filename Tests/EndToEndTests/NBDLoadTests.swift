import Foundation
import Frontends
import RingKit
import Synchronization
import Testing

@testable import Blkback

/// Guests' data on servers and in formatted images, judged sector by sector, while servers are killed.
@Suite(.serialized, .timeLimit(.minutes(10))) struct NBDLoadTests {
  /// A place for a disk's data.
  enum Medium: String, CaseIterable, Sendable {
    case raw, qcow2, vpc, nbdkit, small, fua, tcp, tls
  }

  static let byteCount = 32 << 20
  private static let ports = Atomic(0)

  /// All that a disk can do.
  static var offer: VbdOffer {
    var offer = VbdOffer()
    (offer.discard, offer.barrier, offer.indirectSegments) = (true, true, 32)
    return offer
  }

  /// Data in the guest's own pages, or in buffers of ours.
  static func options(persistent: Bool) -> BlockFrontendOptions {
    var options = BlockFrontendOptions()
    options.persistentGrants = persistent
    return options
  }

  /// Starts a server in the world's directory, and tells where.
  private func server(_ medium: Medium, in world: FrontendWorld) throws -> (NBDTestServer, String) {
    let (socket, image) = (world.path("nbd"), world.path("served"))
    let size = "\(Self.byteCount)"
    switch medium {
    case .raw, .qcow2, .vpc:
      let options = medium == .vpc ? ["-o", "force_size=on"] : []
      try run(
        "/usr/bin/qemu-img", ["create", "-q", "-f", medium.rawValue] + options + [image, size])
      let server = try NBDTestServer.qemu(image, format: medium.rawValue, socket: socket)
      return (server, "nbd:unix:\(socket)")
    case .nbdkit, .small, .fua:
      _ = FileManager.default.createFile(atPath: image, contents: nil)
      try FileHandle(forWritingTo: URL(filePath: image)).truncate(atOffset: UInt64(Self.byteCount))
      var options: [String] = []
      if medium == .small {
        options = ["--filter=blocksize-policy"]
      }
      var words = ["file", image]
      if medium == .small {
        words += [
          "blocksize-minimum=4096", "blocksize-preferred=4096", "blocksize-maximum=8192",
          "blocksize-error-policy=error",
        ]
      }
      if medium == .fua {
        options = ["--filter=fua"]
        words += ["fuamode=force"]
      }
      let server = try NBDTestServer.nbdkit(words, socket: socket, options: options)
      return (server, "nbd:unix:\(socket)")
    case .tcp:
      try run("/usr/bin/qemu-img", ["create", "-q", "-f", "raw", image, size])
      let port = 20000 + Int(getpid()) % 10000 + Self.ports.add(1, ordering: .relaxed).newValue
      let server = try NBDTestServer(
        "/usr/bin/qemu-nbd", ["-t", "-f", "raw", "-b", "127.0.0.1", "-p", "\(port)", image],
        pidOption: ["--pid-file=\(socket).pid"], pidFile: "\(socket).pid")
      return (server, "nbd:127.0.0.1:\(port)")
    case .tls:
      let keys = world.path("keys")
      try "alice:\(String(repeating: "0123456789abcdef", count: 4))\n".write(
        toFile: keys, atomically: true, encoding: .utf8)
      let server = try NBDTestServer.nbdkit(
        ["memory", "size=\(size)"], socket: socket, options: ["--tls=require", "--tls-psk=\(keys)"])
      return (server, "nbds+unix://alice@/?socket=\(socket)&tls-psk-file=\(keys)")
    }
  }

  private func load(_ seed: UInt64) -> BlockWorkload {
    var load = BlockWorkload()
    load.readPercent = 40
    load.discardPercent = 5
    load.queueDepth = 16
    load.maximumBlockCount = 8
    load.seed = seed
    load.stallMilliseconds = worldMilliseconds
    return load
  }

  private var model: DiskModel {
    DiskModel(sectorCount: Self.byteCount / 512, seed: 0x4E42_44, initial: .zero)
  }

  /// Reads the whole disk and judges it.
  private func readAll(_ frontend: BlockFrontend, _ model: DiskModel) throws {
    var load = BlockWorkload()
    load.pattern = .sequential
    load.blockByteCount = 32768
    load.queueDepth = 16
    load.requestCount = UInt64(Self.byteCount / 32768)
    load.stallMilliseconds = worldMilliseconds
    try load.run(on: frontend, model: model).expectIntegrity()
  }

  @Test(arguments: Medium.allCases)
  func everyOperationKeepsItsData(medium: Medium) throws {
    let world = try FrontendWorld(offer: Self.offer)
    let (server, parameters) = try server(medium, in: world)
    try world.addDisk(nodes: ["params": parameters])
    let frontend = try world.connected(Self.options(persistent: medium != .nbdkit))
    let model = model
    for (seed, firstPageSector) in [(UInt64(1), 0), (2, 5)] {
      var load = load(seed)
      // A file that is synchronised for each write takes its time.
      load.requestCount = medium == .fua ? 200 : 1500
      load.firstPageSector = firstPageSector
      load.blockByteCount = firstPageSector == 0 ? 4096 : 1536
      load.writesBetweenFlushes = 50
      load.flushWithDataPercent = 5
      load.discardPercent = 5
      load.barrierPercent = 5
      let result = try load.run(on: frontend, model: model)
      result.expectIntegrity()
      #expect(result.flushes > 0 && result.writes > 0)
    }
    try readAll(frontend, model)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
    _ = server
  }

  /// Kills something over and over while a load runs.
  private func runWhileKilling(
    _ load: BlockWorkload, on frontend: BlockFrontend, model: DiskModel, times: Int,
    kill: @escaping @Sendable () throws -> Void
  ) throws {
    let killed = DispatchSemaphore(value: 0)
    let trouble = Mutex<String?>(nil)
    let isOver = Atomic(false)
    let thread = Thread {
      do {
        for _ in 0..<times where !isOver.load(ordering: .relaxed) {
          var poll = DescriptorPoll()
          poll.set([])
          _ = try poll.wait(timeoutMilliseconds: 60)
          try kill()
        }
      } catch {
        trouble.withLock { $0 = "\(error)" }
      }
      killed.signal()
    }
    defer { isOver.store(true, ordering: .relaxed) }
    thread.start()
    var seed = load.seed
    repeat {
      var part = load
      part.seed = seed
      part.requestCount = 400
      do {
        try part.run(on: frontend, model: model).expectIntegrity()
      } catch {
        throw WorldFailure("\(error); the killer: \(trouble.withLock { $0 } ?? "fine")")
      }
      seed += 1
    } while killed.wait(timeout: .now()) != .success
    if let trouble = trouble.withLock({ $0 }) { throw WorldFailure(trouble) }
  }

  /// A formatted image keeps its metadata in the server's memory until a flush: without the journal, writes
  /// that were completed are gone with it.
  @Test(arguments: [Medium.qcow2, .raw, .tcp], [0, 200] as [UInt64])
  func aKilledServerIsOnlyLatency(medium: Medium, writesBetweenFlushes: UInt64) throws {
    let world = try FrontendWorld(offer: Self.offer)
    let (server, parameters) = try server(medium, in: world)
    try world.addDisk(nodes: ["params": parameters])
    let frontend = try world.connected()
    let model = model
    var load = load(11)
    load.writesBetweenFlushes = writesBetweenFlushes
    try runWhileKilling(load, on: frontend, model: model, times: 12) {
      server.kill()
      try server.start()
    }
    try readAll(frontend, model)
    #expect(world.daemon.lines.contains { $0.message.contains("connecting again") })
    #expect(world.daemon.lines.contains { $0.message.contains("connected again") })
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
  }

  /// A journal too small for the load makes writes wait for our own flushes, and loses nothing.
  @Test func aSmallJournalThrottles() throws {
    let path = "rb-journal-\(UUID().uuidString.prefix(8))"
    let socket = FileManager.default.temporaryDirectory.appending(path: path).path
    let image = "\(socket).qcow2"
    defer {
      for name in [socket, image, "\(socket).pid"] { try? FileManager.default.removeItem(atPath: name) }
    }
    let world = try FrontendWorld(
      offer: Self.offer,
      opening: { (disk) throws(VbdError) in
        try NBDStore(
          address: .unix(path: socket, export: ""), name: "small journal",
          request: StoreRequest(location: socket), journalByteCount: 128 << 10)
      })
    try run("/usr/bin/qemu-img", ["create", "-q", "-f", "qcow2", image, "\(Self.byteCount)"])
    let server = try NBDTestServer.qemu(image, format: "qcow2", socket: socket)
    try world.addDisk()
    let frontend = try world.connected()
    let model = model
    try runWhileKilling(load(5), on: frontend, model: model, times: 6) {
      server.kill()
      try server.start()
    }
    try readAll(frontend, model)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
  }

  // MARK: QEMU's storage daemon

  /// The storage daemons that this process started for an image.
  static func helpers(for place: String) -> [pid_t] {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
    return names.compactMap { pid_t($0) }.filter { process in
      guard let bytes = FileManager.default.contents(atPath: "/proc/\(process)/cmdline") else { return false }
      let text = String(decoding: bytes, as: UTF8.self)
      return text.hasPrefix("\(QEMUImage.program)\0") && text.contains(place)
    }
  }

  @Test(arguments: ["qcow2", "vhd", "vhdx", "vmdk"])
  func formattedImagesAreServed(format: String) throws {
    let world = try FrontendWorld(offer: Self.offer)
    let image = world.path("image with , and space.\(format)")
    let driver = format == "vhd" ? "vpc" : format
    let options = format == "vhd" ? ["-o", "force_size=on"] : []
    try run("/usr/bin/qemu-img", ["create", "-q", "-f", driver] + options + [image, "\(Self.byteCount)"])
    try world.addDisk(nodes: ["params": "\(format):\(image)"])
    let frontend = try world.connected()
    let helper = try #require(Self.helpers(for: world.path("")).first)
    let status = try String(contentsOfFile: "/proc/\(helper)/status", encoding: .utf8)
    #expect(status.contains("NoNewPrivs:\t1"))
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
      #expect(status.contains("\(set):\t0000000000000000"))
    }
    let model = model
    var load = load(21)
    load.requestCount = 1500
    load.writesBetweenFlushes = 100
    try load.run(on: frontend, model: model).expectIntegrity()
    try readAll(frontend, model)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
    #expect(waitUntil { Self.helpers(for: world.path("")).isEmpty }, "a helper outlived its disk")
    // What was written is in the image, in its format, and the image is in order.
    let text = try run("/usr/bin/qemu-img", ["map", "--output=json", "-f", driver, image])
    #expect(text.contains("\"data\": true"))
    if format != "vhd" { try run("/usr/bin/qemu-img", ["check", "-q", "-f", driver, image]) }
  }

  @Test(.enabled(if: geteuid() == 0, "only root can give a helper to another user"))
  func aHelperRunsAsTheImagesOwner() throws {
    let world = try FrontendWorld(offer: Self.offer)
    let image = world.path("disk.qcow2")
    try run("/usr/bin/qemu-img", ["create", "-q", "-f", "qcow2", image, "\(Self.byteCount)"])
    unsafe chown(image, 12345, 23456)
    unsafe chmod(image, 0o600)
    unsafe chmod(world.path(""), 0o755)
    try world.addDisk(nodes: ["params": "qcow2:\(image)"])
    let frontend = try world.connected()
    let helper = try #require(Self.helpers(for: world.path("")).first)
    let status = try String(contentsOfFile: "/proc/\(helper)/status", encoding: .utf8)
    #expect(status.contains("Uid:\t12345\t12345\t12345\t12345"))
    #expect(status.contains("Gid:\t23456\t23456\t23456\t23456"))
    #expect(status.contains("CapBnd:\t0000000000000000"))
    #expect(try frontend.perform(BlockFrontRequest(.write, sector: 0, sectorCount: 8)) == .okay)
    let open = try FileManager.default.contentsOfDirectory(atPath: "/proc/\(helper)/fd").count
    #expect(open < 24, "the helper has \(open) descriptors")
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
  }

  @Test func aKilledHelperIsStartedAgain() throws {
    let world = try FrontendWorld(offer: Self.offer)
    let image = world.path("disk.qcow2")
    try run("/usr/bin/qemu-img", ["create", "-q", "-f", "qcow2", image, "\(Self.byteCount)"])
    try world.addDisk(nodes: ["params": "qcow2:\(image)"])
    let frontend = try world.connected()
    let model = model
    let kills = Atomic(0)
    let place = world.path("")
    try runWhileKilling(load(31), on: frontend, model: model, times: 10) {
      for process in Self.helpers(for: place) {
        if Glibc.kill(process, SIGKILL) == 0 { kills.add(1, ordering: .relaxed) }
      }
    }
    #expect(kills.load(ordering: .relaxed) >= 3)
    try readAll(frontend, model)
    #expect(world.daemon.lines.contains { $0.message.contains("ended by signal 9") })
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
    #expect(waitUntil { Self.helpers(for: world.path("")).isEmpty })
    // A kill may leave a cluster that nothing refers to, which costs room and no data; all else is an error.
    try run("/usr/bin/qemu-img", ["check", "-q", "-r", "leaks", "-f", "qcow2", image])
  }
}
