import Blkback
import Foundation
import Frontends
import RingKit
import Testing

/// Data through the whole way, frontend to image and back, judged sector by sector.
@Suite(.serialized, .timeLimit(.minutes(10))) struct FrontendDataTests {
  /// One way to carry data.
  struct Way: Sendable, CustomTestStringConvertible {
    var abi = BlockABI.x86_64
    var persistent = true
    var lifetime = BlockFrontendOptions.GrantLifetime.connection
    var order = 0
    var writesZeroOrder = false
    var depth = 1
    var blockByteCount = 4096
    var firstPageSector = 0

    var testDescription: String {
      "\(abi), \(persistent ? "persistent" : "transient"), grants for the \(lifetime), order \(order)"
        + ", depth \(depth), \(blockByteCount) bytes from sector \(firstPageSector)"
    }

    var options: BlockFrontendOptions {
      var options = BlockFrontendOptions()
      options.abi = abi
      options.persistentGrants = persistent
      options.grantLifetime = lifetime
      options.ringPageOrder = order
      options.writesZeroRingPageOrder = writesZeroOrder
      return options
    }
  }

  static let ways: [Way] = {
    var ways: [Way] = []
    for abi in BlockABI.allCases {
      for depth in [1, 32] {
        for persistent in [true, false] {
          ways.append(Way(abi: abi, persistent: persistent, depth: depth))
        }
      }
    }
    for order in 0...4 {
      ways.append(Way(order: order, writesZeroOrder: true, depth: 32 << order, blockByteCount: 1024))
      ways.append(
        Way(abi: .x86_32, persistent: false, order: order, depth: 32 << order, blockByteCount: 1024))
    }
    for persistent in [true, false] {
      ways.append(Way(persistent: persistent, depth: 8, blockByteCount: 45056))
      ways.append(Way(persistent: persistent, depth: 16, blockByteCount: 512, firstPageSector: 5))
      ways.append(Way(persistent: persistent, depth: 16, blockByteCount: 7 * 512, firstPageSector: 3))
    }
    ways.append(Way(persistent: false, lifetime: .request, depth: 16, blockByteCount: 12288))
    return ways
  }()

  @Test(arguments: ways, [IOEngine.uring, .aio])
  func mixedLoadKeepsItsData(way: Way, engine: IOEngine) throws {
    let world = try FrontendWorld(engine: engine)
    try world.addDisk(byteCount: 1 << 20)
    let frontend = try world.connected(way.options)
    #expect(try frontend.queue().slotCount == 32 << way.order)
    let model = DiskModel(sectorCount: 1 << 11, seed: 0xD15C, initial: .zero)
    var load = BlockWorkload()
    load.readPercent = 50
    load.queueDepth = way.depth
    load.blockByteCount = way.blockByteCount
    load.firstPageSector = way.firstPageSector
    // More than a ring of each size holds, so that all of them wrap.
    let count = UInt64(max(300, (32 << way.order) * 3 / 2))
    load.requestCount = count
    load.writesBetweenFlushes = 50
    load.stallMilliseconds = worldMilliseconds
    for pattern in [BlockWorkload.Pattern.random, .sequential] {
      load.pattern = pattern
      load.seed += 1
      let result = try load.run(on: frontend, model: model)
      result.expectIntegrity()
      #expect(result.requests == count)
      #expect(result.flushes > 0)
      #expect(result.latency.count == count)
    }
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    #expect(world.mappedPageCount == 0)

    // What was written is still there for the next connection.
    try frontend.connect(timeoutMilliseconds: worldMilliseconds)
    load.readPercent = 100
    load.pattern = .sequential
    load.requestCount = UInt64((1 << 20) / way.blockByteCount)
    try load.run(on: frontend, model: model).expectIntegrity()
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
  }

  @Test(arguments: [true, false])
  func reconnectingWithRequestsInFlightLosesNothing(persistent: Bool) throws {
    let world = try FrontendWorld()
    try world.addDisk(byteCount: 4 << 20)
    var options = BlockFrontendOptions()
    options.persistentGrants = persistent
    let frontend = try world.connected(options)
    let model = DiskModel(sectorCount: 4 << 11, seed: 3, initial: .zero)
    var load = BlockWorkload()
    load.readPercent = 40
    load.queueDepth = 32
    load.requestCount = 4000
    load.requestsBetweenReconnects = 100
    load.stallMilliseconds = worldMilliseconds
    let result = try load.run(on: frontend, model: model)
    result.expectIntegrity()
    #expect(result.requests == 4000)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    #expect(world.mappedPageCount == 0)
    try world.stop()
  }

  @Test func aChangedByteIsNoticed() throws {
    let world = try FrontendWorld()
    let image = try world.addDisk(byteCount: 1 << 20)
    let frontend = try world.connected()
    let model = DiskModel(sectorCount: 1 << 11, seed: 5, initial: .zero)
    var load = BlockWorkload()
    load.pattern = .sequential
    load.readPercent = 0
    load.queueDepth = 4
    load.requestCount = 128
    load.stallMilliseconds = worldMilliseconds
    #expect(try load.run(on: frontend, model: model).writes == 128)
    let file = try FileHandle(forUpdating: URL(filePath: image))
    for offset: UInt64 in [300 * 512 + 511, 1500 * 512] {
      try file.seek(toOffset: offset)
      try file.write(contentsOf: [0xA5])
    }
    try file.close()
    load.readPercent = 100
    load.requestCount = 256
    let result = try load.run(on: frontend, model: model)
    #expect(result.mismatches == 2)
    #expect(result.firstMismatch?.sector == 300)
    #expect(result.verifiedSectors == 2048)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
  }

  @Test func lookingForAWhileBeforeSleepingFindsAnswersToo() throws {
    let world = try FrontendWorld()
    try world.addDisk(byteCount: 1 << 20)
    var options = BlockFrontendOptions()
    options.spinNanoseconds = 200_000
    let frontend = try world.connected(options)
    var load = BlockWorkload()
    load.requestCount = 500
    load.stallMilliseconds = worldMilliseconds
    #expect(try load.run(on: frontend).reads == 500)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
  }

  @Test func bothABIsTakeTurnsOnOneDisk() throws {
    let world = try FrontendWorld()
    try world.addDisk(byteCount: 1 << 20)
    let frontend = try world.frontend()
    let model = DiskModel(sectorCount: 1 << 11, seed: 9, initial: .zero)
    var load = BlockWorkload()
    load.readPercent = 50
    load.queueDepth = 8
    load.requestCount = 200
    load.stallMilliseconds = worldMilliseconds
    for turn in 0..<6 {
      frontend.options.abi = turn % 2 == 0 ? .x86_32 : .x86_64
      frontend.options.ringPageOrder = turn % 3
      try frontend.connect(timeoutMilliseconds: worldMilliseconds)
      try load.run(on: frontend, model: model).expectIntegrity()
      try frontend.close(timeoutMilliseconds: worldMilliseconds)
    }
    try world.stop()
  }

  @Test func twoQueuesOnTwoThreadsServeOneDisk() throws {
    var offer = VbdOffer()
    offer.maximumQueues = 2
    let world = try FrontendWorld(offer: offer, threadCount: 2)
    try world.addDisk(byteCount: 1 << 20)
    var options = BlockFrontendOptions()
    options.queueCount = 4
    options.ringPageOrder = 1
    let frontend = try world.connected(options)
    #expect(frontend.queues.count == 2)
    var data = [UInt8](repeating: 0, count: 512)
    for round in 0..<50 {
      for (number, queue) in frontend.queues.enumerated() {
        let request = BlockFrontRequest(.write, sector: UInt64(2 * round + number), sectorCount: 1)
        let handle = try #require(try queue.prepare(request))
        for index in data.indices { data[index] = UInt8(2 * round + number) }
        // Sound: bytes have no padding.
        queue.copyIn(unsafe data.span.bytes, to: handle, at: 0)
        queue.submit(handle)
      }
      try frontend.push()
      for _ in 0..<2 {
        let completion = try frontend.answer()
        #expect(completion.response.status == .okay)
        frontend.release(try #require(completion.handle))
      }
    }
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
    let image = try Data(contentsOf: URL(filePath: world.path("7-51712.img")))
    for sector in 0..<100 {
      #expect(image[sector * 512..<sector * 512 + 512].allSatisfy { $0 == UInt8(sector) }, "sector \(sector)")
    }
  }

  @Test func imagesGoInComeOutAndCompare() throws {
    let world = try FrontendWorld()
    let image = try world.addDisk(byteCount: 4 << 20)
    let frontend = try world.connected()
    // Neither a whole number of requests nor of sectors.
    var generator = SeededGenerator(seed: 4)
    let bytes = Data((0..<(3 << 20) + 777).map { _ in UInt8(truncatingIfNeeded: generator.next()) })
    let (source, result) = (world.path("source"), world.path("result"))
    try bytes.write(to: URL(filePath: source))
    let transfer = ImageTransfer()
    #expect(try transfer.copyIn(path: source, to: frontend, sector: 8) == UInt64(bytes.count))
    #expect(try transfer.compare(path: source, with: frontend, sector: 8) == nil)
    try transfer.copyOut(from: frontend, sector: 8, byteCount: UInt64(bytes.count), path: result)
    #expect(try Data(contentsOf: URL(filePath: result)) == bytes)

    let stored = try Data(contentsOf: URL(filePath: image))
    #expect(stored[4096..<4096 + bytes.count] == bytes)
    #expect(stored[..<4096].allSatisfy { $0 == 0 })
    #expect(stored[(4096 + bytes.count)...].allSatisfy { $0 == 0 })

    // One byte, in the sector where it is.
    var changed = bytes
    changed[1_000_000] ^= 1
    try changed.write(to: URL(filePath: source))
    #expect(try transfer.compare(path: source, with: frontend, sector: 8) == 8 + 1_000_000 / 512)
    #expect(throws: BlockFrontendError.self) {
      try transfer.copyIn(path: source, to: frontend, sector: 7 << 11)
    }
    #expect(throws: BlockFrontendError.self) { try transfer.copyIn(path: world.path("none"), to: frontend) }
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
  }
}
