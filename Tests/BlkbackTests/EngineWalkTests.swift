import Blkback
import RingKit
import Simulator
import Testing

/// Random walks of the real engine against a model disk, under faults, in every configuration that changes
/// its path.
struct EngineWalkTests {
  struct Walk: Sendable, CustomTestStringConvertible {
    var name: String
    var abi = BlockABI.x86_64
    var persistent = false
    var sectorByteCount = 512
    var medium = MediumGeometry(blockByteCount: 512, memoryAlignment: 1)
    var bufferByteCount = 4 << 20
    var discardUnitByteCount = 512
    var faults = FaultPlan()
    var testDescription: String { name }
  }

  static var walks: [Walk] {
    var flaky = FaultPlan.everything
    flaky.allocationFailure = 200
    var losing = FaultPlan.everything
    losing.flushError = 50
    let direct = MediumGeometry(blockByteCount: 4096, memoryAlignment: 512)
    let strict = MediumGeometry(blockByteCount: 4096, memoryAlignment: 4096)
    let single = MediumGeometry(blockByteCount: 512, memoryAlignment: 1, takesVectors: false)
    return [
      Walk(name: "copy"),
      Walk(name: "copy, faults", faults: .everything),
      Walk(name: "copy, one buffer", bufferByteCount: 128 << 10),
      Walk(name: "copy, one buffer, faults", bufferByteCount: 128 << 10, faults: flaky),
      Walk(name: "persistent", persistent: true),
      Walk(name: "persistent, faults", persistent: true, faults: .everything),
      Walk(
        name: "persistent, one buffer, faults", persistent: true, bufferByteCount: 128 << 10, faults: flaky),
      Walk(
        name: "persistent, one piece of memory at a time, faults", persistent: true, medium: single,
        discardUnitByteCount: 4096, faults: .everything),
      Walk(name: "512 on 4096", medium: direct, discardUnitByteCount: 2048),
      Walk(name: "512 on 4096, faults", medium: direct, faults: .everything),
      Walk(
        name: "512 on 4096, one buffer, faults", medium: direct, bufferByteCount: 128 << 10, faults: flaky),
      Walk(name: "512 on 4096, persistent, faults", persistent: true, medium: strict, faults: .everything),
      Walk(
        name: "4096 on 4096, persistent, faults", persistent: true, sectorByteCount: 4096, medium: strict,
        discardUnitByteCount: 8192, faults: .everything),
      Walk(name: "losing data", faults: losing),
      Walk(name: "losing data, 512 on 4096, persistent", persistent: true, medium: direct, faults: losing),
    ]
  }

  /// Every walk in every layout, which is the seed as well.
  @Test(arguments: walks, BlockABI.allCases)
  func walk(_ walk: Walk, _ abi: BlockABI) throws {
    let seed = UInt64(abi.rawValue) + 1
    var walk = walk
    walk.abi = abi
    let (world, guest) = try Self.take(walk, seed)
    #expect(guest.verdict().isEmpty, "\(guest.verdict().prefix(5))")
    let answers = guest.tally
    let wanted = ["read okay", "indirect read okay", "write okay", "indirect write okay", "discard okay"]
    for kind in wanted { #expect(answers[kind, default: 0] > 0, "\(kind): \(answers)") }
    if walk.faults.flushError == 0 {
      #expect(answers["flush okay", default: 0] > 20 && world.host.fenceErrno == nil, "\(answers)")
      #expect(answers["write barrier okay", default: 0] > 20, "\(answers)")
    } else {
      #expect(world.host.fenceErrno == 5 && answers["write error", default: 0] > 30, "\(answers)")
      #expect(world.heldCount > 1 && answers["flush error", default: 0] > 5, "\(answers)")
    }
  }

  /// One seed is one story: whatever differs between two runs of it comes from hidden chance.
  @Test(arguments: walks.suffix(2))
  func oneSeedIsOneStory(_ walk: Walk) throws {
    let (first, firstGuest) = try Self.take(walk, 3)
    let (second, secondGuest) = try Self.take(walk, 3)
    #expect(first.counters == second.counters && first.turnCount == second.turnCount)
    #expect(firstGuest.tally == secondGuest.tally)
    #expect((0..<1024).allSatisfy { first.disk.sector($0) == second.disk.sector($0) })
    #expect(first.ringPages.copyBytes(at: 0, count: 4096) == second.ringPages.copyBytes(at: 0, count: 4096))
  }

  private static func take(_ walk: Walk, _ seed: UInt64) throws -> (BlockWorld, WalkingGuest) {
    let limits = try BlockLimits(
      sectorCount: 1024, sectorByteCount: walk.sectorByteCount,
      offered: [.flush, .barrier, .discard, .indirect], maximumIndirectSegments: 24)
    var setup = BlockWorld.Setup(limits: limits)
    setup.seed = seed
    setup.abi = walk.abi
    setup.usesPersistentGrants = walk.persistent
    setup.medium = walk.medium
    setup.bufferByteCount = walk.bufferByteCount
    setup.discardSupport = DiscardSupport(
      unitByteCount: walk.discardUnitByteCount, chunkByteCount: 16384)
    let world = try BlockWorld(setup)
    world.host.faults = walk.faults
    let guest = WalkingGuest(
      world: world, limits: limits, reusesGrants: walk.persistent, seed: seed &* 977)
    for _ in 0..<3000 {
      switch Int.random(in: 0..<10, using: &world.numbers) {
      case 0..<3:
        var count = Int.random(in: 1...8, using: &world.numbers)
        while count > 0 && guest.placeSomething() { count -= 1 }
        if world.numbers.chance(3, in: 4) { world.push() }
      case 3..<5: world.complete(upTo: Int.random(in: 1...6, using: &world.numbers))
      case 5..<8: world.runIfDue()
      case 8: try guest.checkResponses()
      default: if world.numbers.chance(1, in: 5) { world.kick() }
      }
      #expect(world.inFlightCount <= world.slotCount)
    }
    world.push()
    #expect(world.settle() == nil)
    try guest.checkResponses()
    return (world, guest)
  }
}
