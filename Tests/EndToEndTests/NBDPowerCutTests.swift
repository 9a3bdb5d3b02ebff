import Blkback
import Foundation
import Frontends
import RingKit
import Testing

/// What a flush acknowledged survives when the server behind a disk dies with its cache: nbdkit's cache filter
/// keeps writes to itself until a flush.
@Suite(.serialized, .timeLimit(.minutes(10))) struct NBDPowerCutTests {
  private static let byteCount = 1 << 20

  /// Writes and flushes, kills the server between two loads, and judges what it left; sectors that were wrong.
  /// With a server that ignores flushes it ends there.
  private func run(isHonest: Bool, persistent: Bool) throws -> UInt64 {
    let world = try FrontendWorld()
    let (socket, image) = (world.path("nbd"), world.path("served"))
    _ = FileManager.default.createFile(atPath: image, contents: nil)
    let file = try FileHandle(forWritingTo: URL(filePath: image))
    try file.truncate(atOffset: UInt64(Self.byteCount))
    try file.close()
    let words = ["file", image, "cache=\(isHonest ? "writeback" : "unsafe")"]
    let server = try NBDTestServer.nbdkit(words, socket: socket, options: ["--filter=cache"])
    defer { server.kill() }
    try world.addDisk(nodes: ["params": "nbd:unix:\(socket)"])
    var options = BlockFrontendOptions()
    options.persistentGrants = persistent
    let frontend = try world.connected(options)
    let model = DiskModel(sectorCount: Self.byteCount / 512, seed: 6, initial: .zero, tracksFlushes: true)
    var mismatches: UInt64 = 0
    for round in 1...5 {
      var load = BlockWorkload()
      load.seed = UInt64(round)
      load.readPercent = 10
      load.blockByteCount = 4096
      load.maximumBlockCount = 8
      load.queueDepth = 8
      load.flushWithDataPercent = 5
      load.barrierPercent = frontend.features?.barrier == true ? 5 : 0
      load.writesBetweenFlushes = 10
      load.requestCount = 60 + UInt64(round * 37 % 50)
      load.stallMilliseconds = worldMilliseconds
      try load.run(on: frontend, model: model).expectIntegrity()
      server.kill()
      let left = world.path("left-\(round)")
      try FileManager.default.copyItem(atPath: image, toPath: left)
      try server.start()
      let cut = model.afterPowerCut()
      mismatches += try judge(left, cut)
      guard isHonest else { break }
      // The daemon lives and has its journal: for the guest nothing at all is lost.
      load.readPercent = 100
      load.requestCount = 40
      try load.run(on: frontend, model: model).expectIntegrity()
    }
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
    return mismatches
  }

  /// Reads a whole image as another guest would.
  private func judge(_ image: String, _ model: DiskModel) throws -> UInt64 {
    let world = try FrontendWorld()
    try world.addDisk(nodes: ["params": "raw:\(image)"])
    let frontend = try world.connected()
    var load = BlockWorkload()
    load.pattern = .sequential
    load.blockByteCount = 32768
    load.requestCount = UInt64(Self.byteCount / 32768)
    load.stallMilliseconds = worldMilliseconds
    let result = try load.run(on: frontend, model: model)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
    #expect(result.verifiedSectors == UInt64(Self.byteCount / 512))
    return result.mismatches
  }

  @Test(arguments: [true, false]) func nothingThatAFlushAcknowledgedIsLost(persistent: Bool) throws {
    #expect(try run(isHonest: true, persistent: persistent) == 0)
  }

  /// The check can fail: a server that ignores flushes is found out.
  @Test func aServerThatLiesIsFoundOut() throws {
    #expect(try run(isHonest: false, persistent: true) > 0)
  }
}
