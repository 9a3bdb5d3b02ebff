/// A granted page that stays mapped, pinned for one use.
@frozen
public struct PersistentPage: BitwiseCopyable, Sendable {
  /// Names the pin for ``PersistentGrants/unpin(_:)``.
  public let handle: UInt32
  /// The whole page; take the wanted part with ``IOSegment/slice(offset:count:)``.
  public let segment: IOSegment

  @inlinable init(handle: UInt32, segment: IOSegment) {
    self.handle = handle
    self.segment = segment
  }
}

/// The pages of one frontend that one ring keeps mapped, writable, from one request to the next
/// (blkif.h, feature-persistent and its note 8).
///
/// At most `capacity` pages are kept; when a further one is needed, one that no request uses and that was not
/// used lately goes. A reference is never mapped twice at a time (XSA-218, 224), also when several requests
/// name it. A failed map is not remembered, since the frontend may grant that reference a moment later.
public struct PersistentGrants: ~Copyable {
  @usableFromInline
  struct Entry: BitwiseCopyable {
    @usableFromInline var reference: GrantReference
    @usableFromInline var address: UInt
    @usableFromInline var lastUse: UInt64
    @usableFromInline var pins: UInt32
    @usableFromInline var wasUsed: Bool
    // The entry holds a mapping.
    var isMapped: Bool
  }

  /// Whose pages.
  public let domain: DomainID
  /// Pages that are kept at most; for the moment of an exchange there is one more.
  public let capacity: Int
  /// Nanoseconds after which an unused page goes.
  public let idleNanoseconds: UInt64
  /// Stamped on every page that is used, for ``purge(unusedSince:atMost:)``. Its unit is the caller's; set by
  /// ``purgeIdle(atNanoseconds:)`` it is nanoseconds.
  public var clock: UInt64 = 0

  /// Pages that are mapped now.
  public private(set) var mappedCount = 0
  /// Pages that some request uses now.
  public var pinnedCount: Int { pinned }
  /// Uses that found their page mapped.
  public var hitCount: UInt64 { hits }
  /// Uses that had to map, whether that worked or not.
  public private(set) var missCount: UInt64 = 0
  /// Maps that failed.
  public private(set) var failureCount: UInt64 = 0
  /// Pages unmapped to make room.
  public private(set) var evictionCount: UInt64 = 0

  @usableFromInline var pinned = 0
  @usableFromInline var hits: UInt64 = 0
  @usableFromInline var entries: [Entry] = []
  // Open addressing with linear probing: entry number + 1, or 0. At most half full, so a probe ends.
  @usableFromInline var table: [UInt32]
  @usableFromInline let mask: Int
  @usableFromInline let shift: UInt32
  // Drawn anew for each table, so that a frontend cannot choose references that collide.
  @usableFromInline let multiplier: UInt32
  private var owners: [MappedPages?] = []
  private var freeEntries: [UInt32] = []
  private var hand = 0
  private var purgeHand = 0
  private var nextPurge: UInt64?

  /// An empty cache for up to `capacity` pages of `domain`, 1...2^24. Linux' blkback lets unused ones go after a
  /// minute too.
  public init(domain: DomainID, capacity: Int, idleNanoseconds: UInt64 = 60_000_000_000) {
    precondition(capacity > 0 && capacity <= 1 << 24 && idleNanoseconds <= UInt64.max / 2)
    self.domain = domain
    self.capacity = capacity
    self.idleNanoseconds = idleNanoseconds
    var bits: UInt32 = 2
    while 1 << Int(bits) < capacity * 2 { bits += 1 }
    table = [UInt32](repeating: 0, count: 1 << Int(bits))
    mask = 1 << Int(bits) - 1
    shift = 32 - bits
    multiplier = UInt32.random(in: 0...UInt32.max) | 1
    entries.reserveCapacity(capacity)
    owners.reserveCapacity(capacity)
    freeEntries.reserveCapacity(capacity)
  }

  /// Pins the page that the frontend granted as `reference`, mapping it when it is new. Nil when it cannot be
  /// mapped or requests use all `capacity` pages: the caller copies instead.
  @inlinable
  public mutating func page(for reference: GrantReference, using grants: some GrantTable) -> PersistentPage? {
    if let number = find(reference) {
      hits &+= 1
      return pin(number)
    }
    guard let number = map(reference, using: grants) else { return nil }
    return pin(number)
  }

  /// Ends one use of a page; the page stays mapped.
  @inlinable
  public mutating func unpin(_ handle: UInt32) {
    let number = Int(handle)
    precondition(entries[number].pins > 0, "unpinned more often than pinned")
    entries[number].pins &-= 1
    if entries[number].pins == 0 { pinned &-= 1 }
  }

