import Netback
import RingKit
import Simulator
import Testing

/// Random walks of the real queue with a guest that obeys netif.h in what it shows and nothing else.
@Suite struct RxWalkTests {
  struct Walk: Sendable, CustomTestStringConvertible {
    var name: String
    var accepted: NetOffloads = [.scatterGather]
    var faults = FaultPlan()
    var badPages = 0
    var bufferByteCount = 4 << 20
    var sendsEvents = true
    var tellsHashes = false
    var changesHeadroom = false
    var postsLittle = false
    var testDescription: String { name }
  }

  static var walks: [Walk] {
    var flaky = FaultPlan()
    flaky.copyFailure = 20
    flaky.allocationFailure = 100
    return [
      Walk(name: "plain"),
      Walk(name: "one slot a packet", accepted: []),
      Walk(name: "posts little", postsLittle: true),
      Walk(name: "no events, posts little", sendsEvents: false, postsLittle: true),
      Walk(name: "bad pages", badPages: 10),
      Walk(name: "faults, bad pages, little memory", faults: flaky, badPages: 5, bufferByteCount: 128 << 10),
      Walk(name: "hashes, headroom that changes", tellsHashes: true, changesHeadroom: true),
      Walk(
        name: "everything", faults: flaky, badPages: 5, bufferByteCount: 256 << 10, tellsHashes: true,
        changesHeadroom: true, postsLittle: true),
    ]
  }

  @Test(arguments: walks, [0xFFFF_FFF0, 0xFFFF_FF01] as [UInt32])
  func walk(_ walk: Walk, index: UInt32) throws {
    let walker = try Walker(walk, index: index, seed: UInt64(index) &+ 17)
    for _ in 0..<1500 { try walker.step() }
    try walker.finish()
    #expect(walker.trouble.isEmpty, "\(walker.trouble.prefix(5))")
    #expect(walker.arrivedCount > (walk.postsLittle ? 100 : 300), "\(walker.world.counters)")
    let drops = walker.world.counters.drops
    #expect((drops[.copyFailed] > 0) == (walk.badPages > 0), "\(drops)")
    if walk.postsLittle { #expect(drops[.expired] + drops[.backlogFull] > 0, "\(drops)") }
    #expect((drops[.severalSlots] > 0) == walk.accepted.isEmpty)
    #expect(drops[.stalled] + drops[.brokenRing] + drops[.badLength] + drops[.offload] == 0, "\(drops)")
  }

  /// One seed is one story.
  @Test func oneSeedIsOneStory() throws {
    let walk = try #require(Self.walks.last)
    let walkers = try (0..<2).map { _ in try Walker(walk, index: 0xFFFF_FFF0, seed: 5) }
    for walker in walkers {
      for _ in 0..<800 { try walker.step() }
    }
    #expect(walkers[0].world.counters == walkers[1].world.counters)
    #expect(walkers[0].world.turnCount == walkers[1].world.turnCount)
    #expect(
      walkers[0].world.ringPages.copyBytes(at: 0, count: 4096)
        == walkers[1].world.ringPages.copyBytes(at: 0, count: 4096))
  }

  /// A guest that writes anything into its ring's page at any time: the queue works on or is broken for good,
  /// nothing traps, memory stays bounded and comes back.
  @Test(arguments: 0..<40 as Range<UInt64>)
  func trap47_aGuestThatWritesAnything(seed: UInt64) throws {
    var numbers = SeededNumbers(seed: seed)
    var setup = SimulatedNetRxWorld.Setup()
    setup.backlogByteLimit = 128 << 10
    setup.headroom = [0, 256, 4000][Int(seed % 3)]
    let world = try SimulatedNetRxWorld(setup)
    var producer = setup.index
    for step in 0..<400 as Range<UInt64> {
      switch Int.random(in: 0..<8, using: &numbers) {
      case 0, 1:
        // Honest indices over slots with any contents.
        producer &+= UInt32.random(in: 0...8, using: &numbers)
        RxFixture.setWord(producer, at: 0, of: world.ringPages)
      case 2 where numbers.chance(1, in: 12):
        RxFixture.setWord(numbers.any(UInt32.self), at: 0, of: world.ringPages)
      case 3:
        let offset = Int.random(in: 1..<1024, using: &numbers) * 4
        RxFixture.setWord(numbers.any(UInt32.self), at: offset, of: world.ringPages)
      case 4: world.kick()
      case 5: world.host.now += UInt64.random(in: 0...4_000_000_000, using: &numbers)
      default:
        world.bring(
          RxFrameBytes.frame(step, byteCount: Int.random(in: 14...20_000, using: &numbers)))
      }
      let before = world.counters.slots
      world.run()
      #expect(world.counters.slots - before <= 256)
      #expect(world.host.liveByteCount <= 128 << 10)
    }
    #expect(world.host.violations.isEmpty)
    let counters = world.counters
    #expect(
      counters.packets + counters.drops.total + UInt64(world.waitingCount) == world.broughtCount)
    world.line.beginClosing(host: &world.host)
    world.run()
    #expect(world.host.liveByteCount == 0)
  }
}

