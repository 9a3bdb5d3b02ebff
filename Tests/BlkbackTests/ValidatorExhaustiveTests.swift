import Blkback
import RingKit
import Simulator
import Testing

/// Spaces small enough to be tried in full, and a seeded walk through the rest against ``ValidatorModel``.
struct ValidatorExhaustiveTests {
  /// XSA-513: all 65,536 pairs, in the first and the last place, in every layout and sector size.
  @Test(arguments: BlockABI.allCases, [512, 1024, 2048, 4096])
  func everySectorPair(_ abi: BlockABI, _ sectorBytes: Int) throws {
    let validator = RequestValidator(
      limits: try BlockLimits(
        sectorCount: 1 << 20, sectorByteCount: sectorBytes, offered: .indirect, maximumIndirectSegments: 1))
    let header = BlockRequest(
      operation: .read, segmentCount: 11, id: 1, sectorNumber: 0, abi: abi)
    let whole = BlockSegment(reference: GrantReference(rawValue: 1), firstSector: 0, lastSector: 7)
    var template = header.encode()
    for index in 0..<11 { header.setSegment(whole, at: index, in: &template) }
    guard
      case .indirect(let indirect) = validator.judge(
        BlockRequest(indirect: .read, segmentCount: 1, id: 1, sectorNumber: 0, abi: abi).encode(), abi: abi)
    else {
      Issue.record("indirect header refused")
      return
    }
    var accepted = 0
    for first: UInt8 in 0...255 {
      for last: UInt8 in 0...255 {
        let isAllowed = ValidatorModel.isAllowed(first, last, sectorBytes: sectorBytes)
        let bytes = isAllowed ? (UInt128(last) - UInt128(first) + 1) * 512 : 0
        let segment = BlockSegment(
          reference: GrantReference(rawValue: .max), firstSector: first, lastSector: last)
        for place in [0, 10] {
          var slot = template
          header.setSegment(segment, at: place, in: &slot)
          let outcome = Outcome(validator.judge(slot, abi: abi))
          let expected: Outcome =
            isAllowed ? .moved(.read, byte: 0, bytes: 40_960 + bytes, segments: 11) : .refused(-1)
          if outcome != expected { Issue.record("(\(first),\(last)) at \(place): \(outcome)") }
        }
        let outcome = Outcome(validator.judgeSegments(of: indirect, ListedSegments(segments: [segment])))
        let expected: Outcome =
          isAllowed ? .moved(.read, byte: 0, bytes: bytes, segments: 1) : .refused(-1)
        if outcome != expected { Issue.record("(\(first),\(last)) indirect: \(outcome)") }
        accepted += isAllowed ? 1 : 0
      }
    }
    #expect(accepted == [512: 36, 1024: 10, 2048: 3, 4096: 1][sectorBytes])
  }

  /// XSA-513: all values of nr_segments, with every place behind the table filled with legal-looking bytes.
  @Test(arguments: BlockABI.allCases)
  func everyDirectSegmentCount(_ abi: BlockABI) throws {
    let validator = RequestValidator(
      limits: try BlockLimits(sectorCount: 1 << 20, offered: [.flush, .barrier]))
    for operation in [BlockOperation.read, .write, .writeBarrier, .flush] {
      for count: UInt8 in 0...255 {
        let header = BlockRequest(
          operation: operation, segmentCount: count, id: 1, sectorNumber: 0, abi: abi)
        var slot = header.encode()
        let whole = BlockSegment(reference: GrantReference(rawValue: 1), firstSector: 0, lastSector: 7).word
        for place in stride(from: abi.segmentsOffset, through: SlotCopy.capacity - 8, by: 8) {
          slot.setUInt64(whole, at: place)
        }
        let outcome = Outcome(validator.judge(slot, abi: abi))
        switch (operation, count) {
        case (.writeBarrier, 0): #expect(outcome == .barrier)
        case (.flush, 0): #expect(outcome == .flush)
        case (_, 1...11):
          guard case .moved(_, byte: 0, let bytes, let segments) = outcome else {
            Issue.record("\(operation) of \(count): \(outcome)")
            continue
          }
          #expect(bytes == UInt128(count) * 4096 && segments == Int(count))
        default: #expect(outcome == .refused(-1))
        }
      }
    }
  }

