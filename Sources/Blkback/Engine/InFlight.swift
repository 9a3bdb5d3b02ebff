public import RingKit

/// Where a request stands between being taken from the ring and being answered.
@frozen
public enum InFlightPhase: UInt8, BitwiseCopyable, Sendable {
  /// The entry is unused.
  case free
  /// Waits for a buffer, or for a write that overlaps its blocks.
  case parked
  /// A barrier that waits until all that was taken before it is answered.
  case draining
  /// Waits for the pages with its segment descriptors to be copied in.
  case fetch
  /// A flush, or the one that comes before the data of a flush or barrier.
  case flushFirst
  /// Reads the blocks that a write changes only in part.
  case readBefore
  /// Waits for the guest's data to be copied in.
  case copyIn
  /// The medium works.
  case transfer
  /// Waits for the data to be copied to the guest.
  case copyOut
  /// The flush that comes after the data of a barrier.
  case flushAfter
  /// The medium takes a piece of a range back.
  case discard
  /// A flush that failed: it is not answered while the connection lasts.
  case held
}

/// One accepted request: all that is needed to finish it, or to do it again in another process.
///
/// The layout is fixed and holds no reference, because the table can outlive the process (decision 4).
@frozen
public struct InFlightEntry: BitwiseCopyable {
  /// The frontend's name for the request, echoed bit for bit.
  @usableFromInline var id: UInt64 = 0
  /// Byte offset of the request's first byte on the medium; of a discard, of what is left.
  @usableFromInline var offset: UInt64 = 0
  /// Byte offset behind a discard's last byte.
  @usableFromInline var discardEnd: UInt64 = 0
  /// First sector of an indirect request, as long as its segments are not judged; 512-byte units.
  @usableFromInline var sectorNumber: UInt64 = 0
  /// 512-byte units that the guest asked for.
  @usableFromInline var sectorCount: UInt64 = 0
  /// When it was taken, by the host's clock, in nanoseconds.
  @usableFromInline var began: UInt64 = 0
  /// Byte offset where the transfer begins: `offset` rounded down to the medium's block.
  @usableFromInline var transferOffset: UInt64 = 0
  /// Private memory of the request; nil when it uses the guest's mapped pages.
  @usableFromInline var buffer: IOBuffer?
  /// Bytes the request asks for.
  @usableFromInline var byteCount: UInt32 = 0
  /// Bytes of the whole transfer, `byteCount` rounded out to the medium's blocks.
  @usableFromInline var transferByteCount: UInt32 = 0
  /// Bytes of the present transfer that are done.
  @usableFromInline var doneByteCount: UInt32 = 0
  /// First copy of this request in the present batch, and how many.
  @usableFromInline var firstCopy: UInt32 = 0
  @usableFromInline var copyCount: UInt16 = 0
  /// Segments that were judged: 0 as long as the descriptors of an indirect request were not.
  @usableFromInline var segmentCount: UInt16 = 0
  /// Descriptors of an indirect request that are still to be fetched and judged.
  @usableFromInline var descriptorCount: UInt16 = 0
  /// Vectors of the present transfer, counted from the entry's first.
  @usableFromInline var firstVector: UInt16 = 0
  @usableFromInline var vectorCount: UInt16 = 0
  /// Next free entry, while this one is free.
  @usableFromInline var next: UInt16 = 0
  /// Tells a completion for this request from one for an earlier tenant of the entry.
  @usableFromInline var generation: UInt16 = 0
  /// The operation as the response has to name it.
  @usableFromInline var operation = BlockOperation.read
  @usableFromInline var phase: InFlightPhase = .free
  @usableFromInline var kind: BlockRequestKind = .other
  @usableFromInline var isIndirect = false
  @usableFromInline var isWrite = false
  @usableFromInline var flushesFirst = false
  @usableFromInline var flushesAfter = false
  @usableFromInline var isSecure = false
  /// The write changes blocks only in part, so no other write may touch them meanwhile.
  @usableFromInline var isExclusive = false
  /// It holds its blocks' lock.
  @usableFromInline var isLocked = false
  @usableFromInline var retryCount: UInt8 = 0

  @usableFromInline init() {}
}

/// One segment of an accepted request, or one page of descriptors while they are to be fetched.
@frozen
public struct InFlightSegment: BitwiseCopyable {
  @usableFromInline var reference: GrantReference
  /// First byte in the granted page.
  @usableFromInline var pageOffset: UInt16
  /// Bytes, 512...4096; of a page of descriptors 8...4096.
  @usableFromInline var byteCount: UInt16
  /// The persistent mapping while the request holds a pin.
  @usableFromInline var handle: UInt32

  @usableFromInline
  init(reference: GrantReference, pageOffset: UInt16, byteCount: UInt16, handle: UInt32) {
    self.reference = reference
    self.pageOffset = pageOffset
    self.byteCount = byteCount
    self.handle = handle
  }
}

/// The requests a queue has taken and not answered, with the ring indices that belong to them.
public struct InFlightTable: ~Copyable {
  @usableFromInline var entries: Slab<InFlightEntry>
  @usableFromInline var segments: Slab<InFlightSegment>
  @usableFromInline var indices: Slab<RingPosition>
  @usableFromInline var firstFree: UInt16
  /// Requests in the table.
  public private(set) var count = 0
  /// Requests that fit: the ring's slots.
  public let capacity: Int
  /// Segments a request may have.
  public let segmentCapacity: Int

  /// Allocates the table of a queue whose ring has `capacity` slots.
  public init(capacity: Int, segmentCapacity: Int) throws(SystemError) {
    precondition(capacity > 0 && capacity <= 1024 && segmentCapacity > 0 && segmentCapacity <= 4096)
    // All that can fail comes first, because a table cannot be left half made.
    var entries = try Slab<InFlightEntry>(name: "ringback-inflight", capacity: capacity)
    let segments = try Slab<InFlightSegment>(
      name: "ringback-segments", capacity: capacity * segmentCapacity)
    let indices = try Slab<RingPosition>(name: "ringback-indices", capacity: 1)
    for index in 0..<capacity {
      entries[index] = InFlightEntry()
      entries[index].next = UInt16(index + 1)
    }
    self.entries = entries
    self.segments = segments
    self.indices = indices
    self.capacity = capacity
    self.segmentCapacity = segmentCapacity
    firstFree = 0
  }

  /// Takes an entry; nil when all are in use.
  mutating func allocate() -> Int? {
    let index = Int(firstFree)
    guard index < capacity else { return nil }
    let generation = entries[index].generation
    firstFree = entries[index].next
    entries[index] = InFlightEntry()
    entries[index].generation = generation &+ 1
    // Taken from here on: a request may be answered before it begins anything.
    entries[index].phase = .parked
    count += 1
    return index
  }

  /// Gives an entry back.
  mutating func release(_ index: Int) {
    precondition(entries[index].phase != .free)
    entries[index].phase = .free
    entries[index].next = firstFree
    firstFree = UInt16(index)
    count -= 1
  }

  /// The name of the entry's present tenant, carried by its I/O.
  func token(_ index: Int) -> UInt32 {
    UInt32(entries[index].generation) << 16 | UInt32(index)
  }

  /// The entry that a completion belongs to; nil when its tenant is gone.
  func index(of token: UInt32) -> Int? {
    let index = Int(token & 0xFFFF)
    guard index < capacity, entries[index].phase != .free else { return nil }
    return entries[index].generation == UInt16(token >> 16) ? index : nil
  }

  /// Records where the ring stands, for whoever continues it.
  mutating func record(_ position: RingPosition) { indices[0] = position }
}
