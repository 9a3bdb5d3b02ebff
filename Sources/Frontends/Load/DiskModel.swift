/// What a disk must hold, sector by sector, given the writes that were submitted and completed.
///
/// Writes to one sector are numbered. A read may return the last write that had completed when the read was
/// submitted, or any later one submitted before the read's end; anything else is a fault. Two writes to one
/// sector at a time would leave open which of them stays, so ``canWrite(_:)`` forbids them.
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

  /// A disk of `sectorCount` sectors of 512 bytes: 9 bytes of memory for each.
  public init(sectorCount: Int, seed: UInt64, initial: Initial = .unknown) {
    self.seed = seed
    self.initial = initial
    settled = Array(repeating: 0, count: sectorCount)
    issued = settled
    isBusy = Array(repeating: false, count: sectorCount)
  }

  /// Sectors of the disk.
  public var sectorCount: Int { settled.count }

  /// True when no write to any of the sectors is in flight.
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
    let sequence = UInt32(truncatingIfNeeded: buffer[2])
    let stamp = SectorStamp(seed: seed, sector: UInt64(sector), sequence: sequence)
    if sequence >= max(floor, 1) && sequence <= issued[sector] && stamp.matches(buffer) { return nil }
    return SectorMismatch(
      sector: UInt64(sector), oldest: floor, newest: issued[sector], foundSeed: buffer[0],
      foundSector: buffer[1], foundSequence: buffer[2])
  }

  private func isInitial(_ buffer: SectorBuffer) -> Bool {
    switch initial {
    case .zero: buffer.isZero
    case .unknown: true
    }
  }

  /// Forgets the writes in flight, of which each may have happened or not: for connections that ended for
  /// good.
  public func abandonWrites() {
    for sector in isBusy.indices { isBusy[sector] = false }
  }
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
