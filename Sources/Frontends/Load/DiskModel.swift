/// What a disk must hold, sector by sector, given the writes that were submitted and completed.
///
/// Changes of one sector are numbered. A read may return the last write that had completed when the read was
/// submitted, or any later one submitted before the read's end; anything else is a fault. Two changes of one
/// sector at a time would leave open which of them stays, so ``canWrite(_:)`` forbids them. A read that met a
/// write under way may find words of both.
///
/// A discarded sector may hold, until it is written again, zeroes or anything it ever held (blkif.h leaves it
/// undefined), but nothing of another place.
public final class DiskModel {
  /// What sectors hold that were never written.
  public enum Initial: Sendable {
    /// Anything; such reads are not checked.
    case unknown
    /// Zeroes, as in a new sparse file.
    case zero
  }

  /// The seed in every stamp.
  public let seed: UInt64
  /// What sectors hold that were never written.
  public let initial: Initial
  private var settled: [UInt32]
  private var issued: [UInt32]
  private var isBusy: [Bool]
  /// The number of the last discard; 0 for none.
  private var discarded: [UInt32]
  /// The last write that a flush made durable; empty when nobody asks.
  private var durable: [UInt32]

  /// A disk of `sectorCount` sectors of 512 bytes: 13 bytes of memory for each, and 4 more with
  /// `tracksFlushes`, which ``cutPower()`` needs.
  public init(sectorCount: Int, seed: UInt64, initial: Initial = .unknown, tracksFlushes: Bool = false) {
    self.seed = seed
    self.initial = initial
    settled = Array(repeating: 0, count: sectorCount)
    issued = settled
    isBusy = Array(repeating: false, count: sectorCount)
    discarded = settled
    durable = tracksFlushes ? settled : []
  }

  /// Sectors of the disk.
  public var sectorCount: Int { settled.count }

  /// True when no write or discard of any of the sectors is in flight.
  func canWrite(_ sectors: Range<Int>) -> Bool {
    for sector in sectors where isBusy[sector] { return false }
    return true
  }

  /// Begins a write to one sector and returns the stamp to write.
  func beginWrite(_ sector: Int) -> SectorStamp {
    precondition(!isBusy[sector])
    isBusy[sector] = true
    issued[sector] &+= 1
    return SectorStamp(seed: seed, sector: UInt64(sector), sequence: issued[sector])
  }

  /// Begins a discard of some sectors, which ``endWrite(_:succeeded:)`` ends.
  func beginDiscard(_ sectors: Range<Int>) {
    for sector in sectors {
      precondition(!isBusy[sector])
      isBusy[sector] = true
      issued[sector] &+= 1
      discarded[sector] = issued[sector]
    }
  }

  /// Ends the writes to some sectors. One that failed may have happened or not, until the next.
  func endWrite(_ sectors: Range<Int>, succeeded: Bool) {
    for sector in sectors {
      precondition(isBusy[sector])
      isBusy[sector] = false
      if succeeded { settled[sector] = issued[sector] }
    }
  }

  /// The oldest write that a read submitted now may still return; 0 for the initial contents.
  func floor(_ sector: Int) -> UInt32 { settled[sector] }

  /// Judges a sector that was read, given ``floor(_:)`` at the read's submission; nil when it is right.
  func fault(_ buffer: SectorBuffer, sector: Int, floor: UInt32) -> SectorMismatch? {
    if floor == 0 && isInitial(buffer) { return nil }
    // A discard that was not yet written over when the read began.
    let isDiscarded = discarded[sector] > 0 && discarded[sector] >= floor
    if isDiscarded && (buffer.isZero || isInitial(buffer)) { return nil }
    let oldest = isDiscarded ? 1 : max(floor, 1)
    let sequence = UInt32(truncatingIfNeeded: buffer[2])
    let stamp = SectorStamp(seed: seed, sector: UInt64(sector), sequence: sequence)
    if sequence >= oldest && sequence <= issued[sector] && stamp.matches(buffer) { return nil }
    if isTorn(buffer, sector: sector, from: isDiscarded ? 0 : floor) { return nil }
    return SectorMismatch(
      sector: UInt64(sector), oldest: floor, newest: issued[sector], foundSeed: buffer[0],
      foundSector: buffer[1], foundSequence: buffer[2])
  }

