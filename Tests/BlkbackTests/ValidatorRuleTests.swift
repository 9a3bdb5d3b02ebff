import Blkback
import RingKit
import Testing

/// One bad request for each rule, with the status and the reason it must get, and its good neighbour.
struct ValidatorRuleTests {
  static let size: UInt64 = 1000
  let open: RequestValidator
  let sealed: RequestValidator
  let plain: RequestValidator

  init() throws {
    open = RequestValidator(
      limits: try BlockLimits(
        sectorCount: Self.size, offered: everything, maximumIndirectSegments: 32,
        discardGranularityBytes: 4096))
    sealed = RequestValidator(
      limits: try BlockLimits(
        sectorCount: Self.size, readOnly: true, offered: everything, maximumIndirectSegments: 32))
    plain = RequestValidator(limits: try BlockLimits(sectorCount: Self.size))
  }

  func discard(_ sector: UInt64, _ count: UInt64, flags: UInt8 = 0) -> SlotCopy {
    BlockRequest(discarding: count, flags: flags, id: 1, sectorNumber: sector, abi: .x86_64).encode()
  }

  func indirect(_ operation: BlockOperation, _ count: UInt16) -> SlotCopy {
    BlockRequest(indirect: operation, segmentCount: count, id: 1, sectorNumber: 0, abi: .x86_64).encode()
  }

  @Test func badRequestsAndTheirReasons() {
    let bad: [(RequestValidator, SlotCopy, BlockStatus, RejectReason)] = [
      (open, directSlot(BlockOperation(rawValue: 4), sector: 0, [(0, 7)]), .notSupported, .unknownOperation),
      (open, directSlot(BlockOperation(rawValue: 7), sector: 0, [(0, 7)]), .notSupported, .unknownOperation),
      (plain, directSlot(.flush, sector: 0, []), .notSupported, .notOffered),
      (plain, directSlot(.writeBarrier, sector: 0, []), .notSupported, .notOffered),
      (plain, discard(0, 8), .notSupported, .notOffered),
      (plain, indirect(.read, 1), .notSupported, .notOffered),
      (open, indirect(.indirect, 1), .error, .indirectOperation),
      (open, indirect(.flush, 1), .error, .indirectOperation),
      (sealed, directSlot(.write, sector: 0, [(0, 7)]), .error, .readOnly),
      (sealed, directSlot(.flush, sector: 0, [(0, 7)]), .error, .readOnly),
      (sealed, directSlot(.writeBarrier, sector: 0, [(0, 7)]), .error, .readOnly),
      (sealed, discard(0, 8), .error, .readOnly),
      (sealed, discard(0, 0), .error, .readOnly),
      (sealed, indirect(.write, 1), .error, .readOnly),
      (open, directSlot(.read, sector: 0, []), .error, .noSegments),
      (open, directSlot(.write, sector: 0, []), .error, .noSegments),
      (open, indirect(.read, 0), .error, .noSegments),
      (open, directSlot(.read, sector: 0, [], count: 12), .error, .tooManySegments),
      (open, directSlot(.flush, sector: 0, [], count: 255), .error, .tooManySegments),
      (open, indirect(.read, 33), .error, .tooManySegments),
      (open, directSlot(.read, sector: 0, [(0, 7), (3, 2)]), .error, .segmentReversed),
      (open, directSlot(.read, sector: 0, [(255, 0)]), .error, .segmentReversed),
      (open, directSlot(.read, sector: 0, [(0, 8)]), .error, .segmentOutsidePage),
      (open, directSlot(.read, sector: 0, [(0, 255)]), .error, .segmentOutsidePage),
      (open, directSlot(.read, sector: 0, [(8, 8)]), .error, .segmentOutsidePage),
      (open, directSlot(.read, sector: 993, [(0, 7)]), .error, .outsideDisk),
      (open, directSlot(.read, sector: 1000, [(0, 0)]), .error, .outsideDisk),
      (open, directSlot(.read, sector: .max, [(0, 0)]), .error, .outsideDisk),
      (open, discard(0, 1001), .error, .outsideDisk),
      (open, discard(8, .max), .error, .outsideDisk),
      (open, discard(1, 8), .error, .discardMisaligned),
    ]
    for (validator, slot, status, reason) in bad {
      #expect(validator.judge(slot) == .reject(status, reason), "\(BlockRequest(slot, abi: .x86_64))")
    }
    let proven = Set(bad.map(\.3)).union([.misaligned])
    #expect(proven == Set(RejectReason.allCases), "a rule without a bad request")
    #expect(Set(RejectReason.allCases.map(\.description)).count == RejectReason.allCases.count)
  }

