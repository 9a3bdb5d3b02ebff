import Glibc
import RingKit
import Testing

@testable import Loopback

/// The machine's answers to clients that say anything at all.
@Suite struct MachineStateTests {
  /// A small generator with a printed seed, so that a failure can be repeated.
  struct Random: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
      state ^= state << 13
      state ^= state >> 7
      state ^= state << 17
      return state
    }
  }

  /// Words that are often nearly right.
  func request(_ random: inout Random, known: [UInt32]) -> [UInt32] {
    let kind = UInt32.random(in: 0...12, using: &random)
    // Mostly as many words as the request has, to get past the first check.
    let right = [0, 2, 3, 1, 1, 4, 1, 1, 2, 1, 2, 1, 0][Int(kind)]
    let count = Int.random(in: 0..<8, using: &random) == 0 ? Int.random(in: 0...6, using: &random) : right
    var words = [kind]
    for _ in 0..<count {
      switch Int.random(in: 0..<6, using: &random) {
      case 0: words.append(UInt32.random(in: 0...3, using: &random))
      case 1: words.append(UInt32.random(in: 0...70_000, using: &random))
      case 2:
        words.append([0, 1, 0x7FEF, 0x7FF0, 0xFFFF, 0x1_0000, .max][Int.random(in: 0..<7, using: &random)])
      default: words.append(known.randomElement(using: &random) ?? 1)
      }
    }
    return words
  }

  @Test(arguments: [1, 2, 3, 4] as [UInt64])
  func noRequestStopsTheMachineAndNothingIsLeftOver(seed: UInt64) {
    var random = Random(state: seed &* 0x9E37_79B9_7F4A_7C15)
    var resources = MachineResources()
    var open = (0..<8 as Range<UInt64>).map(MachineState.Connection.init(number:))
    for (index, connection) in open.enumerated() {
      let reply = resources.answer([1, 1, UInt32(index % 3)], from: connection)
      #expect(reply.words == [0])
    }
    var known: [UInt32] = [0, 1, 2]
    var successes = 0
    for step in 0..<6000 {
      guard let connection = open.randomElement(using: &random) else { break }
      let words = request(&random, known: known)
      let reply = resources.answer(words, from: connection)
      #expect(!reply.words.isEmpty)
      if reply.words.first == 0 {
        successes += 1
        known += reply.words.dropFirst().prefix(2)
        if known.count > 60 { known.removeFirst(known.count - 60) }
      }
      if step % 500 == 499, let index = open.indices.randomElement(using: &random) {
        _ = resources.disconnect(open.remove(at: index))
      }
      check(resources.state)
    }
    #expect(successes > 300, "the requests are too wild to test much")
    for connection in open { _ = resources.disconnect(connection) }
    #expect(resources.state.domains.isEmpty)
    #expect(resources.state.connections.isEmpty)
    #expect(resources.state.maps.isEmpty)
    #expect(resources.descriptorCount == 0)
  }

  /// What always holds.
  func check(_ state: MachineState) {
    for (id, domain) in state.domains {
      for (port, end) in domain.ports {
        guard let remotePort = end.remotePort else { continue }
        let far = state.domains[end.remote]?.ports[remotePort]
        #expect(far?.remotePort == port && far?.remote == id, "port \(port) of \(id)")
        #expect(far?.channel == end.channel && far?.side != end.side)
      }
      for share in domain.shares.values {
        #expect(state.connections[share.connection] == id)
      }
    }
  }

  @Test func everyReferenceBelongsToAtMostOneShare() throws {
    var state = MachineState()
    let connection = MachineState.Connection(number: 1)
    try state.connect(connection, as: MachineFixture.front)
    var random = Random(state: 99)
    var shares: [MachineState.Share] = []
    for _ in 0..<400 {
      if Bool.random(using: &random), let index = shares.indices.randomElement(using: &random) {
        let share = shares.remove(at: index)
        let ended = try state.endShare(connection, first: share.first)
        #expect(ended.references.count == share.pageCount)
      } else {
        let count = Int.random(in: 1...900, using: &random)
        if let share = try? state.share(
          connection, pageCount: count, grantee: MachineFixture.back, writable: true)
        {
          shares.append(share)
        }
      }
      let owned = state.domains[MachineFixture.front]?.shareOf ?? []
      var expected = [UInt32](repeating: 0, count: GrantWord.tableCount)
      for share in shares {
        #expect(share.first >= 8)
        for reference in share.first..<share.first + UInt32(share.pageCount) {
          #expect(expected[Int(reference)] == 0)
          expected[Int(reference)] = share.first
        }
      }
      #expect(owned == expected)
    }
  }

  @Test(arguments: [0x7FF0, 0x7FF1, 0xFFFF] as [UInt16])
  func reservedNumbersAreNoDomains(number: UInt16) {
    var state = MachineState()
    #expect(throws: MachineRefusal.malformed) {
      try state.connect(MachineState.Connection(number: 1), as: DomainID(rawValue: number))
    }
  }
}
