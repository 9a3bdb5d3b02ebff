import Blkback
import Foundation
import Frontends
import RingKit
import Testing

/// Several rings of several pages on several threads, all of one disk.
@Suite(.serialized, .timeLimit(.minutes(10))) struct FrontendRingsTests {
  /// One shape of a connection.
  struct Shape: Sendable, CustomTestStringConvertible {
    var queues: Int
    var threads: Int
    var order: Int
    var abi: BlockABI
    var persistent: Bool

    var testDescription: String {
      "\(queues) queues on \(threads) threads, order \(order), \(abi), "
        + (persistent ? "persistent" : "transient")
    }
  }

  /// Every number of queues and threads, and every ring size with few and with many queues.
  static let shapes: [Shape] = {
    var shapes: [Shape] = []
    for queues in 1...8 {
      for threads in 1...3 {
        let number = shapes.count
        shapes.append(
          Shape(
            queues: queues, threads: threads, order: number % 5, abi: BlockABI.allCases[number % 3],
            persistent: number / 2 % 2 == 0))
      }
    }
    for order in 0...4 {
      for persistent in [true, false] {
        shapes.append(
          Shape(
            queues: persistent ? 1 : 3, threads: 2, order: order, abi: persistent ? .x86_32 : .x86_64,
            persistent: persistent))
      }
    }
    return shapes
  }()

  @Test(arguments: shapes)
  func everyQueueServesTheSameDisk(shape: Shape) throws {
    var offer = VbdOffer()
    offer.maximumQueues = 8
    let world = try FrontendWorld(offer: offer, threadCount: shape.threads)
    try world.addDisk(byteCount: 1 << 20)
    var options = BlockFrontendOptions()
    options.queueCount = shape.queues
    options.ringPageOrder = shape.order
    options.abi = shape.abi
    options.persistentGrants = shape.persistent
    let frontend = try world.connected(options)
    #expect(frontend.queues.count == shape.queues)
    #expect(frontend.queues.allSatisfy { $0.slotCount == 32 << shape.order })
    let model = DiskModel(sectorCount: 1 << 11, seed: 0xABCD, initial: .zero)
    var load = BlockWorkload()
    load.readPercent = 50
    load.blockByteCount = 512
    load.maximumBlockCount = 24
    load.queueDepth = 16
    load.requestCount = 400
    load.writesBetweenFlushes = 50
    load.stallMilliseconds = worldMilliseconds
    let result = try load.run(on: frontend, model: model)
    result.expectIntegrity()
    #expect(result.requests == 400)
    // Another number of queues may follow on the same disk.
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    #expect(world.mappedPageCount == 0)
    frontend.options.queueCount = 9 - shape.queues
    try frontend.connect(timeoutMilliseconds: worldMilliseconds)
    #expect(frontend.queues.count == 9 - shape.queues)
    load.readPercent = 100
    load.pattern = .sequential
    load.requestCount = 200
    try load.run(on: frontend, model: model).expectIntegrity()
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    #expect(world.mappedPageCount == 0)
    try world.stop()
  }

  @Test func reconnectionsWithManyQueuesLoseNothing() throws {
    var offer = VbdOffer()
    offer.maximumQueues = 4
    let world = try FrontendWorld(offer: offer, threadCount: 3)
    try world.addDisk(byteCount: 1 << 20)
    var options = BlockFrontendOptions()
    options.queueCount = 4
    let frontend = try world.connected(options)
    let model = DiskModel(sectorCount: 1 << 11, seed: 17, initial: .zero)
    var load = BlockWorkload()
    load.readPercent = 40
    load.queueDepth = 16
    load.requestCount = 2000
    load.requestsBetweenReconnects = 150
    load.writesBetweenFlushes = 40
    load.stallMilliseconds = worldMilliseconds
    let result = try load.run(on: frontend, model: model)
    result.expectIntegrity()
    #expect(result.requests == 2000)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    #expect(world.mappedPageCount == 0)
    try world.stop()
  }
}
