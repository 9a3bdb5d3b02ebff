import RingKit

/// The copies of a turn from the pages of one guest to those of others, with what each of them is.
struct NetDirectBatch: ~Copyable {
  /// Copies of one turn at most. A packet of 64 KiB in 18 slots takes 38 of them: a border of the sender's slots
  /// and one of the receiver's for each page, and one behind the headers.
  static let capacity = 1024

  /// The copies as the hypervisor does them.
  var copies: GrantCopyBatch
  /// What the first ``GrantCopyBatch/count`` of them are.
  private var parts: [NetDirectCopy]
  /// Those that are done again out of private memory, and which they are.
  var retries: GrantCopyBatch
  var retried: [Int] = []

  /// Makes room for a turn, once.
  init() {
    copies = GrantCopyBatch(capacity: Self.capacity)
    retries = GrantCopyBatch(capacity: NetLimits.ringSlotCount)
    retried.reserveCapacity(NetLimits.ringSlotCount)
    let none = NetDirectCopy(packet: 0, slot: nil, place: 0, offset: 0, byteCount: 0)
    parts = [NetDirectCopy](repeating: none, count: Self.capacity)
  }

  /// Copies that still fit.
  var room: Int { copies.capacity - copies.count }

  /// The copy at `index`.
  subscript(index: Int) -> NetDirectCopy { parts[index] }

  /// Adds a copy out of private memory.
  mutating func append(_ part: NetDirectCopy, from local: IOSegment, to place: GrantCopyBatch.GrantedBytes) {
    parts[copies.count] = part
    copies.append(
      GrantCopyBatch.Segment(
        toGuest: true, domain: place.domain, reference: place.reference, pageOffset: place.pageOffset,
        local: local))
  }

  /// Empties it.
  mutating func removeAll() {
    copies.removeAll()
    retries.removeAll()
    retried.removeAll(keepingCapacity: true)
  }

  /// Adds a copy from page to page.
  mutating func append(_ part: NetDirectCopy, _ copy: GrantCopyBatch.GuestToGuest) {
    parts[copies.count] = part
    copies.append(copy)
  }
}
