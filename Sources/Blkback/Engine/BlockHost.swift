public import RingKit

/// A guest page that stays mapped, pinned for one use.
@frozen
public struct PinnedPage: BitwiseCopyable, Sendable {
  /// Names the mapping until it is unpinned.
  public var handle: UInt32
  /// The whole page.
  public var segment: IOSegment

  /// Joins a handle and its page.
  @inlinable
  public init(handle: UInt32, segment: IOSegment) {
    self.handle = handle
    self.segment = segment
  }
}

/// What the medium below a disk demands of a transfer.
@frozen
public struct MediumGeometry: BitwiseCopyable, Sendable, Equatable {
  /// Offsets and lengths of transfers are multiples of this: a power of two, at least 512.
  public var blockByteCount: Int
  /// Addresses of transfer memory are multiples of this: a power of two, at most 4096.
  public var memoryAlignment: Int
  /// True when one transfer may use several pieces of memory, up to ``maximumVectorCount``.
  public var takesVectors: Bool

  /// Pieces of memory that one transfer uses at most (Linux' UIO_MAXIOV).
  @inlinable public static var maximumVectorCount: Int { 1024 }

  /// Describes a medium.
  @inlinable
  public init(blockByteCount: Int, memoryAlignment: Int, takesVectors: Bool = true) {
    precondition(blockByteCount >= 512 && blockByteCount.nonzeroBitCount == 1)
    precondition(memoryAlignment >= 1 && memoryAlignment.nonzeroBitCount == 1)
    self.blockByteCount = blockByteCount
    self.memoryAlignment = memoryAlignment
    self.takesVectors = takesVectors
  }
}

/// The world as a block queue sees it: everything the engine does to it is one of these calls.
///
/// Storage calls only begin; their end comes later through ``BlockQueueEngine/complete(token:result:host:)``,
/// exactly once for each, never from within the call.
public protocol BlockHost: ~Copyable {
  /// What the medium demands. May change between turns while nothing is in flight (another image).
  var medium: MediumGeometry { get }
  /// How the medium takes discards; nil where it takes none.
  var discardSupport: DiscardSupport? { get }
  /// True once data may have been lost: from then on no write and no flush may succeed (decision 7).
  var isFenced: Bool { get }

  /// Whether another request may be taken now; asked before each. After a no the host runs the queue again
  /// when it may: requests that stay in the ring bring no event.
  mutating func mayTake() -> Bool
  /// Takes note of what a request moves, once for each that was taken and before the next is: 0 bytes unless
  /// it reads or writes. An indirect request counts with whole pages, since its segments come to light later.
  mutating func charge(byteCount: Int)

  /// The largest buffer that can ever be had, in bytes; what needs more is answered with an error.
  var largestBufferByteCount: Int { get }
  /// Private page-aligned memory of 1...``largestBufferByteCount`` bytes, or nil when the pool or the guest's
  /// share of it is used up.
  mutating func allocateBuffer(byteCount: Int) -> IOBuffer?
  /// Gives memory back.
  mutating func releaseBuffer(_ buffer: IOBuffer)
  /// The 64-bit word `index` of private memory.
  func word(at index: Int, in buffer: IOBuffer) -> UInt64

  /// Keeps other writes, on any queue of the disk, off the medium's blocks `first..<end`: all of them when
  /// `isExclusive`, else those that are. False when one is at work there: the request waits, and the host
  /// runs the queue again when it may go on.
  mutating func lockBlocks(token: UInt32, first: UInt64, end: UInt64, isExclusive: Bool) -> Bool
  /// Lets go of the blocks that were locked under `token`.
  mutating func unlockBlocks(token: UInt32)

  /// Pins the persistent mapping of a granted page, mapping it when it is new. Nil when it cannot be mapped
  /// now: the caller copies instead.
  mutating func pin(_ reference: GrantReference) -> PinnedPage?
  /// Ends one use of a mapping; the mapping itself stays.
  mutating func unpin(_ handle: UInt32)
  /// Does the grant copies and sets each one's status.
  mutating func copy(_ batch: inout GrantCopyBatch)
  /// Copies bytes of a pinned page to private memory, each read once.
  mutating func copy(from page: IOSegment, to memory: IOSegment)

  /// Sets one entry of the table of transfer vectors.
  mutating func setVector(_ segment: IOSegment, at index: Int)
  /// Reads one entry back.
  func vector(at index: Int) -> IOSegment

  /// Begins reading at byte `offset` of the medium into vectors `first..<first+count`.
  mutating func read(token: UInt32, firstVector: Int, vectorCount: Int, offset: UInt64)
  /// Begins writing.
  mutating func write(token: UInt32, firstVector: Int, vectorCount: Int, offset: UInt64)
  /// Begins bringing all completed writes to stable storage.
  mutating func flush(token: UInt32)
  /// Begins giving a range back to the medium: within its ``discardSupport``.
  mutating func discard(token: UInt32, offset: UInt64, byteCount: UInt64, isSecure: Bool)
  /// Latches the loss of data; `errno` says why.
  mutating func fence(errno: Int32)

  /// The time by the host's clock in nanoseconds; may stand still during a turn.
  var now: UInt64 { get }
  /// Takes note of how a request ended.
  mutating func note(_ outcome: BlockOutcome)

  /// Signals the frontend.
  mutating func notify()
}
