import COracle
import Glibc
import RingKit
import Testing

/// Our rings and those of ring.h's macros, driven by the same seeded operations on pages of their own: after
/// every step all pages hold the same bytes and all ends gave the same answers.
struct RingOracleTests {
  struct SeededNumbers: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
      state &+= 0x9E37_79B9_7F4A_7C15
      var mixed = state
      mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
      mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
      return mixed ^ (mixed >> 31)
    }

    mutating func bytes(_ count: Int) -> [UInt8] {
      // Eight bytes of chance, which then repeat with a shift, are enough to tell messages and offsets apart.
      let chance = next()
      return (0..<count).map { UInt8(truncatingIfNeeded: (chance >> ($0 % 8 * 8)) &+ UInt64($0 / 8)) }
    }
  }

  /// A ring with either end from either side.
  struct World {
    let name: String
    let pages: MappedPages
    let front: any ComparedFront
    let back: any ComparedBack

    init(_ kind: RingKind, pageCount: Int, start: UInt32, ourFront: Bool, ourBack: Bool) throws {
      name = "front \(ourFront ? "ours" : "ring.h"), back \(ourBack ? "ours" : "ring.h")"
      pages = try MappedPages.anonymous(pageCount: pageCount)
      let stale = [UInt8](repeating: 0xA5, count: pages.byteCount)
      // Sound: bytes have no padding.
      pages.copyIn(offset: 0, from: unsafe stale.span.bytes)
      front =
        ourFront
        ? OurFront(kind, pages, startingAt: start) : HeaderFront(kind, pages, startingAt: start)
      back = try ourBack ? OurBack(kind, pages) : HeaderBack(kind, pages, attachingAt: start)
    }

    /// Whether the pages hold the same bytes.
    func matches(_ other: World) -> Bool {
      // Sound: both mappings live, have that size, and nobody writes meanwhile.
      unsafe memcmp(pages.unsafeBase, other.pages.unsafeBase, pages.byteCount) == 0
    }
  }

  /// One step on one world; what it answered.
  enum Step: CustomStringConvertible {
    case place([[UInt8]]), push, backTake(Int), respond([[UInt8]]), publish, backCheck
    case frontTake(Int), frontCheck

    func run(_ world: World) throws -> [[UInt8]] {
      switch self {
      case .place(let requests):
        for request in requests { world.front.place(request) }
        return [[UInt8(truncatingIfNeeded: world.front.free)]]
      case .push: return [[world.front.push() ? 1 : 0]]
      case .backTake(let limit): return try world.back.take(limit)
      case .respond(let responses):
        for response in responses { world.back.respond(response) }
        return []
      case .publish: return [[world.back.publish() ? 1 : 0]]
      case .backCheck: return [[try world.back.finalCheck() ? 1 : 0]]
      case .frontTake(let limit): return try world.front.take(limit)
      case .frontCheck: return [[try world.front.finalCheck() ? 1 : 0]]
      }
    }

    var description: String {
      switch self {
      case .place(let requests): "place \(requests.count)"
      case .push: "push"
      case .backTake(let limit): "backend takes \(limit)"
      case .respond(let responses): "respond \(responses.count)"
      case .publish: "publish"
      case .backCheck: "backend's final check"
      case .frontTake(let limit): "frontend takes \(limit)"
      case .frontCheck: "frontend's final check"
      }
    }
  }

  @Test(arguments: RingKind.allCases, 0..<8 as Range<UInt64>)
  func lockstep(kind: RingKind, seed: UInt64) throws {
    var numbers = SeededNumbers(state: seed)
    let pageCount = [1, 1, 1, 2, 3][Int(seed % 5)]
    let start: UInt32 = seed % 4 == 3 ? 0 : 0xFFFF_FFF0
    let worlds = try [(false, false), (true, true), (true, false), (false, true)].map {
      try World(kind, pageCount: pageCount, start: start, ourFront: $0.0, ourBack: $0.1)
    }
    // Small steps keep the ring near empty, large ones fill it.
    let most = [3, 12, 400][Int(seed % 3)]
    var unanswered = 0
    var messages = 0
    for number in 0..<1200 {
      let step = Self.nextStep(kind, most, free: worlds[0].front.free, unanswered: unanswered, &numbers)
      let expected = try step.run(worlds[0])
      if case .backTake = step { unanswered += expected.count }
      if case .respond(let responses) = step { unanswered -= responses.count }
      if case .frontTake = step { messages += expected.count }
      for world in worlds.dropFirst() {
        let answer = try step.run(world)
        // Two comparisons a step, without the cost of a macro for each.
        guard answer == expected, world.matches(worlds[0]) else {
          let what = answer == expected ? "pages" : "answers"
          Issue.record("step \(number), \(step), \(world.name): \(what) differ")
          return
        }
      }
    }
    #expect(messages > 100)
  }

  static func nextStep(
    _ kind: RingKind, _ most: Int, free: Int, unanswered: Int, _ numbers: inout SeededNumbers
  ) -> Step {
    switch Int.random(in: 0..<12, using: &numbers) {
    case 0, 1:
      let count = Int.random(in: 0...min(most, free), using: &numbers)
      return .place((0..<count).map { _ in numbers.bytes(kind.slotByteCount) })
    case 2, 3: return .push
    case 4, 5: return .backTake(Int.random(in: 0...most, using: &numbers))
    case 6, 7:
      let count = Int.random(in: 0...min(most, unanswered), using: &numbers)
      return .respond((0..<count).map { _ in numbers.bytes(kind.responseByteCount) })
    case 8: return .publish
    case 9: return .backCheck
    case 10: return .frontTake(Int.random(in: 0...most, using: &numbers))
    default: return .frontCheck
    }
  }

  /// Slots and their offsets as the macros count them, for every number of pages up to 33.
  @Test(arguments: RingKind.allCases)
  func geometry(kind: RingKind) throws {
    for pageCount in 1...33 {
      let pages = try MappedPages.anonymous(pageCount: pageCount)
      let geometry = RingGeometry(pageCount: pageCount, slotByteCount: kind.slotByteCount)
      // Sound: the pages outlive the calls, which only compute addresses in them.
      let back = unsafe ring_oracle_back_attach(kind.oracle, pages.unsafeBase, pages.byteCount, 0)
      let slots = unsafe back.nr_ents
      #expect(geometry.slotCount == Int(slots))
      for index in [0, 1, slots - 1, slots, UInt32.max] {
        let offset = unsafe ring_oracle_slot_offset(kind.oracle, pages.unsafeBase, slots, index)
        #expect(geometry.slotOffset(at: index) == offset)
      }
    }
  }

  /// Whatever the macros call an overflow is refused; beyond that we refuse only a producer that went
  /// backwards.
  @Test(arguments: 0..<6 as Range<UInt64>)
  func overflow(seed: UInt64) throws {
    var numbers = SeededNumbers(state: seed)
    let pages = try MappedPages.anonymous(pageCount: 1)
    for _ in 0..<2000 {
      let written = UInt32.random(in: 0...UInt32.max, using: &numbers)
      let unanswered = UInt32.random(in: 0...32, using: &numbers)
      let near = written &+ UInt32.random(in: 0...80, using: &numbers) &- 40
      let producer = Bool.random(using: &numbers) ? near : UInt32.random(in: 0...UInt32.max, using: &numbers)
      let position = RingPosition(
        requestConsumer: written &+ unanswered, responseProducer: written, responseProducerPrivate: written)
      var word = producer
      // Sound: an integer has no padding, and the pages outlive the calls.
      unsafe withUnsafeBytes(of: &word) { unsafe pages.copyIn(offset: 0, from: $0.bytes) }
      var theirs = unsafe ring_oracle_back_attach(RING_ORACLE_BLKIF_64, pages.unsafeBase, 4096, written)
      unsafe theirs.req_cons = position.requestConsumer
      let refused = unsafe ring_oracle_back_overflow(&theirs, producer)
      let backwards = !refused && producer &- written < unanswered
      let ours = Result { () throws(RingError) in
        try BackRing(pages: pages, slotByteCount: 112, resumingAt: position).unconsumed
      }
      switch ours {
      case .success(let unconsumed):
        let expected = unsafe ring_oracle_back_unconsumed(&theirs)
        #expect(!refused && !backwards && unconsumed == Int(expected))
      case .failure(.producerOverflow): #expect(refused)
      case .failure(.producerBehind): #expect(backwards)
      case .failure(let other): Issue.record(other)
      }
    }
  }
}
