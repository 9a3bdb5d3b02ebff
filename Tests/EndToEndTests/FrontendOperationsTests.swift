import Blkback
import Frontends
import RingKit
import Testing

/// Every operation there is, mixed, in every layout and with every kind of grant, judged sector by sector.
@Suite(.serialized, .timeLimit(.minutes(10))) struct FrontendOperationsTests {
  /// One way to carry requests.
  struct Way: Sendable, CustomTestStringConvertible {
    var abi: BlockABI
    var persistent: Bool
    var lifetime = BlockFrontendOptions.GrantLifetime.connection
    var directSegments = 11
    var queues = 1
    var order = 0
    var image = "raw"
    var engine = IOEngine.automatic

    var testDescription: String {
      "\(abi), \(persistent ? "persistent" : "transient"), grants for the \(lifetime), \(directSegments) direct "
        + "segments, \(queues) queues, order \(order), \(image), \(engine)"
    }
  }

  static let ways: [Way] = {
    var ways: [Way] = []
    for abi in BlockABI.allCases {
      for persistent in [true, false] {
        ways.append(Way(abi: abi, persistent: persistent))
        ways.append(Way(abi: abi, persistent: persistent, lifetime: .request, directSegments: 0))
        ways.append(
          Way(abi: abi, persistent: persistent, directSegments: 3, queues: 3, order: 1, image: "forgetful"))
      }
    }
    ways.append(Way(abi: .x86_64, persistent: true, queues: 2, image: "ram:4M"))
    ways.append(Way(abi: .x86_32, persistent: false, queues: 2, image: "ram:4M"))
    ways.append(Way(abi: .x86_64, persistent: true, queues: 2, engine: .aio))
    ways.append(Way(abi: .x86_32, persistent: false, queues: 2, engine: .aio))
    return ways
  }()

  private func world(_ way: Way) throws -> FrontendWorld {
    var offer = VbdOffer()
    offer.maximumQueues = 4
    offer.barrier = true
    offer.discard = true
    offer.indirectSegments = 256
    // A store whose calls end late and out of order, and which zeroes what is discarded.
    let disk = try CuttableDisk(byteCount: 4 << 20, callsBeforeCut: .max, seed: 1)
    let world = try FrontendWorld(offer: offer, threadCount: 2, engine: way.engine) {
      (configuration) throws(VbdError) in
      way.image == "forgetful" ? CuttableStore(disk) : try configuration.openStore()
    }
    try world.addDisk(
      byteCount: 4 << 20, nodes: way.image.contains(":") ? ["params": way.image] : [:])
    return world
  }

  @Test(arguments: ways) func everyOperationKeepsTheDisksContents(way: Way) throws {
    let world = try world(way)
    var options = BlockFrontendOptions()
    options.abi = way.abi
    options.persistentGrants = way.persistent
    options.grantLifetime = way.lifetime
    options.directSegments = way.directSegments
    options.queueCount = way.queues
    options.ringPageOrder = way.order
    options.maximumIndirectSegments = 256
    let frontend = try world.connected(options)
    let features = try #require(frontend.features)
    #expect(features.barrier && features.flush)
    #expect(try frontend.queue().maximumSectorCount == 2048)
    if way.image == "forgetful" { #expect(features.discard && features.discardGranularityByteCount == 512) }
    let model = DiskModel(sectorCount: 4 << 11, seed: 0xAB, initial: .zero)
    var load = BlockWorkload()
    load.readPercent = 45
    load.barrierPercent = 8
    load.flushWithDataPercent = 8
    load.discardPercent = features.discard ? 10 : 0
    load.writesBetweenFlushes = 20
    load.queueDepth = 8
    load.stallMilliseconds = worldMilliseconds
    var (orderedWrites, discards) = (UInt64(0), UInt64(0))
    // Up to 1 MiB, in small and in large steps; then what a few pages hold, with gaps at their begin.
    for (block, most, first, count) in [
      (4096, 256, 0, 60), (512, 400, 0, 120), (512, 96, 5, 200),
    ] as [(Int, Int, Int, UInt64)] {
      load.blockByteCount = block
      load.maximumBlockCount = most
      load.firstPageSector = first
      load.requestCount = count
      load.seed += 1
      let result = try load.run(on: frontend, model: model)
      result.expectIntegrity()
      #expect(result.requests == count)
      #expect(result.indirectRequests > 0)
      orderedWrites += result.orderedWrites
      discards += result.discards
    }
    #expect(orderedWrites > 5)
    #expect(discards > 5 || !features.discard)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    #expect(world.mappedPageCount == 0)
    try world.stop()
  }

  /// Everything at once while the frontend leaves and comes back.
  @Test(arguments: [true, false]) func reconnectionsInTheMiddleLoseNothing(persistent: Bool) throws {
    let world = try world(Way(abi: .x86_64, persistent: persistent, image: "forgetful"))
    var options = BlockFrontendOptions()
    options.persistentGrants = persistent
    options.queueCount = 3
    let frontend = try world.connected(options)
    let model = DiskModel(sectorCount: 4 << 11, seed: 3, initial: .zero)
    var load = BlockWorkload()
    load.readPercent = 40
    load.barrierPercent = 10
    load.flushWithDataPercent = 10
    load.discardPercent = 10
    load.blockByteCount = 512
    load.maximumBlockCount = 128
    load.queueDepth = 16
    load.requestCount = 1000
    load.requestsBetweenReconnects = 90
    load.stallMilliseconds = worldMilliseconds
    let result = try load.run(on: frontend, model: model)
    result.expectIntegrity()
    #expect(result.requests == 1000 && result.discards > 0)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    #expect(world.mappedPageCount == 0)
    try world.stop()
  }
}
