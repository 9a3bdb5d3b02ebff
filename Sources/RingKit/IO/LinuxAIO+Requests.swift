import CAIO
import CUring
import Glibc

/// What becomes of each operation.
extension LinuxAIO {
  /// Begins a request, or puts it off when all slots are taken.
  func begin(_ request: io_uring_sqe) {
    switch io_uring_op(UInt32(request.opcode)) {
    case IORING_OP_NOP:
      post(request.user_data, 0)
      return
    case IORING_OP_ASYNC_CANCEL:
      let isForAll = request.cancel_flags & UInt32(IORING_ASYNC_CANCEL_ANY) != 0
      post(request.user_data, isForAll ? cancelAll() : cancel(request.addr))
      return
    case IORING_OP_TIMEOUT_REMOVE:
      post(request.user_data, moveTimer(request))
      return
    default:
      break
    }
    let isTimer = io_uring_op(UInt32(request.opcode)) == IORING_OP_TIMEOUT
    guard isTimer || free.count > Self.timerReserve, let place = free.popLast() else {
      backlog.append(request)
      return
    }
    let index = Int(place)
    unsafe slots[index].request = request
    unsafe slots[index].isCancelled = false
    unsafe slots[index].descriptor = -1
    if isTimer {
      unsafe slots[index].phase = .timer
      unsafe slots[index].deadline = Self.nanoseconds(at: request.addr)
      timers.append(place)
    } else {
      beginOnFile(index, request)
    }
  }

  private func beginOnFile(_ index: Int, _ request: io_uring_sqe) {
    var file = AIOFile(unknown: request.fd)
    if request.flags & 1 != 0 {
      guard let registered = files.use(request.fd) else {
        finish(index, -EBADF)
        return
      }
      file = registered
    }
    unsafe slots[index].descriptor = file.descriptor
    let control = unsafe slots + index
    unsafe control.pointee.phase = .transfer
    let address = unsafe UnsafeMutableRawPointer(bitPattern: UInt(request.addr))
    let offset = Int64(bitPattern: request.off)
    let count = Int(request.len)
    switch io_uring_op(UInt32(request.opcode)) {
    case IORING_OP_POLL_ADD:
      unsafe control.pointee.phase = .poll
      unsafe io_prep_poll(&control.pointee.control, file.descriptor, Int32(request.poll32_events))
      enqueue(index)
      return
    case IORING_OP_FSYNC:
      let dataOnly = request.fsync_flags & UInt32(IORING_FSYNC_DATASYNC) != 0
      if dataOnly {
        unsafe io_prep_fdsync(&control.pointee.control, file.descriptor)
      } else {
        unsafe io_prep_fsync(&control.pointee.control, file.descriptor)
      }
      enqueue(index)
      return
    case IORING_OP_READ:
      unsafe io_prep_pread(&control.pointee.control, file.descriptor, address, count, offset)
    case IORING_OP_WRITE:
      unsafe io_prep_pwrite(&control.pointee.control, file.descriptor, address, count, offset)
    case IORING_OP_READV:
      let vectors = unsafe address?.assumingMemoryBound(to: iovec.self)
      unsafe io_prep_preadv(&control.pointee.control, file.descriptor, vectors, Int32(count), offset)
    case IORING_OP_WRITEV:
      let vectors = unsafe address?.assumingMemoryBound(to: iovec.self)
      unsafe io_prep_pwritev(&control.pointee.control, file.descriptor, vectors, Int32(count), offset)
    case IORING_OP_FALLOCATE:
      callThread(index)
      return
    default:
      finish(index, -EINVAL)
      return
    }
    if request.rw_flags != 0 {
      // Asked for: io_submit returns at once, and its answer is the request's.
      unsafe control.pointee.control.aio_rw_flags = UInt32(bitPattern: request.rw_flags)
      enqueue(index)
      return
    }
    if request.flags & 1 == 0 { file = AIOFile(descriptor: request.fd) }
    guard file.isDirect else {
      // Through the page cache: io_submit would wait for the medium.
      callThread(index)
      return
    }
    if file.mayRefuseToWait { unsafe control.pointee.control.aio_rw_flags = 8 /* RWF_NOWAIT */ }
    enqueue(index)
  }

  /// Has a thread carry the request out.
  func callThread(_ index: Int) {
    let request = unsafe slots[index].request
    let descriptor = unsafe slots[index].descriptor
    let token = UInt64(index)
    let kind: BlockingCall.Kind
    var call = BlockingCall(
      kind: .read, descriptor: descriptor, offset: request.off, address: request.addr, count: request.len,
      token: token)
    switch io_uring_op(UInt32(request.opcode)) {
    case IORING_OP_READ: kind = .read
    case IORING_OP_WRITE: kind = .write
    case IORING_OP_READV: kind = .readv
    case IORING_OP_WRITEV: kind = .writev
    case IORING_OP_FSYNC:
      kind = request.fsync_flags & UInt32(IORING_FSYNC_DATASYNC) != 0 ? .fdatasync : .fsync
    case IORING_OP_FALLOCATE:
      // fallocate(2)'s mode and length lie where a transfer has length and address (io_uring_enter(2)).
      kind = .allocate(mode: Int32(bitPattern: request.len))
      call.byteCount = request.addr
    default:
      finish(index, -EINVAL)
      return
    }
    call.kind = kind
    unsafe slots[index].phase = .blocking
    calls.submit(call)
  }

  // MARK: Ending early

  /// What ASYNC_CANCEL answers for one token.
  private func cancel(_ token: UInt64) -> Int32 {
    if let position = backlog.firstIndex(where: { $0.user_data == token }) {
      backlog.remove(at: position)
      post(token, -ECANCELED)
      return 0
    }
    for index in 0..<slotCapacity {
      guard unsafe slots[index].phase != .free, unsafe slots[index].request.user_data == token else {
        continue
      }
      return cancel(at: index) ? 0 : -EALREADY
    }
    return -ENOENT
  }

  private func cancelAll() -> Int32 {
    var count = Int32(clamping: backlog.count)
    for request in backlog { post(request.user_data, -ECANCELED) }
    backlog.removeAll(keepingCapacity: true)
    for index in 0..<slotCapacity where unsafe slots[index].phase != .free {
      if cancel(at: index) { count += 1 }
    }
    return count
  }

  /// Asks a request to end; false when it is too late.
  private func cancel(at index: Int) -> Bool {
    switch unsafe slots[index].phase {
    case .free, .transfer: return false
    case .timer:
      timers.removeAll { $0 == UInt16(index) }
      finish(index, -ECANCELED)
      return true
    case .poll:
      if unsafe slots[index].isCancelled { return false }
      unsafe slots[index].isCancelled = true
      // It may still stand in the batch: the kernel has to have it first.
      submit()
      cancelInKernel(index)
      return true
    case .blocking:
      return calls.cancel { $0 == UInt64(index) } > 0
    }
  }

  /// Moves a deadline; what TIMEOUT_REMOVE answers.
  private func moveTimer(_ request: io_uring_sqe) -> Int32 {
    let index = timers.first { unsafe slots[Int($0)].request.user_data == request.addr }
    guard let index else { return -ENOENT }
    unsafe slots[Int(index)].deadline = Self.nanoseconds(at: request.off)
    return 0
  }

  /// The deadline that a request points to; it lies in the ring's table of deadlines.
  private static func nanoseconds(at address: UInt64) -> UInt64 {
    let place = unsafe UnsafePointer<__kernel_timespec>(bitPattern: UInt(address))
    guard let time = unsafe place?.pointee else { return 0 }
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
  }
}
