import RingKit

/// Copies of what was written since the last flush began, to be written again when a server comes back
/// without it.
///
/// A server that completed a write may still lose it with its caches when it is killed: a formatted image
/// whose metadata was not written yet, for one. The guest was told of the write's end, and a later flush would
/// promise what is not so. So all that completed after the beginning of the last successful flush is kept
/// here, in order, within fixed bounds.
final class ReplayJournal: @unchecked Sendable {
  // Sound: one channel at a time has it, taken out of and put back into its store under a lock.

  /// One write or discard, done again at the same place.
  struct Entry {
    var offset: UInt64
    var byteCount: UInt64
    /// Where the data are kept; nil for a discard.
    var place: Int?
  }

  private let memory: ReplayMemory
  private var entries: [Entry]
  /// The sequence numbers of the oldest entry and of the next one to come.
  private(set) var first: UInt64 = 0
  private(set) var next: UInt64 = 0
  private var usedByteCount = 0
  private var reservedByteCount = 0
  private var reservedCount = 0
  private var tail = 0

  /// Room for `byteCount` bytes (a multiple of 4096) and `entryCapacity` entries.
  init(byteCount: Int, entryCapacity: Int) throws(SystemError) {
    memory = try ReplayMemory(byteCount: byteCount)
    entries = Array(repeating: Entry(offset: 0, byteCount: 0, place: nil), count: entryCapacity)
  }

  /// Bytes it can hold.
  var byteCapacity: Int { memory.byteCount }

  /// Entries it holds.
  var count: Int { Int(next &- first) }

  /// True when it is time for a flush, so that nobody will have to wait for one.
  var wantsFlush: Bool { usedByteCount > byteCapacity / 2 || count > entries.count / 2 }

  /// Sets room aside for a write (or a discard of no bytes) that is about to begin; false when there is none.
  func reserve(byteCount: Int) -> Bool {
    guard usedByteCount + reservedByteCount + byteCount <= byteCapacity,
      // A write that wraps round the memory's end takes two entries.
      count + 2 * (reservedCount + 1) <= entries.count
    else { return false }
    reservedByteCount += byteCount
    reservedCount += 1
    return true
  }

  /// Gives room back that is not needed.
  func release(byteCount: Int) {
    reservedByteCount -= byteCount
    reservedCount -= 1
  }

  /// Keeps a write that ended, in the room reserved for it.
  func keep(_ source: IOSegment, at offset: UInt64) {
    release(byteCount: Int(source.length))
    var rest = source
    var position = offset
    while rest.length > 0 {
      let length = min(rest.length, UInt(byteCapacity - tail))
      memory.keep(rest.slice(offset: 0, count: length), at: tail)
      add(Entry(offset: position, byteCount: UInt64(length), place: tail))
      tail = (tail + Int(length)) % byteCapacity
      usedByteCount += Int(length)
      position += UInt64(length)
      rest = rest.dropping(first: length)
    }
  }

  /// Keeps a discard that ended, in the room reserved for it.
  func keepDiscard(at offset: UInt64, byteCount: UInt64) {
    release(byteCount: 0)
    add(Entry(offset: offset, byteCount: byteCount, place: nil))
  }

  private func add(_ entry: Entry) {
    entries[Int(next % UInt64(entries.count))] = entry
    next += 1
  }

  /// The entry with a sequence number from `first` up to `next`.
  func entry(_ sequence: UInt64) -> Entry {
    precondition(sequence >= first && sequence < next)
    return entries[Int(sequence % UInt64(entries.count))]
  }

  /// The kept data of a write.
  func data(of entry: Entry) -> IOSegment? {
    entry.place.map { memory.segment(at: $0, byteCount: Int(entry.byteCount)) }
  }

  /// Forgets all before `sequence`: a flush that began then was successful.
  func forget(before sequence: UInt64) {
    while first < sequence {
      let entry = entry(first)
      if entry.place != nil { usedByteCount -= Int(entry.byteCount) }
      first += 1
    }
    // Memory that was not touched costs nothing: begin at the front whenever that is possible.
    if usedByteCount == 0 { tail = 0 }
  }
}