  /// Unmaps up to `limit` pages that no request uses and whose last use was stamped before `time`; returns
  /// how many. The next call goes on where this one ended.
  ///
  /// Without it a backend holds a guest's pages for ever, which hinders ballooning and migration.
  @discardableResult
  public mutating func purge(unusedSince time: UInt64, atMost limit: Int = .max) -> Int {
    var count = 0
    for _ in entries.indices where count < limit {
      purgeHand = purgeHand + 1 < entries.count ? purgeHand + 1 : 0
      let entry = entries[purgeHand]
      if entry.isMapped && entry.pins == 0 && entry.lastUse < time {
        unmap(purgeHand)
        count += 1
      }
    }
    return count
  }

  /// Sets the clock, and unmaps a few of the pages that no request used for ``idleNanoseconds``, now and then; returns
  /// when to call again, nil when nothing is mapped. Call it at the beginning of every turn.
  public mutating func purgeIdle(atNanoseconds now: UInt64) -> UInt64? {
    clock = now
    if mappedCount == 0 {
      nextPurge = nil
      return nil
    }
    let due = nextPurge ?? now &+ purgeInterval
    nextPurge = due
    guard now >= due else { return due }
    let since = now > idleNanoseconds ? now - idleNanoseconds : 0
    let count = purge(unusedSince: since, atMost: Self.purgePiece)
    // An unmap is slow on Xen, so other queues have their turn between the pieces.
    let pause = count == Self.purgePiece ? Self.purgePause : purgeInterval
    nextPurge = mappedCount == 0 ? nil : now &+ pause
    return nextPurge
  }

  /// Nanoseconds between looks.
  public var purgeInterval: UInt64 { max(Self.purgePause, idleNanoseconds / 6) }
  /// Pages unmapped at once.
  public static var purgePiece: Int { 16 }
  /// Nanoseconds between pieces while there are more.
  public static var purgePause: UInt64 { 10_000_000 }

  /// Unmaps every page that no request uses; returns how many are left.
  @discardableResult
  public mutating func removeAll() -> Int {
    for number in entries.indices where entries[number].isMapped && entries[number].pins == 0 {
      unmap(number)
    }
    return mappedCount
  }
}

extension PersistentGrants {
  @inlinable
  func place(of reference: GrantReference) -> Int { Int((reference.rawValue &* multiplier) >> shift) }

  @inlinable
  func find(_ reference: GrantReference) -> Int? {
    var place = place(of: reference)
    while true {
      let name = table[place]
      if name == 0 { return nil }
      if entries[Int(name) - 1].reference == reference { return Int(name) - 1 }
      place = (place + 1) & mask
    }
  }

  @inlinable
  mutating func pin(_ number: Int) -> PersistentPage {
    if entries[number].pins == 0 { pinned &+= 1 }
    entries[number].pins += 1
    entries[number].wasUsed = true
    entries[number].lastUse = clock
    return PersistentPage(
      handle: UInt32(number), segment: IOSegment(address: entries[number].address, length: 4096))
  }

  /// Maps a new page and returns its entry.
  @usableFromInline
  mutating func map(_ reference: GrantReference, using grants: some GrantTable) -> Int? {
    missCount &+= 1
    var victim: Int?
    if mappedCount == capacity {
      victim = leastUsed()
      if victim == nil { return nil }
    }
    // Only a page that could be mapped costs another one its place.
    guard let pages = try? grants.map([reference], of: domain, access: .readWrite) else {
      failureCount &+= 1
      return nil
    }
    if let victim {
      unmap(victim)
      evictionCount &+= 1
    }
    let entry = Entry(
      reference: reference, address: pages.segment(offset: 0, length: pageByteCount).address,
      lastUse: clock, pins: 0, wasUsed: false, isMapped: true)
    let number: Int
    if let free = freeEntries.popLast() {
      number = Int(free)
      entries[number] = entry
      owners[number] = pages
    } else {
      number = entries.count
      entries.append(entry)
      owners.append(pages)
    }
    var place = place(of: reference)
    while table[place] != 0 { place = (place + 1) & mask }
    table[place] = UInt32(number) + 1
    mappedCount += 1
    return number
  }

  /// Second chance: the next page in turn that nobody uses and that was not used since the hand last passed.
  private mutating func leastUsed() -> Int? {
    guard pinned < mappedCount else { return nil }
    // The first round may only clear marks; the second then finds one.
    for _ in 0..<entries.count * 2 {
      hand = hand + 1 < entries.count ? hand + 1 : 0
      if !entries[hand].isMapped || entries[hand].pins > 0 { continue }
      if !entries[hand].wasUsed { return hand }
      entries[hand].wasUsed = false
    }
    return nil
  }

  private mutating func unmap(_ number: Int) {
    var hole = place(of: entries[number].reference)
    while table[hole] != UInt32(number) + 1 { hole = (hole + 1) & mask }
    // Later entries of the same run move up, so that no probe ends before it reaches them.
    var next = (hole + 1) & mask
    while table[next] != 0 {
      let home = place(of: entries[Int(table[next]) - 1].reference)
      if (next - home) & mask >= (next - hole) & mask {
        table[hole] = table[next]
        hole = next
      }
      next = (next + 1) & mask
    }
    table[hole] = 0
    entries[number].isMapped = false
    owners[number] = nil
    freeEntries.append(UInt32(number))
    mappedCount -= 1
  }
}