  /// All 65,536 counts of an indirect request under several announcements.
  @Test(arguments: [1, 11, 12, 256, 511, 512, 513, 4095, 4096])
  func everyIndirectSegmentCount(_ maximum: Int) throws {
    let validator = RequestValidator(
      limits: try BlockLimits(sectorCount: 1 << 20, offered: .indirect, maximumIndirectSegments: maximum))
    for abi in BlockABI.allCases {
      for count: UInt16 in 0...UInt16.max {
        let slot = BlockRequest(
          indirect: .write, segmentCount: count, id: 1, sectorNumber: 9, abi: abi
        ).encode()
        let outcome = Outcome(validator.judge(slot, abi: abi))
        var expected = Outcome.refused(-1)
        if count >= 1 && Int(count) <= maximum {
          let pages = Int(count) / 512 + (Int(count) % 512 == 0 ? 0 : 1)
          expected = .descriptors(.write, sector: 9, segments: Int(count), pages: pages)
        }
        if outcome != expected { Issue.record("\(count) of \(maximum): \(outcome)") }
      }
    }
  }

  /// Sector numbers around every edge: the disk's end, 2^55 (where bytes wrap), 2^63 and 2^64.
  @Test func everyEdgeOfTheDisk() throws {
    for size: UInt64 in [0, 1, 7, 8, 1000, 1 << 32, (1 << 54) - 1] {
      let limits = try BlockLimits(sectorCount: size, offered: .discard)
      let validator = RequestValidator(limits: limits)
      let model = ValidatorModel(limits: limits, compact: false)
      var edges: Set<UInt64> = []
      for middle: UInt64 in [0, size, 1 << 32, 1 << 54, 1 << 55, 1 << 56, 1 << 63, 0 &- size] {
        for step: UInt64 in 0...100 { edges.formUnion([middle &+ step, middle &- step]) }
      }
      for sector in edges {
        for segments in [[(0, 0)], [(0, 7)], Array(repeating: (0, 7), count: 11)] as [[(UInt8, UInt8)]] {
          let slot = directSlot(.read, sector: sector, segments)
          let outcome = Outcome(validator.judge(slot))
          if outcome != model.judge(slot.allBytes) { Issue.record("\(sector) of \(size): \(outcome)") }
        }
        for count: UInt64 in [0, 1, 8, size, size &- sector, size &- sector &+ 1, 0 &- sector, 1 << 55, .max]
        {
          let slot = BlockRequest(discarding: count, id: 0, sectorNumber: sector, abi: .x86_64).encode()
          let outcome = Outcome(validator.judge(slot))
          if outcome != model.judge(slot.allBytes) {
            Issue.record("discard \(sector)+\(count) of \(size): \(outcome)")
          }
        }
      }
    }
  }