  @Test func goodRequests() {
    let good: [(RequestValidator, SlotCopy, Outcome)] = [
      (
        plain, directSlot(.read, sector: 992, [(0, 7)]),
        .moved(.read, byte: 507_904, bytes: 4096, segments: 1)
      ),
      (plain, directSlot(.write, sector: 0, [(7, 7)]), .moved(.write, byte: 0, bytes: 512, segments: 1)),
      (sealed, directSlot(.read, sector: 0, [(0, 0)]), .moved(.read, byte: 0, bytes: 512, segments: 1)),
      (open, directSlot(.flush, sector: .max, []), .flush),
      (sealed, directSlot(.flush, sector: 0, []), .flush),
      (open, directSlot(.writeBarrier, sector: .max, []), .barrier),
      (
        open, directSlot(.flush, sector: 8, [(1, 2), (0, 0)]),
        .moved(.flushThenWrite, byte: 4096, bytes: 1536, segments: 2)
      ),
      (
        open, directSlot(.writeBarrier, sector: 8, [(1, 2)]),
        .moved(.barrierWrite, byte: 4096, bytes: 1024, segments: 1)
      ),
      (open, indirect(.read, 32), .descriptors(.read, sector: 0, segments: 32, pages: 1)),
      (open, indirect(.write, 1), .descriptors(.write, sector: 0, segments: 1, pages: 1)),
      (open, discard(8, 3), .discarded(byte: 4096, bytes: 1536, secure: false)),
      (open, discard(0, 1000, flags: 1), .discarded(byte: 0, bytes: 512_000, secure: true)),
      (open, discard(0, 1, flags: 0xFE), .discarded(byte: 0, bytes: 512, secure: false)),
      (open, discard(.max, 0), .nothing),
    ]
    for (validator, slot, outcome) in good {
      #expect(Outcome(validator.judge(slot)) == outcome, "\(BlockRequest(slot, abi: .x86_64))")
    }
  }

  @Test func secureFlagIsIgnoredUnlessOffered() throws {
    let limits = try BlockLimits(sectorCount: 1000, offered: .discard)
    let verdict = RequestValidator(limits: limits).judge(discard(0, 8, flags: 1))
    #expect(Outcome(verdict) == .discarded(byte: 0, bytes: 4096, secure: false))
  }

  @Test func discardExtentsMayBeginAtAnOffset() throws {
    let limits = try BlockLimits(
      sectorCount: 1000, offered: .discard, discardGranularityBytes: 8192, discardAlignmentBytes: 9216)
    let validator = RequestValidator(limits: limits)
    for sector: UInt64 in 0..<1000 {
      let isAligned = sector % 16 == 2
      let verdict = validator.judge(discard(sector, 1))
      #expect((verdict == .reject(.error, .discardMisaligned)) != isAligned, "sector \(sector)")
    }
  }