/// One walk: what the link brought against what the frontend saw.
final class Walker {
  let world: SimulatedNetRxWorld
  let walk: RxWalkTests.Walk
  var numbers: SeededNumbers
  private(set) var trouble: [String] = []
  private(set) var arrivedCount = 0
  private var sizes: [Int] = []
  private var lastArrived: UInt64?

  init(_ walk: RxWalkTests.Walk, index: UInt32, seed: UInt64) throws {
    var setup = SimulatedNetRxWorld.Setup()
    setup.seed = seed
    setup.index = index
    setup.accepted = walk.accepted
    setup.sendsEvents = walk.sendsEvents
    setup.tellsHashes = walk.tellsHashes
    setup.bufferByteCount = walk.bufferByteCount
    setup.backlogCapacity = 40
    setup.backlogByteLimit = min(RxBacklog.defaultByteLimit, walk.bufferByteCount / 2)
    world = try SimulatedNetRxWorld(setup)
    world.host.faults = walk.faults
    self.walk = walk
    numbers = SeededNumbers(seed: seed &* 977)
  }

  func step() throws {
    switch Int.random(in: 0..<20, using: &numbers) {
    case 0..<9: bring()
    case 9..<12: post(Int.random(in: 0...(walk.postsLittle ? 3 : 24), using: &numbers))
    case 12..<16: runIfDue()
    case 16..<18: try collect()
    case 18: world.pass(UInt64.random(in: 0...200_000_000, using: &numbers))
    default:
      if walk.postsLittle && numbers.chance(1, in: 8) {
        world.pass(UInt64.random(in: 0...15_000_000_000, using: &numbers))
      } else if walk.changesHeadroom {
        let headroom = [0, 256, 0, 17, 2000][Int.random(in: 0..<5, using: &numbers)]
        world.reconfigure(
          NetRxConfiguration(
            accepted: walk.accepted, headroom: headroom, tellsHashes: walk.tellsHashes))
      } else if numbers.chance(1, in: 5) {
        world.kick()
      }
    }
    if world.host.liveByteCount > walk.bufferByteCount { trouble.append("too much memory") }
    if world.waitingByteCount > world.line.backlog.byteLimit { trouble.append("too much waits") }
  }

  private func bring() {
    let byteCount =
      numbers.chance(1, in: 2)
      ? Int.random(in: 22...1514, using: &numbers) : Int.random(in: 22...65535, using: &numbers)
    var offload = PacketOffload()
    if numbers.chance(1, in: 2) {
      offload.hash = NetHash(type: .ipv4, algorithm: 1, value: numbers.any(UInt32.self))
    }
    let number = UInt64(sizes.count)
    let start = NetPacket.headroomByteCount + Int.random(in: 0...4095, using: &numbers)
    if world.bring(RxFrameBytes.frame(number, byteCount: byteCount), offload: offload, start: start) {
      sizes.append(byteCount)
    }
  }

  private func post(_ count: Int) {
    for _ in 0..<count {
      var kind = SimulatedNetRxFrontend.Page.granted
      if numbers.chance(walk.badPages, in: 1000) { kind = numbers.chance(1, in: 2) ? .bad : .readOnly }
      world.frontend.post(1, kind)
    }
    // Without feature-rx-notify no event is sent.
    if world.frontend.push() && walk.sendsEvents { world.kick() }
  }

  /// A turn for a cause; the link's packets are one, since the queue flushes after them.
  private func runIfDue() {
    let before = world.counters.slots
    world.run()
    if world.counters.slots - before > 256 { trouble.append("too much work in a turn") }
    if case .broken = world.lastTurn { trouble.append("broken") }
  }

  private func collect() throws {
    try world.frontend.collect()
    for frame in world.frontend.frames {
      let number = RxFrameBytes.number(of: frame.bytes)
      arrivedCount += 1
      guard number < UInt64(sizes.count), frame.bytes.count == sizes[Int(number)],
        frame.bytes == RxFrameBytes.frame(number, byteCount: sizes[Int(number)])
      else {
        trouble.append("a frame of \(frame.bytes.count) bytes that was never sent")
        continue
      }
      if let lastArrived, number <= lastArrived { trouble.append("\(number) after \(lastArrived)") }
      lastArrived = number
    }
    world.frontend.frames = []
  }

  /// The guest posts all it has; on events and deadlines alone everything that waits arrives or expires.
  func finish() throws {
    world.run()
    for _ in 0..<40 {
      if !world.settle() { trouble.append("turns without end") }
      try collect()
      post(256)
      world.pass(walk.sendsEvents ? 0 : RxStall.pollNanoseconds)
    }
    try collect()
    if world.waitingCount > 0 { trouble.append("\(world.waitingCount) wait for ever") }
    if world.host.liveByteCount != 0 { trouble.append("memory is held") }
    trouble += world.host.violations + world.frontend.violations
    let counters = world.counters
    if counters.packets != UInt64(arrivedCount) { trouble.append("\(counters.packets) packets counted") }
    if counters.packets + counters.drops.total != UInt64(sizes.count) {
      trouble.append("\(sizes.count) brought, \(counters) counted")
    }
    if counters.drops[.copyFailed] != UInt64(world.frontend.failedCount) {
      trouble.append("\(world.frontend.failedCount) packets failed")
    }
    if counters.slots != UInt64(world.frontend.answeredCount) { trouble.append("slots counted wrong") }
  }
}
