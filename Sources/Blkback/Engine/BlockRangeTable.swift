/// Blocks of a medium that writes are at work on. A write that changes blocks only in part reads them first, and
/// whatever another write puts there meanwhile would be undone: such a write has its blocks for itself.
public struct BlockRangeTable: Sendable {
  private struct Entry {
    var key: UInt64
    var first: UInt64
    var end: UInt64
    var isExclusive: Bool
  }

  private var entries: [Entry] = []

  /// An empty table with room for `capacity` writes.
  public init(capacity: Int) { entries.reserveCapacity(capacity) }

  /// Writes at work.
  public var count: Int { entries.count }

  /// Enters a write of blocks `first..<end`; false when one is at work there and either is exclusive.
  public mutating func lock(key: UInt64, first: UInt64, end: UInt64, isExclusive: Bool) -> Bool {
    for index in entries.indices {
      let other = entries[index]
      if first < other.end && other.first < end && (isExclusive || other.isExclusive) { return false }
    }
    entries.append(Entry(key: key, first: first, end: end, isExclusive: isExclusive))
    return true
  }

  /// Strikes the write out and gives the blocks it had; nil when there is none of that key.
  @discardableResult
  public mutating func unlock(key: UInt64) -> Range<UInt64>? {
    for index in entries.indices where entries[index].key == key {
      let freed = entries[index].first..<entries[index].end
      entries.swapAt(index, entries.count - 1)
      entries.removeLast()
      return freed
    }
    return nil
  }

  /// Strikes all writes out whose keys match.
  mutating func unlockAll(_ matches: (UInt64) -> Bool) { entries.removeAll { matches($0.key) } }
}