  /// Requests that are mostly legal, with a fault here and there, against the slow model.
  @Test(arguments: BlockABI.allCases)
  func randomRequestsAgainstTheModel(_ abi: BlockABI) throws {
    var numbers = SeededNumbers(seed: 0x5EED_0001 &+ UInt64(abi.rawValue))
    var seen: [String: Int] = [:]
    for round in 0..<34_000 {
      let sectorBytes = [512, 512, 1024, 4096].randomElement(using: &numbers) ?? 512
      let size = UInt64(sectorBytes / 512) * UInt64.random(in: 0...500, using: &numbers)
      let offered = BlockOptions(rawValue: numbers.any(UInt8.self) | (numbers.chance(1, in: 2) ? 31 : 0))
      let limits = try BlockLimits(
        sectorCount: size, sectorByteCount: sectorBytes, readOnly: numbers.chance(1, in: 5),
        offered: offered, maximumIndirectSegments: .random(in: 1...80, using: &numbers),
        discardGranularityBytes: sectorBytes * Int.random(in: 1...4, using: &numbers),
        discardAlignmentBytes: sectorBytes * Int.random(in: 0...5, using: &numbers))
      let bytes = randomSlot(abi, size, UInt64(sectorBytes / 512), &numbers)
      let slot = SlotCopy(bytes: bytes)
      let validator = RequestValidator(limits: limits)
      let model = ValidatorModel(limits: limits, compact: abi == .x86_32)
      let verdict = validator.judge(slot, abi: abi)
      let expected = model.judge(bytes)
      if Outcome(verdict) != expected {
        Issue.record(
          "round \(round): \(verdict), model \(expected), \(BlockRequest(slot, abi: abi)), \(limits)")
      }
      if case .reject(_, let reason) = verdict { seen[reason.description, default: 0] += 1 }
      if case .transfer(let it) = verdict { seen["\(it.kind)", default: 0] += 1 }
      if case .discard = verdict { seen["discard", default: 0] += 1 }
      if case .indirect(let it) = verdict {
        let pairs = (0..<it.segmentCount).map { _ in randomPair(UInt64(sectorBytes / 512), &numbers) }
        let segments = pairs.map {
          BlockSegment(
            reference: GrantReference(rawValue: numbers.any(UInt32.self)), firstSector: $0.0, lastSector: $0.1
          )
        }
        let final = Outcome(validator.judgeSegments(of: it, ListedSegments(segments: segments)))
        let wanted = model.transfer(it.kind, pairs, it.sectorNumber)
        if final != wanted { Issue.record("round \(round): indirect \(final), model \(wanted)") }
        if case .moved = final { seen["indirect", default: 0] += 1 }
      }
    }
    // The walk is worth something only if it came through everywhere.
    let wanted =
      RejectReason.allCases.map(\.description)
      + ["read", "write", "flushThenWrite", "barrierWrite", "discard", "indirect"]
    for name in wanted { #expect(seen[name, default: 0] > 20, "the walk hardly met: \(name)") }
  }

  func randomPair(_ unit: UInt64, _ numbers: inout SeededNumbers) -> (UInt8, UInt8) {
    if numbers.chance(1, in: 80) { return (numbers.any(UInt8.self), numbers.any(UInt8.self)) }
    if numbers.chance(1, in: 80) {
      return (.random(in: 0...9, using: &numbers), .random(in: 0...9, using: &numbers))
    }
    let ends = 8 / unit
    let first = UInt64.random(in: 0..<ends, using: &numbers)
    let last = UInt64.random(in: first..<ends, using: &numbers)
    return (UInt8(first * unit), UInt8(last * unit + unit - 1))
  }

  func randomSlot(_ abi: BlockABI, _ size: UInt64, _ unit: UInt64, _ numbers: inout SeededNumbers) -> [UInt8]
  {
    var slot = SlotCopy()
    for place in stride(from: 0, to: SlotCopy.capacity, by: 8) { slot.setUInt64(numbers.next(), at: place) }
    if numbers.chance(1, in: 20) { return slot.allBytes }
    slot.setUInt8(.random(in: 0...7, using: &numbers), at: 0)
    var sector = UInt64.random(in: 0...(size + 16), using: &numbers) / unit * unit
    if numbers.chance(1, in: 20) { sector &+= 1 }
    if numbers.chance(1, in: 20) { sector = 0 &- UInt64.random(in: 0...100, using: &numbers) }
    slot.setUInt64(sector, at: abi.sectorNumberOffset)
    if slot.uint8(at: 0) == 5 {
      let count = UInt64.random(in: 0...40, using: &numbers) * unit
      slot.setUInt64(numbers.chance(1, in: 10) ? 0 &- count : count, at: abi.discardSectorCountOffset)
      return slot.allBytes
    }
    if slot.uint8(at: 0) == 6 {
      slot.setUInt8(.random(in: 0...2, using: &numbers), at: 1)
      let few = numbers.chance(1, in: 2)
      slot.setUInt16(few ? .random(in: 0...8, using: &numbers) : .random(in: 0...90, using: &numbers), at: 2)
      return slot.allBytes
    }
    slot.setUInt8(.random(in: 0...12, using: &numbers), at: 1)
    for index in 0..<11 {
      let pair = randomPair(unit, &numbers)
      slot.setUInt8(pair.0, at: abi.segmentsOffset + 8 * index + 4)
      slot.setUInt8(pair.1, at: abi.segmentsOffset + 8 * index + 5)
    }
    return slot.allBytes
  }
}
