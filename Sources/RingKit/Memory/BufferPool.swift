import CShared
import Glibc

/// A run of private pages taken from a ``BufferPool``, to be given back to it exactly once.
@frozen
public struct IOBuffer: BitwiseCopyable, Sendable, Equatable {
  /// All its bytes: a power of two of 4 KiB pages, aligned to a page. They hold what was there before.
  public let segment: IOSegment
  /// Two to this power pages, 0...13.
  public let order: UInt8
  let stamp: UInt32
}

/// What one guest may hold of a pool: a bound that keeps it from starving its neighbours (design decision 3).
@frozen
public struct BufferShare: BitwiseCopyable, Sendable {
  /// Bytes the guest may hold at once.
  public let limitByteCount: Int
  /// Bytes it holds.
  public private(set) var usedByteCount = 0

  /// A share of `limitByteCount` bytes, none of them in use.
  public init(limitByteCount: Int) {
    precondition(limitByteCount >= 0)
    self.limitByteCount = limitByteCount
  }

  mutating func charge(_ byteCount: Int) -> Bool {
    guard byteCount <= limitByteCount - usedByteCount else { return false }
    usedByteCount += byteCount
    return true
  }

  mutating func discharge(_ byteCount: Int) {
    precondition(byteCount <= usedByteCount, "buffer charged to another share")
    usedByteCount -= byteCount
  }
}

/// The private buffers of one data thread: an arena of fixed size, page aligned, left out of core dumps.
///
/// Pages are handed out with their former contents: whoever takes a buffer overwrites or zeroes what it will
/// show to a guest.
@safe
public final class BufferPool {
  /// The largest buffer, 32 MiB: it holds the largest request of blkif.h (4096 segments of 4 KiB) with the
  /// medium's blocks that it covers in part.
  public static let largestByteCount = pageByteCount << BuddyMap.largestOrder

  // Sound: the arena is mapped from init to deinit, and every range is checked against it before it is
  // touched.
  @usableFromInline let base: UnsafeMutableRawPointer
  private var map: BuddyMap
  /// Bytes in the arena.
  public let byteCount: Int

