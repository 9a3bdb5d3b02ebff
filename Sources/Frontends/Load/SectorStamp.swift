/// What a verified workload writes into a sector: which sector it is, and which write to it this was. The
/// other bytes follow from these, so that any byte out of place shows.
struct SectorStamp: Equatable {
  /// The run's seed.
  var seed: UInt64
  /// The sector's number on the disk.
  var sector: UInt64
  /// Counts the writes to this sector, from 1.
  var sequence: UInt32

  /// Fills a sector.
  func fill(_ buffer: inout SectorBuffer) {
    buffer[0] = seed
    buffer[1] = sector
    buffer[2] = UInt64(sequence)
    let key = key
    for index in 3..<SectorBuffer.wordCount { buffer[index] = Self.word(index, key: key) }
  }

  /// True when a sector is exactly what ``fill(_:)`` makes.
  func matches(_ buffer: SectorBuffer) -> Bool {
    guard buffer[0] == seed, buffer[1] == sector, buffer[2] == UInt64(sequence) else { return false }
    let key = key
    for index in 3..<SectorBuffer.wordCount where buffer[index] != Self.word(index, key: key) { return false }
    return true
  }

  private var key: UInt64 {
    SeededGenerator.mixed(seed ^ SeededGenerator.mixed(sector ^ UInt64(sequence) &<< 40))
  }

  private static func word(_ index: Int, key: UInt64) -> UInt64 {
    let word = (key &+ UInt64(index)) &* 0x9E37_79B9_7F4A_7C15
    return word ^ word &>> 29
  }
}
