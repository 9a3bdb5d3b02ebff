import Netback
import RingKit
import Simulator
import Testing

/// How the transmit direction moves data: multicast dummies, copies that fail, buffers, credit, staged pages.
struct TxDataTests {
  static func address(_ number: Int) -> EthernetAddress {
    EthernetAddress(rawValue: 0x0100_5E00_0000 | UInt64(number))
  }

  static func dummy(_ fixture: TxFixture, _ address: EthernetAddress, isAdded: Bool = true) {
    // As illumos's xnf sends it: no grant, no data.
    fixture.place(size: 0, flags: .extraInfo, reference: GrantReference(rawValue: 0))
    fixture.place(NetExtraInfo(multicast: address, isAdded: isAdded))
  }

  @Test func trap15_multicastDummiesAreNoPackets() throws {
    let fixture = try TxFixture()
    fixture.world.host.credit = 0
    for number in 0..<64 { Self.dummy(fixture, Self.address(number)) }
    #expect(try fixture.settle() == (0..<64).flatMap { _ in [NetStatus.okay, .null] })
    Self.dummy(fixture, Self.address(64))
    #expect(try fixture.settle() == [.error, .null])
    Self.dummy(fixture, Self.address(3), isAdded: false)
    Self.dummy(fixture, Self.address(64))
    Self.dummy(fixture, Self.address(99), isAdded: false)
    #expect(try fixture.settle() == [.okay, .null, .okay, .null, .okay, .null])
    let host = fixture.world.host
    #expect(host.creditQuestionCount == 0 && host.batches.isEmpty && fixture.frames.isEmpty)
    host.multicast.isActive = true
    #expect(host.multicast.accepts(Self.address(64)) && !host.multicast.accepts(Self.address(3)))
    let counters = fixture.world.counters
    #expect(counters.multicastChanges == 67 && counters.multicastRefusals == 1 && counters.drops == 0)
    fixture.expectNothingLeft()
  }

  /// A dummy says nothing of data, whatever stands in its fields; the packet behind it is a packet.
  @Test func trap15_aDummysDataMeanNothing() throws {
    let fixture = try TxFixture()
    fixture.place(size: 65535, offset: 65535, flags: [.extraInfo, .moreData, .checksumBlank])
    fixture.place(NetExtraInfo(multicast: Self.address(1), isAdded: true))
    let sent = fixture.place([.init(0, 0, 60)])
    #expect(try fixture.settle() == [.okay, .null, .okay])
    #expect(fixture.frames == [sent])
    fixture.expectNothingLeft()
  }

  /// A fragment that cannot be copied drops its packet; it alone is an error, and the others' packets pass.
  @Test(arguments: 0..<4)
  func trap16_aFailedCopyDropsItsPacketOnly(_ bad: Int) throws {
    let fixture = try TxFixture()
    let world = fixture.world
    let first = fixture.place([.init(0, 0, 500), .init(1, 0, 500)])
    for index in 0..<4 {
      fixture.place(
        size: index == 0 ? 400 : 100, flags: index < 3 ? .moreData : [],
        reference: index == bad ? GrantReference(rawValue: 0xFFFF_FFFF) : nil)
    }
    let last = fixture.place([.init(2, 0, 100)])
    var expected = [NetStatus](repeating: .okay, count: 7)
    expected[2 + bad] = .error
    #expect(try fixture.settle() == expected)
    #expect(fixture.frames == [first, last] && world.host.batches == [7])
    #expect(world.counters.failedCopies == 1 && world.counters.errors == 1 && world.counters.packets == 2)
    fixture.expectNothingLeft()
  }

  /// XSA-362, XSA-365, XSA-367: any set of failures, and no packet goes out with what was not copied.
  @Test func trap16_everySetOfFailures() throws {
    for mask in 0..<64 {
      let fixture = try TxFixture()
      var sent: [[UInt8]] = []
      for packet in 0..<2 {
        for index in 0..<3 {
          let isBad = mask >> (packet * 3 + index) & 1 == 1
          fixture.place(
            size: index == 0 ? 300 : 100, flags: index < 2 ? .moreData : [],
            reference: isBad ? GrantReference(rawValue: 1) : fixture.world.guest.grant(page: index))
        }
        if mask >> (packet * 3) & 7 == 0 { sent.append(fixture.bytes((0..<3).map { .init($0, 0, 100) })) }
      }
      #expect(try fixture.settle() == (0..<6).map { mask >> $0 & 1 == 1 ? .error : .okay }, "\(mask)")
      #expect(fixture.frames == sent, "\(mask)")
      fixture.expectNothingLeft()
    }
  }

