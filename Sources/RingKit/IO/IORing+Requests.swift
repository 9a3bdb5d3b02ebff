public import CUring

/// Requests. Each takes a slot, fills it, and leaves it for the next submission; none enters the kernel
/// unless all slots are taken. Lengths are below 2 GiB, which is all the kernel moves in one request.
extension IORing {
  /// Reads `segment.length` bytes at `offset` bytes of the file into memory.
  @inlinable
  public func read(_ file: IOFile, at offset: UInt64, into segment: IOSegment, token: UInt64) {
    let slot = unsafe claim()
    unsafe io_uring_prep_read(slot, file.number, segment.pointer, segment.count, offset)
    unsafe finish(slot, file, token)
  }

  /// Writes `segment.length` bytes at `offset` bytes of the file from memory.
  @inlinable
  public func write(_ file: IOFile, at offset: UInt64, from segment: IOSegment, token: UInt64) {
    let slot = unsafe claim()
    unsafe io_uring_prep_write(slot, file.number, segment.pointer, segment.count, offset)
    unsafe finish(slot, file, token)
  }

  /// Reads as ``read(_:at:into:token:)`` does, into memory inside the registered buffer `buffer`.
  @inlinable
  public func readFixed(
    _ file: IOFile, at offset: UInt64, into segment: IOSegment, buffer: UInt16, token: UInt64
  ) {
    let slot = unsafe claim()
    unsafe io_uring_prep_read_fixed(
      slot, file.number, segment.pointer, segment.count, offset, Int32(buffer))
    unsafe finish(slot, file, token)
  }

  /// Writes as ``write(_:at:from:token:)`` does, from memory inside the registered buffer `buffer`.
  @inlinable
  public func writeFixed(
    _ file: IOFile, at offset: UInt64, from segment: IOSegment, buffer: UInt16, token: UInt64
  ) {
    let slot = unsafe claim()
    unsafe io_uring_prep_write_fixed(
      slot, file.number, segment.pointer, segment.count, offset, Int32(buffer))
    unsafe finish(slot, file, token)
  }

  /// Reads into `count` segments of the table, beginning with `first`, in that order. The table keeps these
  /// segments and the memory they name until the request completed.
  @inlinable
  public func readv(
    _ file: IOFile, at offset: UInt64, into table: borrowing IOVectorTable, first: Int, count: Int,
    token: UInt64
  ) {
    let slot = unsafe claim()
    unsafe io_uring_prep_readv(
      slot, file.number, table.vectors(first: first, count: count), UInt32(count), offset)
    unsafe finish(slot, file, token)
  }

  /// Writes from `count` segments of the table, as ``readv(_:at:into:first:count:token:)`` reads.
  @inlinable
  public func writev(
    _ file: IOFile, at offset: UInt64, from table: borrowing IOVectorTable, first: Int, count: Int,
    token: UInt64
  ) {
    let slot = unsafe claim()
    unsafe io_uring_prep_writev(
      slot, file.number, table.vectors(first: first, count: count), UInt32(count), offset)
    unsafe finish(slot, file, token)
  }

  /// Makes completed writes durable; `dataOnly` leaves out metadata that is not needed to read the data
  /// again.
  @inlinable
  public func fsync(_ file: IOFile, dataOnly: Bool, token: UInt64) {
    let slot = unsafe claim()
    unsafe io_uring_prep_fsync(slot, file.number, dataOnly ? IORING_FSYNC_DATASYNC : 0)
    unsafe finish(slot, file, token)
  }

  /// Allocates, zeroes or gives back a range, in bytes.
  @inlinable
  public func fallocate(
    _ file: IOFile, _ mode: IOAllocation, at offset: UInt64, byteCount: UInt64, token: UInt64
  ) {
    let slot = unsafe claim()
    unsafe io_uring_prep_fallocate(slot, file.number, mode.rawValue, Int(offset), Int(byteCount))
    unsafe finish(slot, file, token)
  }

  /// Completes once, when the file is readable.
  @inlinable
  public func pollReadable(_ file: IOFile, token: UInt64) {
    let slot = unsafe claim()
    unsafe io_uring_prep_poll_add(slot, file.number, 1 /* POLLIN */)
    unsafe finish(slot, file, token)
  }

  /// Completes once, when the file is writable.
  @inlinable
  public func pollWritable(_ file: IOFile, token: UInt64) {
    let slot = unsafe claim()
    unsafe io_uring_prep_poll_add(slot, file.number, 4 /* POLLOUT */)
    unsafe finish(slot, file, token)
  }

