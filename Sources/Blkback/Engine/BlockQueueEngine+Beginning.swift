import RingKit

/// How judged transfers begin: in the guest's mapped pages or in private memory, now or later.
extension BlockQueueEngine where Host: ~Copyable {
  /// Rounds the transfer out to the medium's blocks.
  mutating func layOut(_ index: Int, host: inout Host) {
    let block = UInt64(host.medium.blockByteCount)
    let start = table.entries[index].offset
    let end = start + UInt64(table.entries[index].byteCount)
    let transferStart = start & ~(block - 1)
    let transferEnd = (end + block - 1) & ~(block - 1)
    table.entries[index].transferOffset = transferStart
    table.entries[index].transferByteCount = UInt32(transferEnd - transferStart)
    let isPartial = transferStart != start || transferEnd != end
    table.entries[index].isExclusive = isPartial && table.entries[index].isWrite
  }

  /// Begins a request that needs memory, or parks it.
  mutating func begin(_ index: Int, host: inout Host) {
    if table.entries[index].descriptorCount > 0 {
      fetchDescriptors(index, host: &host)
      return
    }
    if table.entries[index].isWrite && host.isFenced {
      finish(index, status: .error, host: &host)
      return
    }
    if table.entries[index].flushesFirst {
      beginFlush(index, host: &host)
      return
    }
    guard lockBlocks(index, host: &host) else {
      park(index)
      return
    }
    if usesPersistentGrants && pinSegments(index, host: &host) {
      startTransfer(index, host: &host)
      return
    }
    guard takeBuffer(index, byteCount: Int(table.entries[index].transferByteCount), host: &host) else {
      return
    }
    if !table.entries[index].isWrite {
      setBufferVector(index, host: &host)
      startTransfer(index, host: &host)
    } else if table.entries[index].isExclusive {
      setBufferVector(index, host: &host)
      table.entries[index].phase = .readBefore
      host.read(
        token: table.token(index), firstVector: index * table.segmentCapacity, vectorCount: 1,
        offset: table.entries[index].transferOffset)
    } else {
      startCopy(index, phase: .copyIn)
    }
  }

  /// Gets private memory for the request. False when it has to wait, and was parked, or when there will never
  /// be as much, and it was answered.
  mutating func takeBuffer(_ index: Int, byteCount: Int, host: inout Host) -> Bool {
    guard byteCount <= host.largestBufferByteCount else {
      finish(index, status: .error, host: &host)
      return false
    }
    guard let buffer = host.allocateBuffer(byteCount: byteCount) else {
      // Whoever waits for memory must not keep others waiting for its blocks.
      unlockBlocks(index, host: &host)
      park(index)
      return false
    }
    table.entries[index].buffer = buffer
    return true
  }

  // MARK: Waiting

  mutating func park(_ index: Int) {
    table.entries[index].phase = .parked
    parked[parkedCount] = UInt16(index)
    parkedCount += 1
  }

  /// Begins those that waited, in their order, up to the first that must go on waiting.
  mutating func retryParked(host: inout Host) {
    let waiting = parkedCount
    parkedCount = 0
    var position = 0
    while position < waiting {
      begin(Int(parked[position]), host: &host)
      position += 1
      // Parked again: it is the first in the line, the rest move up behind it.
      if parkedCount > 0 { break }
    }
    while position < waiting {
      parked[parkedCount] = parked[position]
      parkedCount += 1
      position += 1
    }
  }

  /// Lets go of those that wait, once no answer can reach the frontend any more.
  mutating func dropWaiting(host: inout Host) {
    for position in 0..<parkedCount { finish(Int(parked[position]), status: .error, host: &host) }
    parkedCount = 0
    if let barrier, isBarrierWaiting { finish(barrier, status: .error, host: &host) }
  }

  // MARK: Blocks

  /// Keeps other writes off the blocks that this one changes in part, and off all of its blocks those that do
  /// so themselves.
  mutating func lockBlocks(_ index: Int, host: inout Host) -> Bool {
    // With 512-byte blocks no write is partial, so nothing needs to be kept apart.
    guard table.entries[index].isWrite, host.medium.blockByteCount > 512 else { return true }
    let start = table.entries[index].transferOffset
    let shift = UInt64(host.medium.blockByteCount.trailingZeroBitCount)
    let isFree = host.lockBlocks(
      token: table.token(index), first: start >> shift,
      end: (start + UInt64(table.entries[index].transferByteCount)) >> shift,
      isExclusive: table.entries[index].isExclusive)
    table.entries[index].isLocked = isFree
    return isFree
  }

  mutating func unlockBlocks(_ index: Int, host: inout Host) {
    guard table.entries[index].isLocked else { return }
    table.entries[index].isLocked = false
    host.unlockBlocks(token: table.token(index))
  }

  // MARK: Memory

  /// Pins every segment's page and points the vectors at them; false (and nothing pinned) when a page cannot
  /// be mapped or the medium cannot take the segments as they lie.
  mutating func pinSegments(_ index: Int, host: inout Host) -> Bool {
    let unit = max(host.medium.blockByteCount, host.medium.memoryAlignment)
    guard table.entries[index].transferByteCount == table.entries[index].byteCount else { return false }
    let first = index * table.segmentCapacity
    let count = Int(table.entries[index].segmentCount)
    guard count <= (host.medium.takesVectors ? MediumGeometry.maximumVectorCount : 1) else { return false }
    for position in 0..<count {
      let segment = table.segments[first + position]
      let isAligned = unit <= 512 || (Int(segment.pageOffset) | Int(segment.byteCount)) & (unit - 1) == 0
      guard isAligned, let page = host.pin(segment.reference) else {
        unpinSegments(index, count: position, host: &host)
        return false
      }
      table.segments[first + position].handle = page.handle
      host.setVector(
        page.segment.slice(offset: UInt(segment.pageOffset), count: UInt(segment.byteCount)),
        at: first + position)
    }
    table.entries[index].firstVector = 0
    table.entries[index].vectorCount = UInt16(count)
    return true
  }

  mutating func unpinSegments(_ index: Int, count: Int, host: inout Host) {
    let first = index * table.segmentCapacity
    for position in 0..<count where table.segments[first + position].handle != .max {
      host.unpin(table.segments[first + position].handle)
      table.segments[first + position].handle = .max
    }
  }

  mutating func setBufferVector(_ index: Int, host: inout Host) {
    guard let whole = table.entries[index].buffer?.segment else { return }
    host.setVector(
      whole.slice(offset: 0, count: UInt(table.entries[index].transferByteCount)),
      at: index * table.segmentCapacity)
    table.entries[index].firstVector = 0
    table.entries[index].vectorCount = 1
  }

  // MARK: Transfers

  /// Begins what is left of the transfer.
  mutating func startTransfer(_ index: Int, host: inout Host) {
    if table.entries[index].isWrite && host.isFenced {
      finish(index, status: .error, host: &host)
      return
    }
    table.entries[index].phase = .transfer
    let entry = table.entries[index]
    let firstVector = index * table.segmentCapacity + Int(entry.firstVector)
    let offset = entry.transferOffset + UInt64(entry.doneByteCount)
    if entry.isWrite {
      host.write(
        token: table.token(index), firstVector: firstVector, vectorCount: Int(entry.vectorCount),
        offset: offset)
    } else {
      host.read(
        token: table.token(index), firstVector: firstVector, vectorCount: Int(entry.vectorCount),
        offset: offset)
    }
  }
}
