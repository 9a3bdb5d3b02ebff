import Blkback
import RingKit
import Simulator
import Testing

/// Discards: rounded inwards, in pieces, refused where they must be.
struct EngineDiscardTests {
  static func fixture(
    abi: BlockABI = .x86_64, sectors: UInt64 = 1024, secure: Bool = false, readOnly: Bool = false,
    support: DiscardSupport? = DiscardSupport(unitByteCount: 4096, chunkByteCount: 16384)
  ) throws -> EngineFixture {
    try EngineFixture(
      offered: secure ? [.discard, .secureDiscard, .flush] : [.discard, .flush], sectors: sectors,
      readOnly: readOnly
    ) {
      $0.abi = abi
      $0.discardSupport = support
    }
  }

  /// Every place and length around the units: the pieces are whole units within the range, in order, none
  /// longer than a chunk, and all units within the range are given back.
  @Test(arguments: BlockABI.allCases)
  func rangesAreRoundedInwards(_ abi: BlockABI) throws {
    let fixture = try Self.fixture(abi: abi)
    for first: UInt64 in 0..<20 {
      for count: UInt64 in [1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 100] {
        fixture.world.host.discardsBegun = []
        fixture.placeDiscard(id: first, sector: first, count: count)
        #expect(try fixture.settle()[first] == BlockResponse(id: first, operation: .discard, status: .okay))
        let inner = (first + 7) / 8 * 4096..<max((first + 7) / 8, (first + count) / 8) * 4096
        var position = inner.lowerBound
        for piece in fixture.world.host.discardsBegun {
          #expect(piece.lowerBound == position && piece.count <= 16384)
          position = piece.upperBound
        }
        #expect(position == inner.upperBound, "\(first) + \(count)")
      }
    }
    #expect(fixture.world.counters.discards == 220)
    #expect(fixture.world.host.chargeCount == 220 && fixture.world.host.chargedByteCount == 0)
    fixture.expectNothingLeft()
  }

  /// The whole of a large disk, and ranges that leave it or wrap: through the ring, to the medium or not.
  @Test func hugeRanges() throws {
    let size: UInt64 = 1 << 20
    let fixture = try Self.fixture(
      sectors: size, support: DiscardSupport(unitByteCount: 512, chunkByteCount: 256 << 20))
    fixture.placeDiscard(id: 1, sector: 0, count: size)
    #expect(try fixture.settle()[1]?.status == .okay)
    #expect(fixture.world.host.discardsBegun == [0..<268_435_456, 268_435_456..<536_870_912])
    #expect(fixture.world.counters.sectorsDiscarded == size)
    fixture.world.host.discardsBegun = []
    let bad: [(UInt64, UInt64)] = [
      (0, size + 1), (1, size), (size, 1), (0, 1 << 62), (0, 1 << 63), (0, .max), (8, .max), (.max, 1),
      (1 << 63, 1 << 63), (.max - 7, 8), (1 << 55, 1), (8, 0 &- 8), (16, 0 &- 8), (1, .max),
    ]
    for (sector, count) in bad {
      fixture.placeDiscard(id: 2, sector: sector, count: count)
      #expect(try fixture.settle()[2]?.status == .error, "\(sector) + \(count)")
    }
    #expect(fixture.world.host.discardsBegun.isEmpty)
    fixture.placeDiscard(id: 3, sector: .max, count: 0)
    #expect(try fixture.settle()[3]?.status == .okay, "nothing can be discarded anywhere")
    fixture.expectNothingLeft()
  }

  /// One piece at a time (two under one token would be a violation), and other requests are answered between
  /// them.
  @Test func othersGoOnBetweenPieces() throws {
    let fixture = try Self.fixture(sectors: 1 << 16)
    fixture.placeDiscard(id: 1, sector: 0, count: 1 << 16)
    fixture.world.push()
    fixture.world.runIfDue()
    var seen: [UInt64] = []
    for id: UInt64 in 2..<60 {
      fixture.place(.read, id: id)
      fixture.world.push()
      fixture.world.runIfDue()
      // One of two: the next piece, or the read.
      fixture.world.complete(upTo: 1)
      fixture.world.runIfDue()
      seen += try fixture.world.takeResponses().map(\.id)
    }
    #expect(seen.count > 20 && !seen.contains(1))
    #expect(try fixture.settle()[1]?.status == .okay)
    #expect(fixture.world.host.discardsBegun.count == 2048)
    fixture.expectNothingLeft()
  }

