import Blkback
import RingKit
import Simulator
import Testing

/// Disks with several queues: what a flush or barrier on one of them promised of all survives a power cut at
/// any point, in every configuration that changes the engine's path.
struct QueueWorldTests {
  struct Walk: Sendable, CustomTestStringConvertible {
    var name: String
    var queueCount = 3
    var persistent = false
    var mixesGrants = false
    var sectorByteCount = 512
    var medium = MediumGeometry(blockByteCount: 512, memoryAlignment: 1)
    var bufferByteCount = 4 << 20
    var faults = FaultPlan()
    var testDescription: String { name }
  }

  static var walks: [Walk] {
    let direct = MediumGeometry(blockByteCount: 4096, memoryAlignment: 512)
    let strict = MediumGeometry(blockByteCount: 4096, memoryAlignment: 4096)
    var losing = FaultPlan.everything
    losing.flushError = 30
    return [
      Walk(name: "copy, two queues", queueCount: 2),
      Walk(name: "copy, four queues, faults", queueCount: 4, faults: .everything),
      Walk(name: "persistent", persistent: true),
      Walk(name: "persistent, faults", persistent: true, faults: .everything),
      Walk(
        name: "both, one buffer each, faults", mixesGrants: true, bufferByteCount: 64 << 10,
        faults: .everything),
      Walk(name: "512 on 4096, two queues", queueCount: 2, medium: direct),
      Walk(name: "512 on 4096, four queues, faults", queueCount: 4, medium: direct, faults: .everything),
      Walk(name: "512 on 4096, persistent", queueCount: 4, persistent: true, medium: strict),
      Walk(
        name: "512 on 4096, both, one buffer each, faults", mixesGrants: true, medium: direct,
        bufferByteCount: 64 << 10, faults: .everything),
      Walk(
        name: "4096 on 4096, persistent, faults", persistent: true, sectorByteCount: 4096, medium: strict,
        faults: .everything),
      Walk(name: "losing data", faults: losing),
      Walk(name: "losing data, 512 on 4096, both", mixesGrants: true, medium: direct, faults: losing),
    ]
  }

  @Test(arguments: walks, [1, 2])
  func nothingPromisedIsLost(_ walk: Walk, _ seed: UInt64) throws {
    let guest = try Self.take(walk, seed)
    let verdict = guest.verdict()
    #expect(verdict.isEmpty, "\(verdict.prefix(5))")
    let tally = guest.tally
    #expect(tally["power cuts", default: 0] >= 10 && tally["promises", default: 0] > 30, "\(tally)")
    #expect(tally["sectors at risk", default: 0] > 100, "\(tally)")
    #expect(tally["write barrier okay", default: 0] > 5 && tally["read okay", default: 0] > 50, "\(tally)")
  }

  /// One seed is one story: whatever differs between two runs of it comes from hidden chance.
  @Test(arguments: [walks[4], walks[8]]) func oneSeedIsOneStory(_ walk: Walk) throws {
    let (first, second) = (try Self.take(walk, 9), try Self.take(walk, 9))
    #expect(first.tally == second.tally && first.complaints == second.complaints)
    #expect((0..<Self.sectorCount).allSatisfy { first.world.disk.sector($0) == second.world.disk.sector($0) })
  }

  static let sectorCount = 256

  static func world(_ walk: Walk, _ seed: UInt64) throws -> (MultiQueueWorld, BlockLimits) {
    let limits = try BlockLimits(
      sectorCount: UInt64(sectorCount), sectorByteCount: walk.sectorByteCount, offered: [.flush, .barrier])
    var setup = BlockWorld.Setup(limits: limits)
    setup.seed = seed
    setup.usesPersistentGrants = walk.persistent
    setup.medium = walk.medium
    setup.bufferByteCount = walk.bufferByteCount
    setup.guestPageCount = 64
    let world = try MultiQueueWorld(
      setup, queueCount: walk.queueCount, faults: walk.faults, mixesGrants: walk.mixesGrants)
    return (world, limits)
  }

