import Netback
import RingKit
import Simulator
import Testing

/// Random walks of the real transmit engine with a guest that keeps no rule for long: its frames, answers and
/// faults against a model, under failing copies, short buffers and short credit.
struct TxWalkTests {
  struct Walk: Sendable, CustomTestStringConvertible {
    var name: String
    var copyFailure = 0
    var allocationFailure = 0
    var bufferByteCount = 4 << 20
    var isRated = false
    var holdsFrames = false
    var testDescription: String { name }
  }

  static let walks = [
    Walk(name: "plain"), Walk(name: "failing copies", copyFailure: 30),
    Walk(name: "one large buffer", bufferByteCount: 128 << 10, holdsFrames: true),
    Walk(name: "rated", isRated: true),
    Walk(
      name: "everything", copyFailure: 15, allocationFailure: 200, bufferByteCount: 256 << 10, isRated: true,
      holdsFrames: true),
  ]

  @Test(arguments: walks, 1...1 as ClosedRange<UInt64>)
  func walk(_ walk: Walk, _ seed: UInt64) throws {
    let (world, guest) = try Self.take(walk, seed)
    #expect(guest.complaints.isEmpty, "\(guest.complaints.prefix(5))")
    #expect(world.leftovers.isEmpty, "\(world.leftovers.prefix(5))")
    var wanted = ["frame", "frame with hash", "frame of many slots", "error", "multicast", "failed copy"]
    wanted += ["fault", "wild producer", "restart"]
    for kind in wanted { #expect(guest.tally[kind, default: 0] > 0, "\(kind): \(guest.tally)") }
  }

  /// One seed is one story: whatever differs between two runs of it comes from hidden chance.
  @Test func oneSeedIsOneStory() throws {
    let (first, firstGuest) = try Self.take(Self.walks[4], 9)
    let (second, secondGuest) = try Self.take(Self.walks[4], 9)
    #expect(first.counters == second.counters && first.turnCount == second.turnCount)
    #expect(firstGuest.tally == secondGuest.tally)
    #expect(first.ringPages.copyBytes(at: 0, count: 4096) == second.ringPages.copyBytes(at: 0, count: 4096))
  }

  private static func take(_ walk: Walk, _ seed: UInt64) throws -> (SimulatedNetTxWorld, TxWalkingGuest) {
    var setup = SimulatedNetTxWorld.Setup()
    setup.seed = seed
    setup.bufferByteCount = walk.bufferByteCount
    let world = try SimulatedNetTxWorld(setup)
    world.host.faults.copyFailure = walk.copyFailure
    world.host.faults.allocationFailure = walk.allocationFailure
    world.host.holdsFrames = walk.holdsFrames
    if walk.isRated { world.host.credit = 0 }
    let guest = TxWalkingGuest(world: world, seed: seed &* 7919)
    for _ in 0..<1200 {
      switch Int.random(in: 0..<20, using: &world.numbers) {
      case 0..<7:
        for _ in 0..<Int.random(in: 1...6, using: &world.numbers) { guest.sendSomething() }
        world.push()
      case 7..<12: world.runIfDue()
      case 12: world.run(arms: Bool.random(using: &world.numbers))
      case 13..<15: try guest.judge()
      case 15: world.host.sendHeld(upTo: Int.random(in: 1...9, using: &world.numbers))
      case 16: world.kick()
      case 17: if walk.isRated { world.host.credit = Int.random(in: 0...400_000, using: &world.numbers) }
      case 18:
        guard world.numbers.chance(1, in: 4) else { break }
        try world.restartBackend()
        guest.count("restart")
      default:
        guard world.numbers.chance(1, in: 3) else { break }
        try beHostile(world, guest)
        if walk.isRated { world.host.credit = 0 }
      }
      guest.check()
    }
    try settle(world, guest)
    guest.expectAllJudged()
    return (world, guest)
  }

  private static func settle(_ world: SimulatedNetTxWorld, _ guest: TxWalkingGuest) throws {
    world.host.credit = nil
    world.push()
    // A turn that did not arm leaves no event behind it.
    world.kick()
    #expect(world.settle() == nil)
    try guest.judge()
  }

  /// Breaks a rule, or seems to, and sees what comes of it.
  private static func beHostile(_ world: SimulatedNetTxWorld, _ guest: TxWalkingGuest) throws {
    try settle(world, guest)
    guest.expectAllJudged()
    let index = UInt32.max &- UInt32.random(in: 0...600, using: &world.numbers)
    switch Int.random(in: 0..<4, using: &world.numbers) {
    case 0:
      guest.sendSomething()
      world.push()
      let position = world.ringPages.copyBytes(at: 0, count: 4)
      world.ringPages.setBytes([position[0], position[1] ^ 2, position[2], position[3]], at: 0)
      world.kick()
      #expect(world.settle() == nil)
      guard case .broken(.ring) = world.lastTurn else {
        Issue.record("a wild producer did no harm: \(world.lastTurn)")
        return
      }
      guest.count("wild producer")
      guest.forget()
      try world.reconnect(at: index)
      return
    case 1: guest.sendHalf()
    default: guest.sendNonsense()
    }
    let expected = guest.expectedFault
    try settle(world, guest)
    if let expected {
      #expect(world.lastTurn == .broken(expected))
      guest.count("fault")
      guest.startOver()
      try world.reconnect(at: index)
    } else {
      guest.expectAllJudged()
    }
  }
}