  /// Maps an arena of `byteCount` bytes, rounded up to a page.
  public init(byteCount: Int) throws(SystemError) {
    precondition(byteCount > 0)
    let pageCount = (byteCount - 1) / pageByteCount + 1
    let bytes = pageCount * pageByteCount
    let mapping = unsafe mmap(nil, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    guard let mapping = unsafe mapping, unsafe mapping != MAP_FAILED else {
      throw SystemError(call: "mmap", errno: errno)
    }
    // Guests' data does not belong in a core dump; a kernel without the advice loses nothing else.
    _ = unsafe madvise(mapping, bytes, MADV_DONTDUMP)
    unsafe base = mapping
    self.byteCount = bytes
    map = BuddyMap(pageCount: pageCount)
  }

  deinit { unsafe munmap(base, byteCount) }

  /// The whole arena, to be registered with a ring.
  @inlinable public var arena: IOSegment {
    IOSegment(address: UInt(bitPattern: unsafe base), length: UInt(byteCount))
  }

  /// The largest buffer that this arena can give when nothing is taken, in bytes.
  public var largestRunByteCount: Int { Self.wholeRunByteCount(within: byteCount) }

  /// The largest size of a buffer that fits into `byteCount` bytes; 0 when none does.
  public static func wholeRunByteCount(within byteCount: Int) -> Int {
    let pages = byteCount / pageByteCount
    guard pages > 0 else { return 0 }
    return min(largestByteCount, pageByteCount << (Int.bitWidth - 1 - pages.leadingZeroBitCount))
  }

  /// Bytes not handed out.
  public var freeByteCount: Int { map.freePageCount * pageByteCount }

  /// Takes a buffer of at least `byteCount` bytes, 1...``largestByteCount``; nil when no run is free.
  public func allocate(byteCount: Int) -> IOBuffer? {
    precondition(byteCount > 0 && byteCount <= Self.largestByteCount)
    return take(order: Self.order(for: byteCount))
  }

  /// Takes a buffer as ``allocate(byteCount:)`` does, if the guest's share has room for it too.
  public func allocate(byteCount: Int, share: inout BufferShare) -> IOBuffer? {
    precondition(byteCount > 0 && byteCount <= Self.largestByteCount)
    let order = Self.order(for: byteCount)
    guard share.charge(pageByteCount << order) else { return nil }
    guard let buffer = take(order: order) else {
      share.discharge(pageByteCount << order)
      return nil
    }
    return buffer
  }

  /// Bytes that ``allocate(byteCount:)`` really takes for `byteCount`.
  public static func roundedByteCount(_ byteCount: Int) -> Int { pageByteCount << order(for: byteCount) }

  /// Gives a buffer back. Releasing it twice, or to a pool it is not from, traps.
  public func release(_ buffer: IOBuffer) {
    map.giveBack(page: page(of: buffer), order: Int(buffer.order), stamp: buffer.stamp)
  }

  /// Gives a buffer back to the pool and to the share it was charged to.
  public func release(_ buffer: IOBuffer, share: inout BufferShare) {
    release(buffer)
    share.discharge(pageByteCount << Int(buffer.order))
  }

  /// Has a buffer count in another share of this pool from here on; false, and nothing is changed, when that has no
  /// room for it.
  public func recharge(
    _ buffer: IOBuffer, from giver: inout BufferShare, to taker: inout BufferShare
  ) -> Bool {
    let byteCount = pageByteCount << Int(buffer.order)
    guard taker.charge(byteCount) else { return false }
    giver.discharge(byteCount)
    return true
  }

  /// Zeroes a buffer, so that nothing of its last user is left in it.
  public func zero(_ buffer: IOBuffer) { zero(buffer.segment) }

  /// Zeroes bytes of the arena.
  public func zero(_ segment: IOSegment) {
    unsafe memset(pointer(to: segment), 0, Int(segment.length))
  }

  /// Copies bytes between two buffers, or between a buffer and pages whose owner the caller keeps alive. One
  /// side at least lies in the arena; both are equally long and do not overlap. Nothing may be decided on
  /// bytes of a page that a guest can write: they may have changed again.
  public func copy(from source: IOSegment, to destination: IOSegment) {
    precondition(source.length == destination.length)
    precondition(contains(source) || contains(destination), "copy outside the pool")
    precondition(
      source.address >= destination.address
        ? source.address - destination.address >= destination.length
        : destination.address - source.address >= source.length, "copy onto itself")
    guard let to = unsafe destination.pointer, let from = unsafe source.pointer else { return }
    unsafe shared_copy_data(to, from, Int(source.length))
  }

  /// The 64-bit word `index` of a buffer, in the machine's byte order.
  @inlinable
  public func word(at index: Int, in buffer: IOBuffer) -> UInt64 {
    precondition(index >= 0 && index < Int(buffer.segment.length) / 8 && contains(buffer.segment))
    // Sound: the word lies in the buffer and that in the arena; any bits are an integer, at any address.
    return unsafe (base + Int(buffer.segment.address - arena.address) + index * 8)
      .loadUnaligned(as: UInt64.self)
  }

  /// Copies bytes of the arena out.
  public func copyOut(_ segment: IOSegment, into destination: inout MutableRawSpan) {
    precondition(Int(segment.length) == destination.byteCount)
    let from = unsafe pointer(to: segment)
    unsafe destination.withUnsafeMutableBytes { buffer in
      unsafe buffer.copyMemory(from: UnsafeRawBufferPointer(start: from, count: buffer.count))
    }
  }

  /// Copies bytes into the arena.
  public func copyIn(_ source: RawSpan, to segment: IOSegment) {
    precondition(Int(segment.length) == source.byteCount)
    let to = unsafe pointer(to: segment)
    unsafe source.withUnsafeBytes { buffer in
      guard let from = buffer.baseAddress else { return }
      unsafe to.copyMemory(from: from, byteCount: buffer.count)
    }
  }

  /// True when all of the segment lies in the arena.
  @inlinable
  public func contains(_ segment: IOSegment) -> Bool {
    let arena = arena
    return segment.address >= arena.address && segment.length <= arena.length
      && segment.address - arena.address <= arena.length - segment.length
  }

  private static func order(for byteCount: Int) -> Int {
    BuddyMap.order(forPages: (byteCount - 1) / pageByteCount + 1)
  }

  private func take(order: Int) -> IOBuffer? {
    guard let run = map.take(order: order) else { return nil }
    let segment = IOSegment(
      address: arena.address + UInt(run.page * pageByteCount), length: UInt(pageByteCount << order))
    return IOBuffer(segment: segment, order: UInt8(order), stamp: run.stamp)
  }

  private func page(of buffer: IOBuffer) -> Int {
    precondition(contains(buffer.segment), "buffer of another pool")
    return Int(buffer.segment.address - arena.address) / pageByteCount
  }

  @unsafe private func pointer(to segment: IOSegment) -> UnsafeMutableRawPointer {
    precondition(contains(segment), "memory outside the pool")
    return unsafe base + Int(segment.address - arena.address)
  }
}