  /// A pause or a close does not wait for the rest of a long hint; a secure discard is no hint.
  @Test(arguments: [false, true], [false, true])
  func aPauseCutsLongDiscardsShort(_ closes: Bool, _ isSecure: Bool) throws {
    let fixture = try Self.fixture(
      sectors: 1 << 16, secure: true,
      support: DiscardSupport(unitByteCount: 512, chunkByteCount: 4096, isSecurePossible: true))
    fixture.placeDiscard(id: 1, sector: 0, count: 1 << 16, secure: isSecure)
    fixture.world.push()
    fixture.world.runIfDue()
    fixture.world.complete(upTo: 1)
    if closes { fixture.world.beginClosing() } else { fixture.world.pause() }
    #expect(!fixture.world.isDrained)
    #expect(try fixture.settle()[1]?.status == .okay)
    #expect(fixture.world.host.discardsBegun.count == (isSecure ? 8192 : 2))
    #expect(fixture.world.host.secureDiscardCount == (isSecure ? 8192 : 0))
    fixture.expectNothingLeft()
  }

  /// EINVAL, ENOTTY, ENOSYS and EOPNOTSUPP mean that the medium cannot; everything else is an error.
  @Test func errorsAreTold() throws {
    let fixture = try Self.fixture()
    for errno: Int32 in 1..<134 {
      fixture.world.host.discardErrno = errno
      fixture.placeDiscard(id: 1, sector: 0, count: 64)
      let expected: BlockStatus = [22, 25, 38, 95].contains(errno) ? .notSupported : .error
      #expect(try fixture.settle()[1]?.status == expected, "errno \(errno)")
    }
    #expect(!fixture.world.host.isFenced, "a hint that failed loses nothing")
    #expect(fixture.world.counters.discards == 0 && fixture.world.counters.sectorsDiscarded == 0)
    fixture.expectNothingLeft()
  }

  @Test func refusals() throws {
    for (fixture, expected): (EngineFixture, BlockStatus) in [
      (try Self.fixture(support: nil), .notSupported), (try Self.fixture(readOnly: true), .error),
      (try EngineFixture { $0.discardSupport = DiscardSupport(unitByteCount: 512) }, .notSupported),
    ] {
      fixture.placeDiscard(id: 1, sector: 0, count: 64)
      #expect(try fixture.settle()[1]?.status == expected)
      #expect(fixture.world.host.discardsBegun.isEmpty)
    }
    let fixture = try Self.fixture()
    fixture.placeDiscard(id: 1, sector: 0, count: 1024)
    fixture.world.push()
    fixture.world.runIfDue()
    fixture.world.host.isFenced = true
    fixture.placeDiscard(id: 2, sector: 0, count: 64)
    let answers = try fixture.settle()
    #expect(answers[1]?.status == .error && answers[2]?.status == .error, "the disk has lost data")
    #expect(fixture.world.host.discardsBegun.count == 1)
    fixture.expectNothingLeft()
  }

  /// A secure discard is one only where it was offered, and then it is never rounded or faked.
  @Test func secureDiscards() throws {
    let support = DiscardSupport(unitByteCount: 4096, isSecurePossible: true)
    let able = try Self.fixture(secure: true, support: support)
    able.placeDiscard(id: 1, sector: 8, count: 16, secure: true)
    able.placeDiscard(id: 2, sector: 8, count: 15, secure: true)
    able.placeDiscard(id: 3, sector: 9, count: 15, secure: true)
    able.placeDiscard(id: 4, sector: 9, count: 15)
    let answers = try able.settle()
    #expect((1...4).map { answers[$0]?.status } == [.okay, .error, .error, .okay])
    let unable = try Self.fixture(secure: true)
    unable.placeDiscard(id: 1, sector: 8, count: 16, secure: true)
    #expect(try unable.settle()[1]?.status == .notSupported)
    let plain = try Self.fixture(support: support)
    plain.placeDiscard(id: 1, sector: 9, count: 15, secure: true)
    #expect(try plain.settle()[1]?.status == .okay, "not offered, so the flag means nothing")
    #expect(able.world.host.secureDiscardCount == 1)
    #expect(unable.world.host.secureDiscardCount + plain.world.host.secureDiscardCount == 0)
    for fixture in [able, unable, plain] { fixture.expectNothingLeft() }
  }
}
