import Blkback
import Foundation
import Frontends
import Loopback
import RingKit
import Synchronization
import Testing

/// Indirect requests that break the rules, and barriers without end: each is answered once, and nobody else
/// notices.
@Suite(.serialized, .timeLimit(.minutes(10))) struct HostileIndirectTests {
  /// How a connection moves its data.
  static let ways = BlockABI.allCases.flatMap { abi in [true, false].map { (abi, $0) } }

  @Test(arguments: ways) func headersBeyondTheRules(abi: BlockABI, persistent: Bool) throws {
    let guest = try HostileGuest(abi: abi, persistent: persistent)
    let one = [guest.segment(0)]
    for operation in [2, 3, 4, 5, 6, 7, 255] as [UInt8] {
      // 6 is an indirect request within an indirect one.
      try guest.expect(
        .error, of: guest.indirect(Blkback.BlockOperation(rawValue: operation), one),
        "inner operation \(operation)")
    }
    for operation in [Blkback.BlockOperation.read, .write] {
      for count in [0, 257, 512, 4096, 4097, 65535] as [UInt16] {
        try guest.expect(
          .error, of: guest.indirect(operation, one, count: count), "\(operation) of \(count) segments")
      }
      for sector in [2048, 2041, 1 << 55, .max, .max - 6] as [UInt64] {
        try guest.expect(
          .error, of: guest.indirect(operation, sector: sector, one), "\(operation) at \(sector)")
      }
    }
    // What the rules allow: few segments, one page many times, and anything in places that are not used.
    try guest.expect(.okay, of: guest.indirect(one), "one segment")
    let many = [BlockSegment](repeating: guest.segment(1), count: 256)
    try guest.expect(.okay, of: guest.indirect(many), "one page 256 times")
    try guest.expect(
      .okay, of: guest.indirect(many, others: GrantReference(rawValue: 0xFFFF_FFFF)), "unused references")
    try guest.expect(
      .okay, of: guest.indirect(.write, sector: HostileGuest.scratchSector, Array(many.prefix(128))),
      "the same to be written")
    // The descriptors themselves as data, to be written and to be read over.
    let itself = [BlockSegment](repeating: guest.segment(63), count: 16)
    try guest.expect(
      .okay, of: guest.indirect(.write, sector: HostileGuest.scratchSector, itself), "descriptors written")
    try guest.expect(.okay, of: guest.indirect(itself), "descriptors read over")
    try guest.finish()
  }

  @Test(arguments: ways) func segmentsBeyondTheirPages(abi: BlockABI, persistent: Bool) throws {
    let guest = try HostileGuest(abi: abi, persistent: persistent)
    for (first, last) in [(0, 8), (0, 255), (255, 255), (5, 2), (8, 8), (7, 0)] as [(UInt8, UInt8)] {
      for place in [0, 100, 255] {
        for operation in [Blkback.BlockOperation.read, .write] {
          var segments = [BlockSegment](repeating: guest.segment(2), count: 256)
          segments[place] = guest.segment(3, first: first, last: last)
          try guest.expect(
            .error, of: guest.indirect(operation, segments), "segment \(place): \(first)...\(last)")
        }
      }
    }
    // The last segment leaves the disk.
    let segments = [BlockSegment](repeating: guest.segment(2), count: 256)
    try guest.expect(.error, of: guest.indirect(.write, sector: 1, segments), "one sector too many")
    try guest.expect(.okay, of: guest.indirect(segments), "the whole disk")
    try guest.finish()
  }

  @Test(arguments: ways) func referencesToNothing(abi: BlockABI, persistent: Bool) throws {
    let guest = try HostileGuest(abi: abi, persistent: persistent)
    let segments = [BlockSegment](repeating: guest.segment(4), count: 40)
    let sharing = guest.sharing
    let revoked = try sharing.share(pageCount: 1, with: FrontendWorld.backend, access: .readWrite)
    let loopback = try #require(sharing as? LoopbackGrantSharing)
    try loopback.end(revoked.references[0])
    let own = try sharing.share(pageCount: 1, with: FrontendWorld.guest, access: .readWrite)
    let foreign = try sharing.share(pageCount: 1, with: DomainID(rawValue: 8), access: .readWrite)
    let bad: [(String, GrantReference)] = [
      ("never granted", GrantReference(rawValue: 60_000)),
      ("beyond any table", GrantReference(rawValue: .max)),
      ("reserved", GrantReference(rawValue: 0)), ("revoked", revoked.references[0]),
      ("granted to itself", own.references[0]), ("granted to another", foreign.references[0]),
    ]
    for (name, reference) in bad {
      for operation in [Blkback.BlockOperation.read, .write] {
        try guest.expect(
          .error, of: guest.indirect(operation, segments, descriptors: reference), "descriptors \(name)")
        for place in [0, 20, 39] {
          var pieces = segments
          pieces[place] = BlockSegment(reference: reference, firstSector: 0, lastSector: 7)
          try guest.expect(.error, of: guest.indirect(operation, pieces), "data \(place) \(name)")
        }
      }
    }
    // A page that may only be read is as good for descriptors, and for data to be written.
    let readOnly = try sharing.share(pageCount: 1, with: FrontendWorld.backend, access: .readOnly)
    guest.describe(segments, in: readOnly, page: 0)
    try guest.expect(
      .okay, of: guest.indirect(segments, descriptors: readOnly.references[0]), "read-only descriptors")
    var pieces = segments
    pieces[7] = BlockSegment(reference: readOnly.references[0], firstSector: 0, lastSector: 7)
    try guest.expect(
      .okay, of: guest.indirect(.write, sector: HostileGuest.scratchSector, pieces), "read-only data written")
    try guest.expect(.error, of: guest.indirect(pieces), "read-only data to be filled")

    // One that was of use and then was ended; a mapping that was kept may outlive the grant.
    let used = try sharing.share(pageCount: 1, with: FrontendWorld.backend, access: .readWrite)
    guest.describe(segments, in: used, page: 0)
    let slot = guest.indirect(segments, descriptors: used.references[0])
    try guest.expect(.okay, of: slot, "descriptors granted for now")
    try loopback.end(used.references[0])
    let again = guest.indirect(segments, descriptors: used.references[0])
    if persistent {
      try guest.expect(.okay, .error, of: again, "descriptors ended while mapped")
    } else {
      try guest.expect(.error, of: again, "descriptors ended")
    }
    try guest.finish()
  }

  /// Changes descriptors for as long as it runs.
  private final class Rewriter: Sendable {
    private let isStopped = Atomic(false)
    private let ended = DispatchSemaphore(value: 0)
    private let pages: SharedPages

    init(_ pages: SharedPages, range: Range<Int>) {
      self.pages = pages
      let reference = pages.references[0].rawValue
      let thread = Thread { [self] in
        var random = SeededGenerator(seed: 3)
        let words: [UInt64] = [
          UInt64(reference) | 7 << 40, UInt64(reference) | 255 << 40, UInt64(reference) | 7 << 32,
          0xFFFF_FFFF | 7 << 40, UInt64(reference) | 8 << 40, .max, 0,
        ]
        while !isStopped.load(ordering: .relaxed) {
          let page = range.lowerBound + Int(random.next() % UInt64(range.count))
          // Mostly sound ones, so that some requests pass.
          let number = random.next()
          let word = words[number % 16 < 7 ? Int(number % 16) : 0]
          pages.pages.setWords([word], at: page * 4096 + Int(number >> 32 % 48) * 8)
        }
        ended.signal()
      }
      thread.start()
    }

    func stop() throws {
      isStopped.store(true, ordering: .relaxed)
      guard ended.wait(timeout: .now() + 20) == .success else { throw WorldFailure("the rewriter hangs") }
    }
  }

  @Test(arguments: [true, false]) func descriptorsRewrittenInFlight(persistent: Bool) throws {
    let guest = try HostileGuest(persistent: persistent)
    for page in 32..<48 {
      guest.describe(
        [BlockSegment](repeating: guest.segment(0), count: 48), in: guest.pages, page: page)
    }
    let rewriter = Rewriter(guest.pages, range: 32..<48)
    var sent: Set<UInt64> = []
    var answers: [BlockStatus: Int] = [:]
    for number in 0..<600 {
      let request = BlockRequest(
        indirect: number % 2 == 0 ? .read : .write, segmentCount: 48, id: guest.newID(),
        sectorNumber: number % 2 == 0 ? 0 : HostileGuest.scratchSector, abi: .x86_64)
      var slot = request.encode()
      request.setIndirectReference(guest.pages.references[32 + number % 16], at: 0, in: &slot)
      #expect(guest.queue.submitRaw(slot))
      sent.insert(request.id)
      try guest.frontend.push()
      while sent.count >= 16 || number == 599 && !sent.isEmpty {
        let response = try guest.frontend.answer().response
        #expect(sent.remove(response.id) != nil, "answered twice, or never sent")
        answers[response.status, default: 0] += 1
      }
    }
    try rewriter.stop()
    #expect(Set(answers.keys).isSubset(of: [.okay, .error]))
    #expect(answers.values.reduce(0, +) == 600)
    try guest.finish()
  }

  @Test func whatIsNotOfferedIsNotParsed() throws {
    let guest = try HostileGuest { offer in
      offer.indirectSegments = 0
      offer.barrier = false
    }
    #expect(guest.frontend.features?.maximumIndirectSegments == 0)
    try guest.expect(.notSupported, of: guest.indirect([guest.segment(0)]), "indirect")
    try guest.expect(
      .notSupported, of: guest.indirect(Blkback.BlockOperation(rawValue: 9), [], count: 65535), "junk in it")
    #expect(try guest.frontend.perform(BlockFrontRequest(.writeBarrier, sectorCount: 8)) == .notSupported)
    #expect(try guest.frontend.perform(BlockFrontRequest(.writeBarrier)) == .notSupported)
    try guest.finish()
  }

  @Test(arguments: [true, false]) func barriersWithoutEnd(persistent: Bool) throws {
    let guest = try HostileGuest(persistent: persistent)
    #expect(guest.frontend.queues.count == 3)
    var random = SeededGenerator(seed: 5)
    for _ in 0..<6 {
      var count = 0
      for queue in guest.frontend.queues {
        while true {
          let chance = random.next() % 8
          let sector = HostileGuest.scratchSector + random.next() % 900
          let request =
            chance < 3
            ? BlockFrontRequest(.writeBarrier, sector: sector, sectorCount: Int(random.next() % 88))
            : chance < 5
              ? BlockFrontRequest(.flush, sector: sector, sectorCount: Int(random.next() % 88))
              : BlockFrontRequest(chance < 7 ? .write : .read, sector: sector, sectorCount: 100)
          guard let handle = try queue.prepare(request) else { break }
          queue.submit(handle)
          count += 1
        }
      }
      #expect(count > 30)
      try guest.expectOkay(count)
    }
    try guest.finish()
  }
}