  private static func take(_ walk: Walk, _ seed: UInt64) throws -> QueuesGuest {
    let (world, limits) = try world(walk, seed)
    let guest = QueuesGuest(world: world, limits: limits, seed: seed &* 977)
    for round in 0..<14 {
      for _ in 0..<Int.random(in: 20...300, using: &world.numbers) {
        try step(world, guest)
      }
      if round % 4 == 3 {
        for queue in world.queues { queue.push() }
        if let still = world.settle() { Issue.record("\(still)") }
        for queue in world.queues.indices { try guest.check(queue: queue) }
      }
      try guest.cutPower()
    }
    for _ in 0..<200 { try step(world, guest) }
    for queue in world.queues { queue.push() }
    if let still = world.settle() { Issue.record("\(still)") }
    for queue in world.queues.indices { try guest.check(queue: queue) }
    return guest
  }

  private static func step(_ world: MultiQueueWorld, _ guest: QueuesGuest) throws {
    let queue = Int.random(in: 0..<world.queues.count, using: &world.numbers)
    switch Int.random(in: 0..<20, using: &world.numbers) {
    case 0..<6:
      for _ in 0..<Int.random(in: 1...4, using: &world.numbers) { guest.place(on: queue) }
      if world.numbers.chance(3, in: 4) { world.queues[queue].push() }
    case 6..<10: world.queues[queue].complete(upTo: Int.random(in: 1...4, using: &world.numbers))
    case 10..<16: world.queues[queue].runIfDue()
    case 16..<19: try guest.check(queue: queue)
    default: world.disk.writeBackSome(&world.numbers)
    }
  }

  /// Writes answered on one queue, a flush on another: the power is cut at every single step after that.
  @Test(arguments: [BlockOperation.flush, .writeBarrier], [false, true])
  func aFlushCoversTheOtherQueues(_ operation: BlockOperation, hasData: Bool) throws {
    var promiseCount = 0
    for seed: UInt64 in 1...30 {
      let (world, limits) = try Self.world(Walk(name: "directed"), seed)
      let guest = QueuesGuest(world: world, limits: limits, seed: seed)
      for queue in 0..<3 {
        guest.placeTransfer(.write, on: queue, at: queue * 16..<queue * 16 + 16)
        world.queues[queue].push()
      }
      #expect(world.settle() == nil)
      for queue in 0..<3 { try guest.check(queue: queue) }
      let flusher = Int(seed % 3)
      if hasData {
        guest.placeTransfer(operation, on: flusher, at: 100..<116)
      } else {
        guest.placeEmpty(operation, on: flusher)
      }
      world.queues[flusher].push()
      // As many steps as the seed says, from none to all.
      for _ in 0..<seed % 10 {
        world.queues[flusher].runIfDue()
        if seed > 15 { world.queues[flusher].complete(upTo: 1) }
      }
      try guest.check(queue: flusher)
      try guest.cutPower()
      #expect(guest.complaints.isEmpty, "seed \(seed): \(guest.complaints.prefix(2))")
      promiseCount += guest.tally["promises", default: 0]
    }
    #expect((5...25).contains(promiseCount), "\(promiseCount) of 30 were cut after the answer")
  }

  /// Single sectors of the same blocks written on four queues at once all arrive, and nobody sleeps for ever.
  @Test(arguments: [false, true]) func partsOfOneBlockOnManyQueues(_ persistent: Bool) throws {
    for seed: UInt64 in 1...30 {
      let medium = MediumGeometry(blockByteCount: 4096, memoryAlignment: 4096)
      let (world, limits) = try Self.world(
        Walk(name: "directed", queueCount: 4, persistent: persistent, medium: medium), seed)
      let guest = QueuesGuest(world: world, limits: limits, seed: seed)
      for sector in 0..<32 {
        #expect(guest.placeTransfer(.write, on: sector % 4, at: sector..<sector + 1))
      }
      for queue in world.queues { queue.push() }
      #expect(world.settle() == nil)
      for queue in 0..<4 { try guest.check(queue: queue) }
      #expect(guest.verdict().isEmpty, "seed \(seed): \(guest.verdict().prefix(3))")
    }
  }
}
