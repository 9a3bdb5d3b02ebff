public import RingKit

/// A page that a frontend has granted for good, and its mapping (netif.h, XEN_NETIF_CTRL_TYPE_ADD_GREF_MAPPING).
public struct StagedPage: Sendable {
  /// What the frontend names it by.
  public let reference: GrantReference
  /// True when packets may be written to it.
  public let isWritable: Bool
  /// The mapped page; it stays mapped as long as somebody has it.
  public let pages: MappedPages

  /// Joins a reference and its page, one at least of which is mapped.
  public init(reference: GrantReference, isWritable: Bool, pages: MappedPages) {
    self.reference = reference
    self.isWritable = isWritable
    self.pages = pages
  }
}

/// The pages that one queue finds mapped when a slot names them: a table of fixed capacity that belongs to the
/// queue's thread alone. Nothing else ever removes a page, so that one found in a turn stays for that turn.
///
/// The control engine decides what is in it; see ``NetControlHost/stage(_:onQueue:)``.
public struct GrantStaging: ~Copyable {
  @usableFromInline
  struct Entry: BitwiseCopyable {
    @usableFromInline var reference: UInt32
    /// The page's address, with bit 0 set when it may be written; 0 in a free place.
    @usableFromInline var address: UInt
  }

  /// Pages that fit.
  public let capacity: Int
  /// Pages in the table.
  @usableFromInline var used = 0
  // Open addressing with linear probing, at most half full, so that a probe ends.
  @usableFromInline var entries: [Entry]
  private var owners: [MappedPages?]
  @usableFromInline let mask: Int
  @usableFromInline let shift: UInt32
  // Drawn anew for each table, so that a frontend cannot choose references that collide.
  @usableFromInline let multiplier: UInt32

  /// An empty table for `capacity` pages, 1...65536. `seed` is chance that no frontend knows.
  public init(capacity: Int, seed: UInt32) {
    precondition(capacity > 0 && capacity <= 1 << 16)
    self.capacity = capacity
    var bits: UInt32 = 1
    while 1 << Int(bits) < capacity * 2 { bits += 1 }
    entries = [Entry](repeating: Entry(reference: 0, address: 0), count: 1 << Int(bits))
    owners = [MappedPages?](repeating: nil, count: 1 << Int(bits))
    mask = 1 << Int(bits) - 1
    shift = 32 - bits
    multiplier = seed | 1
  }

  /// Pages in the table.
  @inlinable public var count: Int { used }

  /// The page granted as `reference`, if it is here and may be used that way. It may be used until the end of
  /// the turn.
  @inlinable
  public func lookup(_ reference: GrantReference, writable: Bool) -> IOSegment? {
    guard used > 0, let place = find(reference) else { return nil }
    let address = entries[place].address
    guard !writable || address & 1 == 1 else { return nil }
    return IOSegment(address: address & ~1, length: UInt(pageByteCount))
  }

  /// Adds pages, none of which is there under its reference; those for which there is no room are left out.
  public mutating func insert(_ pages: [StagedPage]) {
    for page in pages where used < capacity && find(page.reference) == nil {
      var place = home(of: page.reference.rawValue)
      while entries[place].address != 0 { place = (place + 1) & mask }
      let address = page.pages.segment(offset: 0, length: pageByteCount).address
      entries[place] = Entry(
        reference: page.reference.rawValue, address: address | (page.isWritable ? 1 : 0))
      owners[place] = page.pages
      used += 1
    }
  }

  /// Removes pages; those that are not there are passed over.
  public mutating func remove(_ references: [GrantReference]) {
    for reference in references {
      if let place = find(reference) { remove(at: place) }
    }
  }

  @inlinable
  func home(of reference: UInt32) -> Int { Int((reference &* multiplier) >> shift) }

  @inlinable
  func find(_ reference: GrantReference) -> Int? {
    var place = home(of: reference.rawValue)
    while entries[place].address != 0 {
      if entries[place].reference == reference.rawValue { return place }
      place = (place + 1) & mask
    }
    return nil
  }

  private mutating func remove(at place: Int) {
    var hole = place
    // Later entries of the same run move up, so that no probe ends before it reaches them.
    var next = (hole + 1) & mask
    while entries[next].address != 0 {
      if (next - home(of: entries[next].reference)) & mask >= (next - hole) & mask {
        entries[hole] = entries[next]
        owners[hole] = owners[next]
        hole = next
      }
      next = (next + 1) & mask
    }
    entries[hole].address = 0
    owners[hole] = nil
    used -= 1
  }
}
