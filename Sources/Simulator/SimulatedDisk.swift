public import RingKit

/// A disk with a volatile cache: what was written is read back at once, but survives a power cut only if a
/// flush that began later succeeded.
public final class SimulatedDisk {
  /// Bytes on the disk.
  public let byteCount: Int
  private let current: MemoryDisk
  private let durable: MemoryDisk
  private let scratch: MappedPages
  /// 512-byte sectors written and not yet made durable.
  private var dirty: Set<Int> = []

  /// A disk of zeros; `byteCount` is a multiple of 4096.
  public init(byteCount: Int) throws(SystemError) {
    self.byteCount = byteCount
    current = try MemoryDisk(byteCount: byteCount)
    durable = try MemoryDisk(byteCount: byteCount)
    scratch = try MappedPages.anonymous(pageCount: 1)
  }

  func read(at offset: UInt64, into segment: IOSegment) { current.read(at: offset, into: segment) }

  func write(at offset: UInt64, from segment: IOSegment) {
    current.write(at: offset, from: segment)
    dirty.formUnion(Int(offset) / 512...(Int(offset) + Int(segment.length) - 1) / 512)
  }

  /// Gives sectors back: each keeps what it held, is zeroed or turns into nonsense, at once or some day, on
  /// the medium too. Nothing is promised of it.
  func discard(at offset: UInt64, byteCount: UInt64, _ numbers: inout SeededNumbers) {
    for sector in Int(offset / 512)..<Int((offset + byteCount) / 512) {
      let fate = numbers.next()
      if fate & 3 == 0 { continue }
      scratch.setWords([UInt64](repeating: fate & 3 == 1 ? 0 : Self.nonsense, count: 64), at: 0)
      let piece = scratch.segment(offset: 0, length: 512)
      current.write(at: UInt64(sector) * 512, from: piece)
      if fate & 4 == 0 { durable.write(at: UInt64(sector) * 512, from: piece) }
      dirty.insert(sector)
    }
  }

  /// What discarded sectors may hold.
  public static let nonsense: UInt64 = 0xD15C_D15C_D15C_D15C

  /// What a flush that begins now has to keep.
  func beginFlush() -> Set<Int> { dirty }

  /// Ends a flush. A failed one loses its sectors for good, and a later flush will not find them: Linux does
  /// so.
  func endFlush(_ sectors: Set<Int>, succeeded: Bool) {
    if succeeded {
      for sector in sectors { move(sector) }
    }
    dirty.subtract(sectors)
  }

  private func move(_ sector: Int) {
    let piece = scratch.segment(offset: 0, length: 512)
    current.read(at: UInt64(sector) * 512, into: piece)
    durable.write(at: UInt64(sector) * 512, from: piece)
  }

  /// Writes some of the cache back, as a kernel does when it pleases.
  public func writeBackSome(_ numbers: inout SeededNumbers) {
    for sector in dirty.sorted() where numbers.chance(1, in: 8) {
      move(sector)
      dirty.remove(sector)
    }
  }

  /// Cuts the power: each sector that no flush kept is as it was, as it was to be, or anything between, word
  /// by word. What is left is all that can be read from here on.
  public func cutPower(_ numbers: inout SeededNumbers) {
    // Sorted, because the order of a set is not the seed's.
    for sector in dirty.sorted() {
      let mask: UInt64 =
        switch Int.random(in: 0..<4, using: &numbers) {
        case 0: 0
        case 1: .max
        case 2: .max << UInt64.random(in: 1...63, using: &numbers)
        default: numbers.next()
        }
      let (old, new) = (durableSector(sector), self.sector(sector))
      scratch.setWords((0..<64).map { mask >> UInt64($0) & 1 == 0 ? old[$0] : new[$0] }, at: 0)
      durable.write(at: UInt64(sector) * 512, from: scratch.segment(offset: 0, length: 512))
    }
    dirty = []
    for sector in 0..<byteCount / 512 {
      let piece = scratch.segment(offset: 0, length: 512)
      durable.read(at: UInt64(sector) * 512, into: piece)
      current.write(at: UInt64(sector) * 512, from: piece)
    }
  }

  /// A 512-byte sector as a read would give it, as 64 words.
  public func sector(_ sector: Int) -> [UInt64] { words(of: sector, on: current) }

  /// A 512-byte sector as it would be after a power cut.
  public func durableSector(_ sector: Int) -> [UInt64] { words(of: sector, on: durable) }

  /// Overwrites a 512-byte sector from outside the guest.
  public func setSector(_ sector: Int, _ words: [UInt64]) {
    precondition(words.count == 64)
    scratch.setWords(words, at: 0)
    current.write(at: UInt64(sector) * 512, from: scratch.segment(offset: 0, length: 512))
  }

  private func words(of sector: Int, on disk: MemoryDisk) -> [UInt64] {
    disk.read(at: UInt64(sector) * 512, into: scratch.segment(offset: 0, length: 512))
    return scratch.copyWords(at: 0, count: 64)
  }
}
