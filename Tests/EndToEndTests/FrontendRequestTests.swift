import RingKit
import Testing

@testable import Blkback
@testable import Frontends

/// Requests beyond reads and writes of a few pages, as a queue puts them into its ring.
@Suite struct FrontendRequestTests {
  private func limits(indirect: Int, sector: Int = 512, granularity: Int = 512, alignment: Int = 0)
    -> RequestLimits
  {
    var limits = RequestLimits()
    limits.indirectSegments = indirect
    limits.sectorByteCount = sector
    limits.discardGranularity = granularity
    limits.discardAlignment = alignment
    return limits
  }

  @Test(arguments: BlockABI.allCases, [12, 32, 511, 512, 513, 1024])
  func whatASlotCannotHoldGoesIntoDescriptorPages(abi: BlockABI, count: Int) throws {
    var bench = try QueueBench(abi: abi, dataPages: 1100, limits: limits(indirect: 1024))
    #expect(bench.queue.segmentCapacity == 1024)
    let request = BlockFrontRequest(
      .write, sector: 0x1_2345_6000, sectorCount: count * 8 - 5, firstPageSector: 3)
    let slot = try bench.slot(request)
    let taken = BlockRequest(slot, abi: abi)
    #expect(taken.operation == .indirect)
    #expect(taken.innerOperation == .write)
    #expect(taken.sectorNumber == 0x1_2345_6000)
    #expect(Int(taken.segmentCount) == count)
    #expect(taken.handle == UInt16(51712))
    var references = Set<UInt32>()
    for index in 0..<count {
      let segment = try bench.segment(index, taken, slot)
      #expect(segment.firstSector == (index == 0 ? 3 : 0))
      #expect(segment.lastSector == (index == count - 1 ? 5 : 7))
      #expect(references.insert(segment.reference.rawValue).inserted)
    }
    // A descriptor page is no data page.
    for page in 0..<(count + 511) / 512 {
      #expect(references.insert(taken.indirectReference(at: page, in: slot).rawValue).inserted)
    }

    bench.back.respond(
      BlockResponse(id: taken.id, operation: .write, status: .okay).encode(),
      byteCount: abi.responseByteCount)
    _ = bench.back.publish()
    bench.queue.release(try #require(try bench.queue.nextCompletion()?.handle))
    // All of its pages came back: two of the largest do not fit together.
    #expect(try bench.queue.prepare(BlockFrontRequest(.read, sectorCount: 1024 * 8)) != nil)
    #expect(try bench.queue.prepare(BlockFrontRequest(.read, sectorCount: 1024 * 8)) == nil)
  }

  @Test func elevenSegmentsStayInTheSlotUnlessToldOtherwise() throws {
    for (direct, count, expected) in [
      (11, 11, BlockOperation.read), (11, 12, .indirect), (0, 1, .indirect), (4, 4, .read), (4, 5, .indirect),
    ] {
      var bench = try QueueBench(dataPages: 1100, directSegments: direct, limits: limits(indirect: 32))
      let slot = try bench.slot(BlockFrontRequest(.read, sectorCount: count * 8))
      #expect(BlockRequest(slot, abi: .x86_64).operation == expected, "\(count) of \(direct)")
    }
    // Flushes and barriers have no indirect form.
    for operation in [BlockOperation.flush, .writeBarrier] {
      var bench = try QueueBench(dataPages: 1100, directSegments: 0, limits: limits(indirect: 32))
      let slot = try bench.slot(BlockFrontRequest(operation, sectorCount: 88))
      let taken = BlockRequest(slot, abi: .x86_64)
      #expect(taken.operation == operation)
      #expect(taken.segmentCount == 11)
    }
  }

  @Test func limitsFollowLinux() {
    var features = BackendFeatures(
      persistentGrants: true, flush: true, barrier: false, discard: true, discardGranularityByteCount: 0,
      discardAlignmentByteCount: 0, secureDiscard: false, maximumIndirectSegments: 256,
      maximumRingPageOrder: 0, maximumQueues: 1)
    let disk = DiskProperties(sectorCount: 8, sectorByteCount: 4096, physicalSectorByteCount: 4096, info: 0)
    var options = BlockFrontendOptions()
    #expect(RequestLimits(features, disk, options).indirectSegments == 32)
    options.maximumIndirectSegments = 1 << 20
    #expect(RequestLimits(features, disk, options).indirectSegments == 256)
    features.maximumIndirectSegments = .max
    #expect(RequestLimits(features, disk, options).indirectSegments == 4096)
    #expect(RequestLimits(features, disk, options).pagesOfRequest == 4104)
    features.maximumIndirectSegments = 11
    #expect(RequestLimits(features, disk, options).indirectSegments == 0)
    #expect(RequestLimits(features, disk, options).pagesOfRequest == 11)
    #expect(RequestLimits(features, disk, options).discardGranularity == 4096)
    features.discardGranularityByteCount = 65536
    #expect(RequestLimits(features, disk, options).discardGranularity == 65536)
    #expect(features.flushOperation == .flush)
    features.flush = false
    #expect(features.flushOperation == nil)
    features.barrier = true
    #expect(features.flushOperation == .writeBarrier)
  }

  @Test(arguments: BlockABI.allCases)
  func discardsCarryTheirFlag(abi: BlockABI) throws {
    var bench = try QueueBench(abi: abi, dataPages: 1100, limits: limits(indirect: 32))
    for isSecure in [true, false] {
      let request = BlockFrontRequest(.discard, sector: 9, sectorCount: .max, isSecure: isSecure)
      let taken = BlockRequest(try bench.slot(request), abi: abi)
      #expect(taken.discardFlags == (isSecure ? 1 : 0))
      #expect(taken.discardSectorCount == UInt64(Int.max))
      #expect(taken.sectorNumber == 9)
    }
  }

  @Test func whatBreaksTheDisksAlignmentIsRefused() throws {
    let large = limits(indirect: 0, sector: 4096, granularity: 8192, alignment: 4096)
    let cases: [(BlockFrontRequest, Bool)] = [
      (BlockFrontRequest(.read, sector: 8, sectorCount: 8), true),
      (BlockFrontRequest(.read, sector: 4, sectorCount: 8), false),
      (BlockFrontRequest(.write, sector: 8, sectorCount: 9), false),
      (BlockFrontRequest(.write, sector: 8, sectorCount: 8, firstPageSector: 1), false),
      (BlockFrontRequest(.flush), true),
      (BlockFrontRequest(.discard, sector: 8, sectorCount: 8), true),
      (BlockFrontRequest(.discard, sector: 24, sectorCount: 80), true),
      (BlockFrontRequest(.discard, sector: 16, sectorCount: 16), false),
      (BlockFrontRequest(.discard, sector: 8, sectorCount: 4), false),
      (BlockFrontRequest(.discard, sector: .max - 7, sectorCount: 8), false),
    ]
    for (request, isAligned) in cases {
      let bench = try QueueBench(dataPages: 1100, limits: large)
      if isAligned {
        #expect(try bench.queue.prepare(request) != nil, "\(request)")
      } else {
        let error = #expect(throws: BlockFrontendError.self, "\(request)") {
          try bench.queue.prepare(request)
        }
        guard case .misaligned = error else { throw WorldFailure("\(String(describing: error))") }
      }
      let careless = try QueueBench(dataPages: 1100, allowsMisaligned: true, limits: large)
      #expect(try careless.queue.prepare(request) != nil)
    }
  }

  @Test func aBackendThatTakesLessThanWhatIsInFlightIsRefused() throws {
    var bench = try QueueBench(dataPages: 1100, limits: limits(indirect: 32))
    _ = try bench.slot(BlockFrontRequest(.read, sectorCount: 20 * 8))
    let ring = try sharedPages(1)
    try bench.queue.restart(ringPages: ring, port: Port(rawValue: 2), firstRingIndex: 0)
    let error = #expect(throws: BlockFrontendError.self) {
      try bench.queue.begin(limits(indirect: 16)) { RequestPages() }
    }
    guard case .segmentsShrank(from: 20, to: 16) = error else {
      throw WorldFailure("\(String(describing: error))")
    }
    try bench.queue.restart(ringPages: ring, port: Port(rawValue: 2), firstRingIndex: 0)
    // More than the pages were laid out for changes nothing.
    try bench.queue.begin(limits(indirect: 256)) { RequestPages() }
    #expect(bench.queue.segmentCapacity == 32)
  }
}