  /// True when every byte is of one of the changes that the read may have met. A medium need not keep a sector
  /// whole while it is written; page caches and memory do not, nor even a word of it (memset may go byte by
  /// byte).
  private func isTorn(_ buffer: SectorBuffer, sector: Int, from oldest: UInt32) -> Bool {
    let newest = issued[sector]
    // With nothing in flight during the read there is one answer only.
    guard newest > oldest else { return false }
    var candidate = SectorBuffer()
    // The bytes of each word that some change explains.
    var explained = InlineArray<64, UInt64>(repeating: 0)
    for sequence in oldest...newest {
      candidate = SectorBuffer()
      if sequence > 0 { SectorStamp(seed: seed, sector: UInt64(sector), sequence: sequence).fill(&candidate) }
      if sequence == 0 && initial == .unknown { return true }
      var bytes = explained.mutableSpan
      for index in 0..<SectorBuffer.wordCount {
        bytes[index] |= Self.equalBytes(candidate[index], buffer[index])
      }
    }
    let bytes = explained.span
    for index in 0..<SectorBuffer.wordCount where bytes[index] != .max { return false }
    return true
  }

  /// 0xFF in each byte in which two words agree.
  private static func equalBytes(_ left: UInt64, _ right: UInt64) -> UInt64 {
    var difference = left ^ right
    difference |= difference &>> 4 & 0x0F0F_0F0F_0F0F_0F0F
    difference |= difference &>> 2 & 0x3333_3333_3333_3333
    difference |= difference &>> 1
    return ~((difference & 0x0101_0101_0101_0101) &* 0xFF)
  }

  private func isInitial(_ buffer: SectorBuffer) -> Bool {
    switch initial {
    case .zero: buffer.isZero
    case .unknown: true
    }
  }

  // MARK: Durability

  /// What a flush that is submitted now has to make durable: all writes that completed. Nil when flushes are
  /// not tracked.
  func beginFlush() -> FlushPromise? { durable.isEmpty ? nil : FlushPromise(settled: settled) }

  /// The flush succeeded: its promise counts.
  func endFlush(_ promise: FlushPromise) {
    for sector in durable.indices { durable[sector] = max(durable[sector], promise.settled[sector]) }
  }

  /// A write that succeeded and was durable by itself, as a barrier's data is.
  func endDurableWrite(_ sectors: Range<Int>) {
    guard !durable.isEmpty else { return }
    for sector in sectors { durable[sector] = settled[sector] }
  }

  /// The power went: what no flush made durable may be there or not, and nothing is in flight.
  public func cutPower() {
    precondition(!durable.isEmpty, "the model does not track flushes")
    settled = durable
    abandonWrites()
  }

  /// What the disk would hold after a power cut now; this model goes on as if there were none.
  public func afterPowerCut() -> DiskModel {
    let model = DiskModel(sectorCount: sectorCount, seed: seed, initial: initial, tracksFlushes: true)
    (model.issued, model.discarded, model.durable) = (issued, discarded, durable)
    model.cutPower()
    return model
  }

  /// Sectors whose last completed write was made durable, and those for which a later one may be lost.
  public var durability: (kept: Int, open: Int) {
    let open = durable.indices.count { settled[$0] > durable[$0] }
    return (durable.count - open, open)
  }

  /// Forgets the writes in flight, of which each may have happened or not: for connections that ended for
  /// good.
  public func abandonWrites() {
    for sector in isBusy.indices { isBusy[sector] = false }
  }
}

/// The writes that a flush in flight covers.
struct FlushPromise {
  fileprivate let settled: [UInt32]
}

/// A sector that holds what it must not.
public struct SectorMismatch: Equatable, Sendable, CustomStringConvertible {
  /// The sector's number.
  public var sector: UInt64
  /// The oldest write it may hold; 0 is the initial contents.
  public var oldest: UInt32
  /// The newest write it may hold.
  public var newest: UInt32
  /// The sector's first word: of a stamp, the seed.
  public var foundSeed: UInt64
  /// The second: of a stamp, the sector.
  public var foundSector: UInt64
  /// The third: of a stamp, the write's number.
  public var foundSequence: UInt64

  /// What was expected and what was found.
  public var description: String {
    "sector \(sector) must hold its write \(oldest)...\(newest), but begins with the words "
      + "\(foundSeed), \(foundSector), \(foundSequence) (of a stamp: seed, sector, write)"
  }
}