  /// XSA-448: nothing is copied for a slot of no bytes, wherever it is.
  @Test(arguments: 0..<32)
  func trap17_emptyFragments(_ mask: Int) throws {
    let fixture = try TxFixture()
    let pieces = (0..<6).map { TxFixture.Piece($0, 7, $0 > 0 && mask >> ($0 - 1) & 1 == 1 ? 0 : 33) }
    let sent = fixture.place(pieces)
    // Where nothing is copied the grant does not matter either.
    fixture.place(size: 60, flags: .moreData)
    fixture.place(size: 0, reference: GrantReference(rawValue: 0xFFFF_FFFF))
    #expect(try fixture.settle() == [NetStatus](repeating: .okay, count: 8))
    #expect(fixture.frames.first == sent && fixture.frames.count == 2)
    #expect(fixture.world.counters.grantCopies == UInt64(7 - mask.nonzeroBitCount))
    fixture.expectNothingLeft()
  }

  /// XSA-423: headers in pieces; what leaves is in one piece, whatever the pieces were.
  @Test func trap18_headersInPieces() throws {
    let fixture = try TxFixture()
    for first in 14...80 {
      for second in [0, 1, 2, 13, 27] {
        let sent = fixture.place(
          [.init(1, 3000, first), .init(2, 1, second)] + (0..<6).map { .init(3, $0 * 100, 11) }
            + [.init(4, 0, 1000)])
        #expect(try fixture.settle().allSatisfy { $0 == .okay })
        #expect(fixture.frames == [sent])
        fixture.world.host.frames = []
      }
    }
    fixture.expectNothingLeft()
  }

  /// XSA-432: 18 slots with next to nothing in them.
  @Test func trap18_manySlotsAndFewBytes() throws {
    var numbers = SeededNumbers(seed: 432)
    let fixture = try TxFixture()
    for round in 0..<400 {
      let counts = (0..<18).map { $0 == 0 ? round % 20 : Int.random(in: 0...round % 9, using: &numbers) }
      let sent = fixture.place(counts.map { .init(Int.random(in: 0..<64, using: &numbers), 17, $0) })
      let status: NetStatus = counts[0] < 14 ? .error : .okay
      #expect(try fixture.settle() == [NetStatus](repeating: status, count: 18))
      #expect(fixture.frames == (counts[0] < 14 ? [] : [sent]))
      fixture.world.host.frames = []
    }
    fixture.expectNothingLeft()
  }

  // MARK: Buffers

  /// Pages that follow a first slot cost one hypervisor operation each, and a small packet one page.
  @Test func pagesAreCopiedIntoPages() throws {
    let fixture = try TxFixture()
    let host = fixture.world.host
    for first in [14, 66, 1000, 4080, 4081, 4095, 4096] {
      fixture.place([.init(0, 4096 - first, first)] + (1..<8).map { .init($0, 0, 4096) })
      #expect(try fixture.settle().allSatisfy { $0 == .okay })
      #expect((host.frames[0].start + first) % 4096 == 0 && host.frames[0].start >= 16)
      host.frames = []
    }
    #expect(host.splitCopyCount == 0)
    let small = try TxFixture { $0.bufferByteCount = 4096 }
    for size in [14, 60, 1500, 4080] {
      small.place([.init(0, 0, size)])
      #expect(try small.settle() == [.okay])
      #expect(small.world.host.frames.last.map { $0.start + size } == 4096)
    }
    small.expectNothingLeft()
  }

