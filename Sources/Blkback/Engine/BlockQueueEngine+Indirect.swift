import RingKit

/// How indirect requests come by their segments: the descriptor pages are copied once to private memory, and
/// only that copy is looked at (XSA-155). Each page holds 512 descriptors (blkif.h, BLKIF_OP_INDIRECT).
extension BlockQueueEngine where Host: ~Copyable {
  /// Notes which pages hold the descriptors, in the places of the segments that they will give.
  mutating func copyDescriptorReferences(
    of decoded: BlockRequest, _ indirect: IndirectTransfer, to index: Int
  ) {
    table.entries[index].descriptorCount = UInt16(indirect.segmentCount)
    table.entries[index].sectorNumber = indirect.sectorNumber
    table.entries[index].isWrite = indirect.kind.isWrite
    let first = index * table.segmentCapacity
    var left = indirect.segmentCount
    for page in 0..<indirect.pageCount {
      let count = min(left, segmentsPerIndirectPage)
      table.segments[first + page] = InFlightSegment(
        reference: decoded.indirectReference(at: page, in: request), pageOffset: 0,
        byteCount: UInt16(count * BlockSegment.byteCount), handle: .max)
      left -= count
    }
  }

  /// Pages with descriptors of a request that still needs them.
  func descriptorPageCount(_ index: Int) -> Int {
    (Int(table.entries[index].descriptorCount) + segmentsPerIndirectPage - 1) / segmentsPerIndirectPage
  }

  /// Begins to copy the descriptors, or parks the request.
  mutating func fetchDescriptors(_ index: Int, host: inout Host) {
    let byteCount = Int(table.entries[index].descriptorCount) * BlockSegment.byteCount
    guard takeBuffer(index, byteCount: byteCount, host: &host) else { return }
    if usesPersistentGrants && copyPinnedDescriptors(index, host: &host) {
      judgeDescriptors(index, host: &host)
    } else {
      startCopy(index, phase: .fetch)
    }
  }

  /// Copies the descriptors out of mapped pages; false, with none of them read, when one cannot be mapped.
  mutating func copyPinnedDescriptors(_ index: Int, host: inout Host) -> Bool {
    guard let buffer = table.entries[index].buffer?.segment else { return false }
    let first = index * table.segmentCapacity
    let pages = descriptorPageCount(index)
    for page in 0..<pages {
      guard let pinned = host.pin(table.segments[first + page].reference) else {
        unpinSegments(index, count: page, host: &host)
        return false
      }
      table.segments[first + page].handle = pinned.handle
      host.setVector(pinned.segment, at: first + page)
    }
    var offset: UInt = 0
    for page in 0..<pages {
      let count = UInt(table.segments[first + page].byteCount)
      host.copy(
        from: host.vector(at: first + page).slice(offset: 0, count: count),
        to: buffer.slice(offset: offset, count: count))
      offset += count
    }
    unpinSegments(index, count: pages, host: &host)
    return true
  }

  /// Judges the private copies, each word of them read once, and goes on as with any other transfer.
  mutating func judgeDescriptors(_ index: Int, host: inout Host) {
    guard let buffer = table.entries[index].buffer else { return }
    let count = Int(table.entries[index].descriptorCount)
    var rule = SegmentRule(validator.limits)
    var rejection: RejectReason?
    var position = 0
    while position < count && rejection == nil {
      let segment = BlockSegment(word: host.word(at: position, in: buffer))
      rejection = rule.accept(segment)
      if rejection == nil { setSegment(segment, at: position, of: index) }
      position += 1
    }
    table.entries[index].buffer = nil
    host.releaseBuffer(buffer)
    freedCount += 1
    let indirect = IndirectTransfer(
      kind: table.entries[index].isWrite ? .write : .read, sectorNumber: table.entries[index].sectorNumber,
      segmentCount: count)
    let verdict = rejection.map { BlockVerdict.reject(.error, $0) } ?? validator.judge(rule, of: indirect)
    switch verdict {
    case .transfer(let transfer):
      table.entries[index].descriptorCount = 0
      table.entries[index].segmentCount = UInt16(count)
      accept(transfer, as: index, host: &host)
    case .reject(let status, let reason):
      counters.rejected += 1
      finish(index, status: status, rejection: reason, host: &host)
    case .indirect, .flush, .barrier, .discard, .discardNothing:
      // The validator never says so of segments; answer rather than trust that.
      finish(index, status: .error, host: &host)
    }
  }
}
