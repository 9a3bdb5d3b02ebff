public import Blkback
public import RingKit

/// The simulated world's storage calls, and what it watches about them.
extension SimulatedBlockHost {
  /// Sets a transfer vector; one that storage uses must not change.
  public func setVector(_ segment: IOSegment, at index: Int) {
    for operation in operations where operation.vectors.contains(index) {
      violate("vector \(index) changed under the I/O of token \(operation.token)")
    }
    vectors[index] = segment
  }

  /// Reads a transfer vector.
  public func vector(at index: Int) -> IOSegment { vectors[index] }

  /// Begins a read.
  public func read(token: UInt32, firstVector: Int, vectorCount: Int, offset: UInt64) {
    let vectors = firstVector..<firstVector + vectorCount
    begin(Operation(kind: .read, token: token, vectors: vectors, offset: offset))
  }

  /// Begins a write.
  public func write(token: UInt32, firstVector: Int, vectorCount: Int, offset: UInt64) {
    if isFenced { violate("write begun after the loss of data") }
    let range = firstVector..<firstVector + vectorCount
    let length = vectors[range].reduce(0) { $0 + UInt64($1.length) }
    writesBegun.append((offset..<offset + length, barrierCount))
    begin(Operation(kind: .write, token: token, vectors: range, offset: offset))
  }

  /// Begins a flush.
  public func flush(token: UInt32) {
    if isFenced { violate("flush begun after the loss of data") }
    flushCount += 1
    begin(Operation(kind: .flush, token: token, keeps: disk.beginFlush()))
  }

  /// Begins giving a range back.
  public func discard(token: UInt32, offset: UInt64, byteCount: UInt64, isSecure: Bool) {
    if isFenced { violate("discard begun after the loss of data") }
    let unit = UInt64(discardSupport?.unitByteCount ?? 0)
    if unit == 0 || offset % unit != 0 || byteCount % unit != 0 || byteCount == 0 {
      violate("discard of \(byteCount) bytes at \(offset) is not made of the medium's units")
    }
    if byteCount > discardSupport?.chunkByteCount ?? 0 { violate("discard of \(byteCount) bytes at once") }
    if offset > UInt64(disk.byteCount) || byteCount > UInt64(disk.byteCount) - offset {
      violate("discard of \(byteCount) bytes at \(offset) leaves the disk")
    }
    if isSecure && discardSupport?.isSecurePossible != true { violate("secure discard where there is none") }
    if isSecure { secureDiscardCount += 1 }
    discardsBegun.append(offset..<offset &+ byteCount)
    begin(Operation(kind: .discard, token: token, offset: offset, byteCount: byteCount))
  }

  /// Latches the loss.
  public func fence(errno: Int32) {
    isFenced = true
    if fenceErrno == nil { fenceErrno = errno }
    if let shared, shared.fenceErrno == nil { shared.fenceErrno = errno }
  }

  /// Takes note of an outcome.
  public func note(_ outcome: BlockOutcome) {
    outcomes.append(outcome)
    if outcome.kind == .barrier { barrierCount += 1 }
  }

  /// Counts an event.
  public func notify() { notifyCount += 1 }

  /// Lets writes under way reach the disk in part, as a power cut finds them.
  func spillWrites() {
    for operation in operations where operation.kind == .write {
      var position = operation.offset
      for piece in vectors[operation.vectors] {
        // Whole words, so that a model can tell which write a word came from.
        let part = piece.slice(offset: 0, count: UInt.random(in: 0...piece.length / 8, using: &numbers) * 8)
        if part.length > 0 { disk.write(at: position, from: part) }
        position += UInt64(piece.length)
      }
    }
  }

  /// Ends one storage call that the seed picks: its token and result, for the engine. Nil when none is under
  /// way.
  public func completeOne() -> (token: UInt32, result: Int32)? {
    guard !operations.isEmpty else { return nil }
    let operation = operations.remove(at: Int.random(in: 0..<operations.count, using: &numbers))
    now += 1
    return (operation.token, perform(operation))
  }