  /// Without a buffer a packet waits as it is, and is charged once.
  @Test func aPacketWaitsForABuffer() throws {
    let fixture = try TxFixture { $0.bufferByteCount = 8192 }
    let world = fixture.world
    world.host.holdsFrames = true
    let sent = (0..<5).map { fixture.place([.init($0, 0, 1000)]) }
    world.push()
    world.run()
    #expect(world.isWaiting && world.lastTurn == .idle && fixture.frames.count == 2)
    for _ in 0..<3 {
      world.kick()
      world.runIfDue()
      #expect(world.lastTurn == .idle && fixture.frames.count == 2)
    }
    #expect(world.host.creditQuestionCount == 3 && world.counters.bufferWaits == 4)
    #expect(try world.takeResponses().map(\.status) == [.okay, .okay])
    #expect(try fixture.settle() == [.okay, .okay, .okay])
    #expect(fixture.frames == sent && world.host.charges == [1000, 1000, 1000, 1000, 1000])
    fixture.expectNothingLeft()
  }

  /// A buffer that this very turn gives back is one that nobody else will tell of.
  @Test func aPacketDoesNotWaitForItsOwnQueue() throws {
    let fixture = try TxFixture { $0.bufferByteCount = 4096 }
    for _ in 0..<10 { fixture.place(size: 100, reference: GrantReference(rawValue: 3)) }
    let sent = fixture.place([.init(1, 0, 100)])
    fixture.world.push()
    var turns = 0
    repeat {
      fixture.world.run()
      turns += 1
    } while fixture.world.lastTurn == .more && turns < 50
    #expect(
      try fixture.world.takeResponses().map(\.status) == [NetStatus](repeating: .error, count: 10) + [.okay])
    #expect(fixture.frames == [sent] && fixture.world.counters.failedCopies == 10)
    fixture.expectNothingLeft()
  }

  // MARK: Credit

  /// Over its rate the guest's packets stay where they are, none is dropped or passed over.
  @Test func trap23_packetsWaitForCredit() throws {
    let fixture = try TxFixture()
    let world = fixture.world
    world.host.credit = 0
    let sent = [
      fixture.place([.init(0, 0, 600), .init(1, 0, 400)]), fixture.place([.init(2, 0, 60)]),
      fixture.place([.init(3, 0, 1000)]),
    ]
    world.push()
    for _ in 0..<4 {
      world.run()
      #expect(try world.lastTurn == .idle && world.isWaiting && world.takeResponses().isEmpty)
    }
    #expect(world.host.creditQuestionCount == 4 && world.counters.creditWaits == 4)
    #expect(world.host.batches.isEmpty && world.host.liveBufferCount == 0)
    // A small one behind it does not go first.
    world.host.credit = 999
    world.run()
    #expect(fixture.frames.isEmpty)
    world.host.credit = 1061
    world.run()
    #expect(fixture.frames == Array(sent.prefix(2)) && world.host.credit == 1)
    #expect(try world.takeResponses().count == 3)
    world.host.credit = nil
    #expect(try fixture.settle() == [.okay])
    #expect(fixture.frames == sent && world.host.charges == [1000, 60, 1000])
    fixture.expectNothingLeft()
  }

  // MARK: Staged pages

  /// Pages that were granted for good are copied without the hypervisor, next to those that were not.
  @Test func stagedPagesNeedNoGrantCopy() throws {
    let fixture = try TxFixture()
    let world = fixture.world
    let staged = (0..<2).map { world.guest.grant(page: $0) }
    for reference in staged { world.host.stage(reference) }
    fixture.place(size: 3000, offset: 5, flags: .moreData, reference: staged[0])
    fixture.place(size: 1000, offset: 9, flags: .moreData, reference: world.guest.grant(page: 2))
    fixture.place(size: 500, offset: 3596, reference: staged[1])
    fixture.place(size: 4000, offset: 96, reference: staged[1])
    #expect(try fixture.settle() == [.okay, .okay, .okay, .okay])
    #expect(
      fixture.frames == [
        fixture.bytes([.init(0, 5, 1500), .init(2, 9, 1000), .init(1, 3596, 500)]),
        fixture.bytes([.init(1, 96, 4000)]),
      ])
    #expect(world.counters.grantCopies == 1 && world.counters.stagedCopies == 3)
    #expect(world.host.batches == [1])
    // With nothing for the hypervisor to do it is not called.
    fixture.place(size: 60, reference: staged[0])
    #expect(try fixture.settle() == [.okay] && world.host.batches == [1])
    fixture.expectNothingLeft()
  }
}
