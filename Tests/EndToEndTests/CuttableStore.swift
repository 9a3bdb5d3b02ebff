import Blkback
import Frontends
import RingKit

/// A disk that can lose its power, as a store. Calls end late and out of order.
final class CuttableStore: BlockStore {
  private let disk: CuttableDisk

  init(_ disk: CuttableDisk) { self.disk = disk }

  var byteCount: UInt64 { UInt64(disk.byteCount) }
  var geometry: MediumGeometry { MediumGeometry(blockByteCount: 512, memoryAlignment: 1) }
  var physicalBlockByteCount: Int { 512 }
  var discard: DiscardSupport? { DiscardSupport(unitByteCount: 512, chunkByteCount: 64 << 10) }
  var maximumQueueCount: Int { .max }
  var warning: String? { nil }
  func refreshByteCount() throws(VbdError) -> UInt64 { byteCount }

  func openChannel(_ place: StoreChannelPlace) throws(VbdError) -> any StoreChannel {
    CuttableChannel(disk, seed: UInt64(place.loop.number) &+ 77)
  }
}

private final class CuttableChannel: StoreChannel {
  private enum Work {
    case read(offset: UInt64, [IOSegment])
    case write(CuttableDisk.Change, offset: UInt64, [IOSegment])
    case flush(CuttableDisk.Promise)
    case discard(CuttableDisk.Change)
    /// There was no power for it.
    case nothing
  }

  private let disk: CuttableDisk
  private var pending: [(token: UInt32, byteCount: Int32, work: Work)] = []
  private var random: SeededGenerator
  /// EIO
  private let failure: Int32 = -5

  init(_ disk: CuttableDisk, seed: UInt64) {
    self.disk = disk
    random = SeededGenerator(seed: seed)
  }

  private func segments(_ vectors: borrowing IOVectorTable, _ first: Int, _ count: Int) -> [IOSegment] {
    var segments: [IOSegment] = []
    for index in first..<first + count { segments.append(vectors[index]) }
    return segments
  }

  func read(token: UInt32, into vectors: borrowing IOVectorTable, first: Int, count: Int, offset: UInt64) {
    let pieces = segments(vectors, first, count)
    let bytes = Int32(pieces.reduce(0) { $0 + $1.length })
    pending.append((token, bytes, disk.beginCall() ? .read(offset: offset, pieces) : .nothing))
  }

  func write(token: UInt32, from vectors: borrowing IOVectorTable, first: Int, count: Int, offset: UInt64) {
    let pieces = segments(vectors, first, count)
    let bytes = pieces.reduce(0) { $0 + $1.length }
    guard disk.beginCall() else {
      pending.append((token, 0, .nothing))
      return
    }
    let change = disk.beginChange(at: offset, byteCount: UInt64(bytes))
    // Now or when it ends: a medium may do either.
    if random.next() % 2 == 0 { disk.write(at: offset, from: pieces) }
    pending.append((token, Int32(bytes), .write(change, offset: offset, pieces)))
  }

  func flush(token: UInt32) {
    pending.append((token, 0, disk.beginCall() ? .flush(disk.beginFlush()) : .nothing))
  }

  func discard(token: UInt32, offset: UInt64, byteCount: UInt64, isSecure: Bool) {
    let work: Work =
      disk.beginCall() ? .discard(disk.beginChange(at: offset, byteCount: byteCount)) : .nothing
    pending.append((token, 0, work))
  }

  func completed(token: UInt32, result: Int32) {}

  func nextCompletion() -> StoreCompletion? {
    guard !pending.isEmpty, random.next() % 3 > 0 else { return nil }
    let (token, byteCount, work) = pending.remove(at: Int(random.next() % UInt64(pending.count)))
    return StoreCompletion(token: token, result: end(work) ? byteCount : failure)
  }

  private func end(_ work: Work) -> Bool {
    switch work {
    case .read(let offset, let pieces):
      guard !disk.isOff else { return false }
      disk.read(at: offset, into: pieces)
      return true
    case .write(let change, let offset, let pieces):
      disk.write(at: offset, from: pieces)
      return disk.endChange(change)
    case .flush(let promise): return disk.endFlush(promise)
    case .discard(let change):
      disk.zero(change)
      return disk.endChange(change)
    case .nothing: return false
    }
  }

  var hasCompletions: Bool { !pending.isEmpty }
  func close() {}
}
