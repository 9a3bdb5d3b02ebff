import Blkback
import Foundation
import Frontends
import RingKit
import Synchronization
import Testing

/// Files behind a disk, on each engine: what is given back, and data found by looking instead of by events.
@Suite(.serialized, .timeLimit(.minutes(10))) struct FileStoreTests {
  struct Way: Sendable, CustomTestStringConvertible {
    var engine: IOEngine
    var discardMode = DiscardMode.unmap
    var direct = DirectPolicy.preferred
    var pollNanoseconds: UInt64 = 0
    var testDescription: String {
      "\(engine), \(discardMode), direct \(direct), polls \(pollNanoseconds) ns"
    }
  }

  static let ways = [IOEngine.uring, .aio].flatMap { engine in
    DiscardMode.allCases.flatMap { mode in
      [
        Way(engine: engine, discardMode: mode, direct: .preferred),
        Way(engine: engine, discardMode: mode, direct: .never, pollNanoseconds: 200_000),
      ]
    }
  }

  /// A disk on a file, whose bytes are all 0xA5, opened as the way says.
  private func serve(_ way: Way, _ use: (FrontendWorld, BlockFrontend, String) throws -> Void) throws {
    let world = try FrontendWorld(
      threadCount: 2, engine: way.engine, pollNanoseconds: way.pollNanoseconds
    ) { (disk) throws(VbdError) in
      let (kind, location) = try StoreTable.parse(disk.image)
      var request = StoreRequest(location: location, direct: way.direct)
      request.discardMode = disk.allowsDiscard ? disk.discardMode : .off
      return try kind.open(request)
    }
    let image = try world.addDisk(
      byteCount: 4 << 20,
      nodes: way.discardMode == .off
        ? ["discard-enable": "0"] : ["discard-mode": way.discardMode.rawValue])
    // Over what is there: the daemon may have opened it, and its size counts.
    let file = try FileHandle(forUpdating: URL(filePath: image))
    try file.write(contentsOf: Data(repeating: 0xA5, count: 4 << 20))
    try file.close()
    let frontend = try world.connected()
    try use(world, frontend, image)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    #expect(world.mappedPageCount == 0)
    try world.stop()
  }

  private func blocks(_ path: String) throws -> Int {
    let status = try FileManager.default.attributesOfItem(atPath: path)
    try #require(status[.size] as? Int == 4 << 20)
    var information = stat()
    // Sound: the call fills the local variable.
    try #require(unsafe stat(path, &information) == 0)
    return Int(information.st_blocks) * 512
  }

  @Test(arguments: ways) func discardsDoWhatTheModeSays(way: Way) throws {
    try serve(way) { world, frontend, image in
      let isOffered = way.discardMode != .off
      let before = try blocks(image)
      // One sector more at either side than whole blocks.
      let status = try frontend.perform(BlockFrontRequest(.discard, sector: 1023, sectorCount: 4098))
      #expect(status == (isOffered ? .okay : .notSupported))
      let bytes = try Data(contentsOf: URL(filePath: image))
      let (first, end) = (1023 * 512, 5121 * 512)
      #expect(bytes[..<first].allSatisfy { $0 == 0xA5 } && bytes[end...].allSatisfy { $0 == 0xA5 })
      switch way.discardMode {
      case .unmap:
        #expect(bytes[(first + 512)..<(end - 512)].allSatisfy { $0 == 0 })
        #expect(try blocks(image) <= before - (2 << 20))
      case .zeroes:
        #expect(bytes[first..<end].allSatisfy { $0 == 0 })
      case .off:
        #expect(bytes.allSatisfy { $0 == 0xA5 })
        #expect(try blocks(image) >= before)
      }
      // A secure discard is not for files.
      let secure = try frontend.perform(
        BlockFrontRequest(.discard, sector: 0, sectorCount: 8, isSecure: true))
      #expect(secure != .error)
    }
  }

  @Test(arguments: [IOEngine.uring, .aio], [0, 100_000, 5_000_000])
  func mixedLoadsKeepTheirDataWhilePolling(engine: IOEngine, pollNanoseconds: UInt64) throws {
    try serve(Way(engine: engine, pollNanoseconds: pollNanoseconds)) { world, frontend, _ in
      let model = DiskModel(sectorCount: 4 << 11, seed: 0x9011)
      for depth in [1, 4, 32] {
        var load = BlockWorkload()
        load.seed = UInt64(depth)
        load.readPercent = 40
        load.blockByteCount = 4096
        load.maximumBlockCount = 11
        load.queueDepth = depth
        load.requestCount = 600
        load.writesBetweenFlushes = 50
        load.discardPercent = 5
        load.stallMilliseconds = worldMilliseconds
        let result = try load.run(on: frontend, model: model)
        #expect(result.errors == 0, "\(String(describing: result.firstError))")
        #expect(result.mismatches == 0, "\(String(describing: result.firstMismatch))")
        print(
          "\(engine), polls \(pollNanoseconds) ns, depth \(depth): \(result.notifications) events of the guest"
        )
      }
    }
  }

  @Test func whilePollingTheGuestNeedNotSendEvents() throws {
    var events: [UInt64: UInt64] = [:]
    for pollNanoseconds in [0, 10_000_000] as [UInt64] {
      try serve(Way(engine: .uring, pollNanoseconds: pollNanoseconds)) { world, frontend, _ in
        let before = frontend.notificationCount
        for number in 0..<500 {
          let status = try frontend.perform(
            BlockFrontRequest(.discard, sector: UInt64(number % 64) * 64, sectorCount: 8))
          #expect(status == .okay)
        }
        events[pollNanoseconds] = frontend.notificationCount - before
      }
    }
    print("events of the guest for 500 requests, one at a time: \(events)")
    // One at a time, every request brings an event unless somebody looks.
    #expect(events[0] == 500)
    #expect((events[10_000_000] ?? .max) < 500)
  }
}
