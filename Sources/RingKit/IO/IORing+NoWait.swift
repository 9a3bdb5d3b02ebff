public import CUring

/// Transfers that complete at once, for files that packets come from and go to: a TAP, a socket.
///
/// A plain read of an empty file stays in flight until something comes, on a file that is O_NONBLOCK too:
/// io_uring waits in a poll of its own then. With RWF_NOWAIT it ends with -EAGAIN instead, so that a thread can
/// ask for as many packets as it has room for and knows after one submission how many there were. Requests
/// prepared one after the other are carried out in that order as they are submitted.
///
/// A file whose driver makes no such promise (FMODE_NOWAIT; TAPs of older kernels) ends them with -EOPNOTSUPP.
/// The offset is 0: these files have none.
extension IORing {
  /// Reads what is there into memory, or ends with -EAGAIN.
  @inlinable
  public func readNow(_ file: IOFile, into segment: IOSegment, token: UInt64) {
    let slot = unsafe claim()
    unsafe io_uring_prep_read(slot, file.number, segment.pointer, segment.count, 0)
    unsafe finishNow(slot, file, token)
  }

  /// Writes from memory, or ends with -EAGAIN.
  @inlinable
  public func writeNow(_ file: IOFile, from segment: IOSegment, token: UInt64) {
    let slot = unsafe claim()
    unsafe io_uring_prep_write(slot, file.number, segment.pointer, segment.count, 0)
    unsafe finishNow(slot, file, token)
  }

  /// Reads as ``readNow(_:into:token:)`` does, into memory inside the registered buffer `buffer`; only on
  /// io_uring, as ``registerBuffers(_:)``.
  @inlinable
  public func readFixedNow(_ file: IOFile, into segment: IOSegment, buffer: UInt16, token: UInt64) {
    let slot = unsafe claim()
    unsafe io_uring_prep_read_fixed(slot, file.number, segment.pointer, segment.count, 0, Int32(buffer))
    unsafe finishNow(slot, file, token)
  }

  /// Writes as ``writeNow(_:from:token:)`` does, from memory inside the registered buffer `buffer`; only on
  /// io_uring, as ``registerBuffers(_:)``.
  @inlinable
  public func writeFixedNow(_ file: IOFile, from segment: IOSegment, buffer: UInt16, token: UInt64) {
    let slot = unsafe claim()
    unsafe io_uring_prep_write_fixed(slot, file.number, segment.pointer, segment.count, 0, Int32(buffer))
    unsafe finishNow(slot, file, token)
  }

  @unsafe @inlinable @inline(__always)
  func finishNow(_ slot: UnsafeMutablePointer<io_uring_sqe>, _ file: IOFile, _ token: UInt64) {
    unsafe slot.pointee.rw_flags = 8  // RWF_NOWAIT
    unsafe finish(slot, file, token)
  }
}