  /// Completes with -ETIME at `nanoseconds` of CLOCK_MONOTONIC.
  @inlinable
  public func timeout(atNanoseconds nanoseconds: UInt64, token: UInt64) {
    let slot = unsafe claim()
    unsafe io_uring_prep_timeout(slot, deadline(nanoseconds, of: slot), 0, IORING_TIMEOUT_ABS)
    unsafe slot.pointee.user_data = token
  }

  /// Moves the timeout `target` to `nanoseconds`; completes with 0, or with -ENOENT when it has fired
  /// already.
  @inlinable
  public func moveTimeout(_ target: UInt64, toNanoseconds nanoseconds: UInt64, token: UInt64) {
    let slot = unsafe claim()
    unsafe io_uring_prep_timeout_update(slot, deadline(nanoseconds, of: slot), target, IORING_TIMEOUT_ABS)
    unsafe slot.pointee.user_data = token
  }

  /// Asks for one request with the token `target` to end with -ECANCELED. Completes with 0, with -ENOENT when
  /// there is none, or with -EALREADY when it is too late to stop it. Both requests still complete.
  @inlinable
  public func cancel(_ target: UInt64, token: UInt64) {
    let slot = unsafe claim()
    unsafe io_uring_prep_cancel64(slot, target, 0)
    unsafe slot.pointee.user_data = token
  }

  /// Asks for every request to end; completes with how many were found (Linux 5.19).
  @inlinable
  public func cancelAll(token: UInt64) {
    let slot = unsafe claim()
    unsafe io_uring_prep_cancel64(slot, 0, Int32(IORING_ASYNC_CANCEL_ANY | IORING_ASYNC_CANCEL_ALL))
    unsafe slot.pointee.user_data = token
  }

  /// Completes with 0 and does nothing.
  @inlinable
  public func nop(token: UInt64) {
    let slot = unsafe claim()
    unsafe io_uring_prep_nop(slot)
    unsafe slot.pointee.user_data = token
  }

  @unsafe @inlinable @inline(__always)
  func finish(_ slot: UnsafeMutablePointer<io_uring_sqe>, _ file: IOFile, _ token: UInt64) {
    unsafe slot.pointee.flags = file.flags
    unsafe slot.pointee.user_data = token
  }

  /// Stores a deadline where the kernel finds it when it takes `slot`.
  @unsafe @inlinable
  func deadline(
    _ nanoseconds: UInt64, of slot: UnsafeMutablePointer<io_uring_sqe>
  ) -> UnsafeMutablePointer<__kernel_timespec> {
    let place = unsafe deadlines + (slot - ring.pointee.sq.sqes)
    unsafe place.pointee.tv_sec = Int64(nanoseconds / 1_000_000_000)
    unsafe place.pointee.tv_nsec = Int64(nanoseconds % 1_000_000_000)
    return unsafe place
  }
}

/// What ``IORing/fallocate(_:_:at:byteCount:token:)`` does with a range (fallocate(2)). The file keeps its
/// size.
@frozen
public struct IOAllocation: RawRepresentable, Sendable, Equatable {
  /// The mode bits.
  public let rawValue: Int32
  /// Wraps mode bits.
  @inlinable public init(rawValue: Int32) { self.rawValue = rawValue }
  /// Reserves space (FALLOC_FL_KEEP_SIZE).
  @inlinable public static var reserve: IOAllocation { IOAllocation(rawValue: 1) }
  /// Gives the space back; the range reads as zeros (FALLOC_FL_PUNCH_HOLE, FALLOC_FL_KEEP_SIZE).
  @inlinable public static var punchHole: IOAllocation { IOAllocation(rawValue: 3) }
  /// Makes the range read as zeros, keeping its space where it can (FALLOC_FL_ZERO_RANGE,
  /// FALLOC_FL_KEEP_SIZE).
  @inlinable public static var zero: IOAllocation { IOAllocation(rawValue: 0x11) }
}

extension IOSegment {
  /// The address for the kernel; sound while the owner of the memory keeps it.
  @unsafe @inlinable var pointer: UnsafeMutableRawPointer? {
    unsafe UnsafeMutableRawPointer(bitPattern: address)
  }

  /// The length as a request holds it.
  @inlinable var count: UInt32 {
    precondition(length <= 0x7FFF_F000)
    return UInt32(truncatingIfNeeded: length)
  }
}