  @Test func everyOperationNumberUnderEveryOffer() throws {
    for bits: UInt8 in 0..<32 {
      let offered = BlockOptions(rawValue: bits)
      let validator = RequestValidator(
        limits: try BlockLimits(sectorCount: 1000, offered: offered, maximumIndirectSegments: 8))
      let supported: [UInt8: Bool] = [
        0: true, 1: true, 2: offered.contains(.barrier), 3: offered.contains(.flush),
        5: offered.contains(.discard), 6: offered.contains(.indirect),
      ]
      for number: UInt8 in 0...255 {
        for abi in BlockABI.allCases {
          var slot = directSlot(BlockOperation(rawValue: number), sector: 0, [(0, 0)], abi: abi)
          if number == 6 {
            slot = BlockRequest(indirect: .read, segmentCount: 1, id: 3, sectorNumber: 0, abi: abi).encode()
          }
          let request = BlockRequest(slot, abi: abi)
          let verdict = validator.judge(request, slot)
          if supported[number] == true {
            if case .reject = verdict { Issue.record("\(request) refused: \(verdict)") }
          } else {
            let reason: RejectReason = supported[number] == nil ? .unknownOperation : .notOffered
            #expect(verdict == .reject(.notSupported, reason))
          }
          // Even an operation nobody knows is answered under its own id.
          #expect(request.id == (number == 6 ? 3 : number == 5 ? request.id : 0x1234_5678_9ABC_DEF0))
        }
      }
    }
  }

  @Test func readOnlyDisksLetOnlyReadsAndEmptyFlushesThrough() throws {
    let kinds: [(SlotCopy, Bool)] = [
      (directSlot(.read, sector: 0, [(0, 0)]), true), (directSlot(.write, sector: 0, [(0, 0)]), false),
      (directSlot(.flush, sector: 0, []), true), (directSlot(.flush, sector: 0, [(0, 0)]), false),
      (directSlot(.writeBarrier, sector: 0, []), true),
      (directSlot(.writeBarrier, sector: 0, [(0, 0)]), false),
      (discard(0, 0), false), (discard(0, 8), false), (indirect(.read, 1), true),
      (indirect(.write, 1), false),
    ]
    for (slot, allowed) in kinds {
      let request = BlockRequest(slot, abi: .x86_64)
      #expect((sealed.judge(slot) == .reject(.error, .readOnly)) != allowed, "\(request)")
      if case .reject = open.judge(slot) { Issue.record("\(request) refused on a writable disk") }
    }
  }

  @Test func indirectResponsesCarryTheInnerOperation() {
    for inner: UInt8 in 0...255 {
      let request = BlockRequest(indirect(BlockOperation(rawValue: inner), 1), abi: .x86_64)
      #expect(request.responseOperation.rawValue == inner)
    }
  }

  @Test func limitsThatMakeNoSenseAreRefused() throws {
    for bytes in [0, 1, 256, 511, 513, 1536, 8192, -512] {
      #expect(throws: BlockLimitsError.sectorSize(bytes)) {
        try BlockLimits(sectorCount: 8, sectorByteCount: bytes)
      }
    }
    for (count, bytes): (UInt64, Int) in [(7, 4096), (1 << 54, 512), (.max, 512), (UInt64.max - 7, 4096)] {
      #expect(throws: BlockLimitsError.sectorCount(count, sectorByteCount: bytes)) {
        try BlockLimits(sectorCount: count, sectorByteCount: bytes)
      }
    }
    for count in [-1, 0, 4097] {
      #expect(throws: BlockLimitsError.indirectSegments(count)) {
        try BlockLimits(sectorCount: 8, offered: .indirect, maximumIndirectSegments: count)
      }
    }
    for (granularity, alignment) in [(0, 0), (-512, 0), (700, 0), (512, 1), (512, -512)] {
      #expect(throws: BlockLimitsError.self) {
        try BlockLimits(
          sectorCount: 8, discardGranularityBytes: granularity, discardAlignmentBytes: alignment)
      }
    }
    let limits = try BlockLimits(sectorCount: 8, maximumIndirectSegments: 99)
    #expect(limits.maximumIndirectSegments == 0 && limits.discardGranularityBytes == 512)
    #expect(try limits.resized(to: 16).sectorCount == 16)
    #expect(throws: BlockLimitsError.self) { try limits.resized(to: .max) }
  }
}
