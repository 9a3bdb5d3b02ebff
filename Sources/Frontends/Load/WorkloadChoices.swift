import Blkback
import RingKit

/// Which request of a load comes next; follows from its seed, and from what is in flight.
struct WorkloadChoices {
  /// The part of the disk in use.
  let sectors: Range<Int>
  /// Sectors of a request at most.
  let largestSectorCount: Int

  private let load: BlockWorkload
  private let blockSectors: Int
  private let blockCount: Int
  /// Blocks of a request that has no indirect form, at most.
  private let directBlockCount: Int
  private let granularitySectors: Int
  private let alignmentSectors: Int
  private var random: SeededGenerator
  private var nextBlock = 0

  init(
    _ load: BlockWorkload, _ disk: DiskProperties, _ features: BackendFeatures, queue: BlockFrontendQueue
  ) throws(BlockFrontendError) {
    let sectors = load.sectors ?? 0..<disk.sectorCount
    precondition(load.blockByteCount > 0 && load.blockByteCount % wireSectorByteCount == 0)
    precondition(load.queueDepth > 0 && load.maximumBlockCount > 0)
    let percents = [load.readPercent, load.discardPercent, load.barrierPercent, load.flushWithDataPercent]
    precondition(percents.allSatisfy { (0...100).contains($0) })
    precondition(load.barrierPercent + load.flushWithDataPercent <= 100)
    blockSectors = load.blockByteCount / wireSectorByteCount
    largestSectorCount = load.maximumBlockCount * blockSectors
    guard largestSectorCount <= queue.maximumSectorCount - load.firstPageSector else {
      throw .tooLarge(sectorCount: largestSectorCount, maximum: queue.maximumSectorCount)
    }
    guard sectors.upperBound <= disk.sectorCount, sectors.count >= blockSectors else {
      throw .doesNotFit(
        sector: sectors.lowerBound, byteCount: UInt64(max(sectors.count * 512, load.blockByteCount)),
        diskSectors: disk.sectorCount)
    }
    let isOrdered = load.barrierPercent + load.flushWithDataPercent > 0
    directBlockCount = (BlockFrontRequest.directSectorCount - load.firstPageSector) / blockSectors
    guard directBlockCount > 0 || !isOrdered else {
      throw .tooLarge(sectorCount: blockSectors, maximum: BlockFrontRequest.directSectorCount)
    }
    self.load = load
    self.sectors = Int(sectors.lowerBound)..<Int(sectors.upperBound)
    blockCount = sectors.count / blockSectors
    let granularity =
      features.discardGranularityByteCount > 0 ? features.discardGranularityByteCount : disk.sectorByteCount
    granularitySectors = max(1, granularity / wireSectorByteCount)
    alignmentSectors = features.discardAlignmentByteCount / wireSectorByteCount % granularitySectors
    random = SeededGenerator(seed: load.seed)
  }

  /// The next request; nil when what it would change is in flight.
  mutating func next(_ model: DiskModel?) -> BlockFrontRequest? {
    let operation = chooseOperation()
    for _ in 0..<8 {
      let block = load.pattern == .sequential ? nextBlock : Int(random.next() % UInt64(blockCount))
      var most = min(load.maximumBlockCount, blockCount - block)
      if operation == .flush || operation == .writeBarrier { most = min(most, directBlockCount) }
      let count = most == 1 ? 1 : 1 + Int(random.next() % UInt64(most))
      var first = sectors.lowerBound + block * blockSectors
      let end = first + count * blockSectors
      if operation == .discard { first = discardStart(first) }
      guard first >= sectors.lowerBound else { continue }
      if operation != .read, let model, !model.canWrite(first..<end) { continue }
      nextBlock = block + count >= blockCount ? 0 : block + count
      return BlockFrontRequest(
        operation, sector: UInt64(first), sectorCount: end - first,
        firstPageSector: operation == .discard ? 0 : load.firstPageSector)
    }
    return nil
  }

  private mutating func chooseOperation() -> BlockOperation {
    if load.discardPercent > 0, Int(random.next() % 100) < load.discardPercent { return .discard }
    if Int(random.next() % 100) < load.readPercent { return .read }
    let ordered = load.barrierPercent + load.flushWithDataPercent
    guard ordered > 0 else { return .write }
    let chance = Int(random.next() % 100)
    return chance < load.barrierPercent ? .writeBarrier : chance < ordered ? .flush : .write
  }

  /// Back to where a discard extent begins.
  private func discardStart(_ sector: Int) -> Int {
    let offset = (sector + granularitySectors - alignmentSectors) % granularitySectors
    return sector - offset
  }
}