  private func begin(_ operation: Operation) {
    if operations.contains(where: { $0.token == operation.token }) {
      violate("token \(operation.token) has two I/Os")
    }
    operations.append(operation)
  }

  private func perform(_ operation: Operation) -> Int32 {
    if happens(faults.interruption) { return numbers.chance(1, in: 2) ? -4 : -11 }
    if operation.kind == .flush {
      let fails = happens(faults.flushError)
      disk.endFlush(operation.keeps, succeeded: !fails)
      return fails ? -5 : 0
    }
    if operation.kind == .discard { return performDiscard(operation) }
    let pieces = vectors[operation.vectors]
    let length = pieces.reduce(0) { $0 + Int($1.length) }
    check(operation, pieces, length)
    if happens(faults.transferError) { return -5 }
    if happens(faults.endOfMedium) { return 0 }
    var left = length
    if happens(faults.shortTransfer) {
      // Whole words at least, so that a model can tell which write a word came from.
      let unit = medium.memoryAlignment > 1 ? medium.blockByteCount : 8
      left = max(unit, Int.random(in: 0...length, using: &numbers) / unit * unit)
    }
    let moved = left
    var position = operation.offset
    for piece in pieces where left > 0 {
      let part = piece.slice(offset: 0, count: min(piece.length, UInt(left)))
      guard Int(position) + Int(part.length) <= disk.byteCount, isLive(part) else { return -14 }
      if operation.kind == .read {
        disk.read(at: position, into: part)
      } else {
        disk.write(at: position, from: part)
      }
      position += UInt64(part.length)
      left -= Int(part.length)
    }
    return Int32(moved)
  }

  private func performDiscard(_ operation: Operation) -> Int32 {
    if let discardErrno { return -discardErrno }
    if happens(faults.transferError) { return -5 }
    guard operation.offset + operation.byteCount <= UInt64(disk.byteCount) else { return -22 }
    disk.discard(at: operation.offset, byteCount: operation.byteCount, &numbers)
    return 0
  }

  // MARK: Watching

  private func check(_ operation: Operation, _ pieces: ArraySlice<IOSegment>, _ length: Int) {
    if length == 0 { violate("transfer of nothing, token \(operation.token)") }
    if operation.offset > UInt64(disk.byteCount) || UInt64(length) > UInt64(disk.byteCount) - operation.offset
    {
      violate("transfer of \(length) bytes at \(operation.offset) leaves the disk")
    }
    for piece in pieces where !isLive(piece) { violate("transfer with memory that is not in use") }
    if pieces.count > (medium.takesVectors ? MediumGeometry.maximumVectorCount : 1) {
      violate("transfer with \(pieces.count) pieces of memory")
    }
    guard medium.memoryAlignment > 1 else { return }
    if (Int(operation.offset) | length) % medium.blockByteCount != 0 {
      violate("transfer of \(length) bytes at \(operation.offset) is misaligned")
    }
    for piece in pieces where Int(piece.address) % medium.memoryAlignment != 0 {
      violate("transfer with misaligned memory")
    }
  }

  /// True when the bytes lie in a buffer in use or in a pinned page.
  func isLive(_ piece: IOSegment) -> Bool {
    let end = piece.address + piece.length
    if let page = guest.page(at: piece.address) {
      return pinCounts[page] > 0 && end <= guest.segment(ofPage: page).address + UInt(pageByteCount)
    }
    return liveBuffers.contains { $0.key <= piece.address && end <= $0.key + $0.value }
  }

  func uses(_ operation: Operation, _ memory: IOSegment) -> Bool {
    guard operation.kind == .read || operation.kind == .write else { return false }
    return vectors[operation.vectors].contains {
      $0.address < memory.address + memory.length && memory.address < $0.address + $0.length
    }
  }

  func happens(_ inThousand: Int) -> Bool { inThousand > 0 && numbers.chance(inThousand, in: 1000) }

  func violate(_ what: String) { violations.append(what) }
}
