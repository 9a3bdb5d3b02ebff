import Blkback
import RingKit
import Simulator
import Testing

/// Requests whose segments lie in pages of their own (blkif.h, BLKIF_OP_INDIRECT).
struct EngineIndirectTests {
  static func fixture(
    abi: BlockABI = .x86_64, persistent: Bool = false, segments: Int = 256, sectors: UInt64 = 4096,
    medium: MediumGeometry = MediumGeometry(blockByteCount: 512, memoryAlignment: 1), buffers: Int = 8 << 20,
    pages: Int = 300
  ) throws -> EngineFixture {
    try EngineFixture(offered: [.indirect, .flush], segments: segments, sectors: sectors) {
      $0.abi = abi
      $0.usesPersistentGrants = persistent
      $0.medium = medium
      $0.bufferByteCount = buffers
      $0.guestPageCount = pages
    }
  }

  @Test(arguments: BlockABI.allCases, [false, true])
  func whatIsWrittenIsRead(_ abi: BlockABI, _ persistent: Bool) throws {
    let fixture = try Self.fixture(abi: abi, persistent: persistent)
    for count in [1, 11, 12, 33, 100] {
      let pages = (0..<count).map { fixture.world.guest.grant(page: $0) }
      for page in 0..<count { fixture.stamp(page: page, UInt64(count << 8 + page)) }
      fixture.placeIndirect(.write, id: 1, sector: 16, pages.map { ($0, 0, 7) }, descriptors: 250)
      #expect(try fixture.settle()[1] == BlockResponse(id: 1, operation: .write, status: .okay))
      let others = (0..<count).map { fixture.world.guest.grant(page: 120 + $0) }
      fixture.placeIndirect(.read, id: 2, sector: 16, others.map { ($0, 0, 7) }, descriptors: 251)
      #expect(try fixture.settle()[2] == BlockResponse(id: 2, operation: .read, status: .okay))
      for page in 0..<count {
        #expect(
          fixture.world.guest.words(ofPage: 120 + page) == EngineFixture.stamps(UInt64(count << 8 + page)))
      }
    }
    #expect(fixture.world.counters.indirectRequests == 10 && fixture.world.counters.writes == 5)
    #expect(fixture.world.host.outcomes.allSatisfy { $0.isIndirect && $0.nanoseconds > 0 })
    #expect(fixture.world.host.chargedByteCount == 2 * 4096 * (1 + 11 + 12 + 33 + 100))
    fixture.expectNothingLeft()
  }

  /// All counts of pages: descriptors go on in the next page exactly after 512.
  @Test(arguments: [511, 512, 513, 1024, 1025, 3585, 4095, 4096], [false, true])
  func descriptorsGoOnInTheNextPage(_ count: Int, _ persistent: Bool) throws {
    let fixture = try Self.fixture(
      persistent: persistent, segments: 4096, sectors: 5000, buffers: 4 << 20, pages: 64)
    // Segment n is sector n % 8 of page n % 32, so that each step in the list shows.
    let pages = (0..<32).map { fixture.world.guest.grant(page: $0) }
    for page in 0..<32 { fixture.stamp(page: page, UInt64(page + 1)) }
    fixture.placeIndirect(
      .write, id: 1, sector: 3, (0..<count).map { (pages[$0 % 32], UInt8($0 % 8), UInt8($0 % 8)) },
      descriptors: 40)
    #expect(try fixture.settle()[1]?.status == .okay)
    for sector in 0..<count {
      let words = EngineFixture.stamps(UInt64(sector % 32 + 1))[sector % 8 * 64..<sector % 8 * 64 + 64]
      if fixture.world.disk.sector(3 + sector) != Array(words) { Issue.record("sector \(sector) is wrong") }
    }
    #expect(fixture.world.disk.sector(3 + count).allSatisfy { $0 == 0 })
    fixture.expectNothingLeft()
  }

  /// The largest transfers that blkif knows, in a place where read-modify-write makes them larger still.
  @Test(arguments: [(256, 1), (256, 7), (4096, 1), (4096, 7)], [false, true])
  func theLargestRequestsFitOddlyPlaced(_ size: (Int, Int), _ persistent: Bool) throws {
    let (count, sector) = size
    let fixture = try Self.fixture(
      persistent: persistent, segments: count, sectors: UInt64(count * 8 + 16),
      medium: MediumGeometry(blockByteCount: 4096, memoryAlignment: 4096), buffers: 32 << 20, pages: 64)
    fixture.world.disk.setSector(sector - 1, EngineFixture.stamps(90).dropLast(448))
    let pages = (0..<32).map { fixture.world.guest.grant(page: $0) }
    for page in 0..<32 { fixture.stamp(page: page, UInt64(page + 1)) }
    fixture.placeIndirect(
      .write, id: 1, sector: UInt64(sector), (0..<count).map { (pages[$0 % 32], 0, 7) }, descriptors: 40)
    #expect(try fixture.settle()[1]?.status == .okay)
    #expect(fixture.world.disk.sector(sector - 1) == EngineFixture.stamps(90).dropLast(448))
    for index in stride(from: 0, to: count, by: max(1, count / 64)) {
      #expect(fixture.diskWords(sector + index * 8, count: 8) == EngineFixture.stamps(UInt64(index % 32 + 1)))
    }
    #expect(fixture.world.disk.sector(sector + count * 8).allSatisfy { $0 == 0 })
    fixture.expectNothingLeft()
  }

  /// What can never get its memory is refused; it must not wait for ever, let alone trap.
  @Test(arguments: [4096, 1 << 20])
  func whatNeverFitsIsRefused(_ buffers: Int) throws {
    let fixture = try Self.fixture(
      medium: MediumGeometry(blockByteCount: 4096, memoryAlignment: 1), buffers: buffers)
    let page = fixture.world.guest.grant(page: 0)
    for operation in [BlockOperation.read, .write] {
      fixture.placeIndirect(
        operation, id: 1, sector: 1, Array(repeating: (page, 0, 7), count: 256), descriptors: 40)
      fixture.place(.read, id: 2)
      let answers = try fixture.settle()
      #expect(answers[1]?.status == .error && answers[2]?.status == .okay)
    }
    fixture.expectNothingLeft()
  }

  /// XSA-155: a guest that changes its descriptors once they were copied changes nothing, and they are read
  /// exactly once.
  @Test(arguments: [1, 300], [false, true])
  func descriptorsAreFetchedOnce(_ count: Int, _ persistent: Bool) throws {
    for seed: UInt64 in 1...10 {
      let fixture = try Self.fixture(persistent: persistent, segments: 512)
      let world = fixture.world
      world.host.faults.interruption = 200
      world.host.faults.allocationFailure = 300
      world.host.faults.pinFailure = persistent && seed > 5 ? 500 : 0
      world.numbers = SeededNumbers(seed: seed)
      let good = world.guest.grant(page: 0)
      let evil = world.guest.grant(page: 1)
      fixture.stamp(page: 0, 1)
      fixture.stamp(page: 1, 0xBAD)
      var reads = 0
      world.host.onGuestRead = { page in
        guard page == 250 else { return }
        reads += 1
        let words = (0..<512).map { place in
          BlockSegment(
            reference: place % 2 == 0 ? evil : GrantReference(rawValue: .max), firstSector: 0,
            lastSector: place % 3 == 0 ? 255 : 6
          ).word
        }
        world.guest.write(words, toPage: 250)
      }
      fixture.placeIndirect(
        .write, id: 1, sector: 0, (0..<count).map { (good, UInt8($0 % 8), UInt8($0 % 8)) }, descriptors: 250)
      #expect(try fixture.settle()[1]?.status == .okay)
      #expect(reads == 1, "descriptors were read \(reads) times")
      let stamps = EngineFixture.stamps(1)
      for sector in 0..<count {
        let place = sector % 8 * 64
        #expect(world.disk.sector(sector) == Array(stamps[place..<place + 64]))
      }
      #expect(world.disk.sector(count).allSatisfy { $0 == 0 })
      fixture.expectNothingLeft()
    }
  }

  /// One bad descriptor anywhere refuses the whole request, before any of it is begun.
  @Test(arguments: [0, 1, 255, 511, 512, 599], [false, true])
  func oneBadDescriptorRefusesTheRequest(_ place: Int, _ persistent: Bool) throws {
    let fixture = try Self.fixture(persistent: persistent, segments: 600)
    let good = fixture.world.guest.grant(page: 0)
    fixture.stamp(page: 0, 1)
    for bad: (UInt8, UInt8) in [(0, 8), (7, 6), (0, 255), (8, 8), (255, 255)] {
      for operation in [BlockOperation.read, .write] {
        var segments = Array(repeating: (good, UInt8(0), UInt8(0)), count: 600)
        (segments[place].1, segments[place].2) = bad
        fixture.placeIndirect(operation, id: 1, sector: 0, segments, descriptors: 250)
        #expect(try fixture.settle()[1] == BlockResponse(id: 1, operation: operation, status: .error))
      }
    }
    // A bad data page is found later: it fails the request too, and nothing of a write is begun.
    var segments = Array(repeating: (good, UInt8(0), UInt8(0)), count: 600)
    segments[place].0 = GrantReference(rawValue: 0xFFFF_FF00)
    for operation in [BlockOperation.read, .write] {
      fixture.placeIndirect(operation, id: 1, sector: 0, segments, descriptors: 250)
      #expect(try fixture.settle()[1]?.status == .error)
    }
    #expect(fixture.world.host.writesBegun.isEmpty)
    #expect(fixture.world.counters.rejected == 10)
    fixture.expectNothingLeft()
  }

  /// Descriptors that cannot be had, and headers that ask for too much.
  @Test(arguments: BlockABI.allCases, [false, true])
  func badHeaders(_ abi: BlockABI, _ persistent: Bool) throws {
    let fixture = try Self.fixture(abi: abi, persistent: persistent, segments: 600)
    let page = fixture.world.guest.grant(page: 0)
    let one = [(page, UInt8(0), UInt8(7))]
    var id: UInt64 = 0
    let headers = [(BlockOperation.read, 0), (.read, 601), (.write, 65535), (.flush, 1), (.indirect, 1)]
    for (operation, count) in headers {
      id += 1
      fixture.placeIndirect(operation, id: id, sector: 0, one, descriptors: 250, count: count)
    }
    // The second page of descriptors is none of the guest's.
    let word = BlockSegment(reference: page, firstSector: 0, lastSector: 0).word
    let request = BlockRequest(indirect: .read, segmentCount: 513, id: 90, sectorNumber: 0, abi: abi)
    var slot = request.encode()
    fixture.world.guest.write(Array(repeating: word, count: 512), toPage: 251)
    request.setIndirectReference(fixture.world.guest.grant(page: 251), at: 0, in: &slot)
    request.setIndirectReference(GrantReference(rawValue: .max), at: 1, in: &slot)
    fixture.world.place(slot)
    // Its range leaves the disk, which only the descriptors' sum tells.
    fixture.placeIndirect(.read, id: 91, sector: 4090, one, descriptors: 252)
    let answers = try fixture.settle()
    #expect(answers.count == 7 && answers.values.allSatisfy { $0.status == .error })
    #expect(fixture.world.host.chargeCount == 7)
    #expect(fixture.world.host.chargedByteCount == (513 + 1) * 4096, "by what the headers say")
    fixture.expectNothingLeft()
  }

  /// The page with the descriptors may be one of the data pages as well, and one page may be all of them.
  @Test(arguments: [false, true])
  func onePageForEverything(_ persistent: Bool) throws {
    let fixture = try Self.fixture(persistent: persistent, segments: 512)
    fixture.stamp(page: 0, 4)
    let page = fixture.world.guest.grant(page: 0)
    fixture.place(.write, id: 1, sector: 0, [(page, 0, 7)])
    #expect(try fixture.settle()[1]?.status == .okay)
    // The next reference that the guest gives is the descriptors' own.
    let own = GrantReference(rawValue: page.rawValue + 1)
    let references = fixture.placeIndirect(
      .read, id: 2, sector: 0, Array(repeating: (own, 0, 0), count: 16) + [(own, 0, 7)], descriptors: 250)
    #expect(references == [own])
    fixture.place(.write, id: 3, sector: 100, [(page, 0, 7)])
    let answers = try fixture.settle()
    #expect(answers[2]?.status == .okay && answers[3]?.status == .okay)
    #expect(Array(fixture.world.guest.words(ofPage: 250).suffix(448)) == [UInt64](repeating: 0, count: 448))
    fixture.expectNothingLeft()
  }

  /// More copies in one turn than a batch holds.
  @Test(arguments: [0, 5])
  func manyLargeRequestsAtOnce(_ failures: Int) throws {
    let fixture = try Self.fixture(segments: 256, sectors: 4096 * 2, buffers: 32 << 20)
    fixture.world.host.faults.copyFailure = failures
    for page in 0..<32 { fixture.stamp(page: page, UInt64(page + 1)) }
    let pages = (0..<32).map { fixture.world.guest.grant(page: $0) }
    for id in 0..<32 {
      fixture.placeIndirect(
        .write, id: UInt64(id), sector: UInt64(id * 256),
        (0..<200 + id).map { (pages[($0 + id) % 32], 3, 3) }, descriptors: 40 + id)
    }
    let answers = try fixture.settle()
    #expect(answers.count == 32)
    for id in 0..<32 where answers[UInt64(id)]?.status == .okay {
      for place in 0..<200 + id {
        let words = EngineFixture.stamps(UInt64((place + id) % 32 + 1))[192..<256]
        if fixture.world.disk.sector(id * 256 + place) != Array(words) { Issue.record("\(id), \(place)") }
      }
    }
    let okay = answers.values.count { $0.status == .okay }
    #expect(failures == 0 ? okay == 32 : okay > 0 && okay < 32)
    fixture.expectNothingLeft()
  }

  /// A medium that takes one piece of memory at a time gets a buffer; one that takes many gets 1024 at most.
  @Test func mediaTakeSoManyPieces() throws {
    for takesVectors in [false, true] {
      let fixture = try Self.fixture(
        persistent: true, segments: 4096, sectors: 8192,
        medium: MediumGeometry(blockByteCount: 512, memoryAlignment: 1, takesVectors: takesVectors))
      fixture.stamp(page: 0, 6)
      let page = fixture.world.guest.grant(page: 0)
      for (id, count) in [1, 2, 11, 1024, 1025, 4096].enumerated() {
        fixture.placeIndirect(
          .write, id: UInt64(id), sector: 0, Array(repeating: (page, 0, 0), count: count),
          descriptors: 40 + id * 8)
        #expect(try fixture.settle()[UInt64(id)]?.status == .okay)
        #expect(fixture.diskWords(count - 1, count: 1) == Array(EngineFixture.stamps(6).prefix(64)))
      }
      fixture.expectNothingLeft()
    }
  }

  /// A request that waits for memory for its descriptors, or then for its data, goes on when there is some.
  @Test(arguments: [false, true])
  func waitingForMemory(_ persistent: Bool) throws {
    for seed: UInt64 in 1...20 {
      let fixture = try EngineFixture(offered: [.indirect, .flush], segments: 64) {
        $0.usesPersistentGrants = persistent
        $0.bufferByteCount = 16384
        $0.seed = seed
        $0.medium = MediumGeometry(blockByteCount: 4096, memoryAlignment: 512)
      }
      fixture.world.host.faults.allocationFailure = seed % 2 == 0 ? 400 : 0
      let page = fixture.world.guest.grant(page: 0)
      for id in 0..<32 {
        fixture.placeIndirect(
          id % 2 == 0 ? .read : .write, id: UInt64(id), sector: UInt64(id * 16 + 1),
          Array(repeating: (page, 0, 0), count: 12), descriptors: 20 + id)
      }
      let answers = try fixture.settle()
      #expect(answers.count == 32 && answers.values.allSatisfy { $0.status == .okay })
      fixture.expectNothingLeft()
    }
  }

  @Test func readOnlyDisksRefuseIndirectWrites() throws {
    let fixture = try EngineFixture(offered: .indirect, segments: 8, readOnly: true)
    let page = fixture.world.guest.grant(page: 0)
    fixture.placeIndirect(.write, id: 1, sector: 0, [(page, 0, 0)], descriptors: 20)
    fixture.placeIndirect(.read, id: 2, sector: 0, [(page, 0, 0)], descriptors: 21)
    let answers = try fixture.settle()
    #expect(answers[1]?.status == .error && answers[2]?.status == .okay)
  }
}
