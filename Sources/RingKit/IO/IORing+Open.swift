import CUring
import Glibc

extension IORing {
  /// Makes a ring on io_uring and checks that the kernel knows every operation Ringback uses.
  static func openUring(entries: UInt32) throws(HostError) -> IORing {
    let ring: IORing
    do { ring = try IORing(entries: entries) } catch { throw refusal(errno: error.errno) }
    if let missing = ring.firstMissingOperation() {
      throw HostError("io_uring: this kernel lacks the operation \(missing); use Linux 6.1 or later")
    }
    return ring
  }

  /// What an error number of io_uring_setup means and how to mend it.
  public static func refusal(errno code: Int32) -> HostError {
    switch code {
    case ENOSYS:
      return HostError(
        "io_uring: this kernel has none; use a kernel with CONFIG_IO_URING (Linux 6.1 or later)")
    case EPERM:
      return HostError(
        "io_uring: the kernel forbids it to this process; run `sysctl kernel.io_uring_disabled=0` (value 1"
          + " allows it to CAP_SYS_ADMIN and the group kernel.io_uring_group), and allow the io_uring calls"
          + " in a container's seccomp profile")
    case ENOMEM:
      return HostError(
        "io_uring: no memory for the ring; raise the locked-memory limit (LimitMEMLOCK=infinity in the"
          + " service, or `ulimit -l unlimited`) or the memory of the control group")
    case EMFILE, ENFILE:
      return HostError("io_uring: too many open files; raise LimitNOFILE= of the service (`ulimit -n`)")
    default:
      return HostError(
        "io_uring: \(SystemError(call: "io_uring_setup", errno: code)); use Linux 6.1 or later")
    }
  }

  private func firstMissingOperation() -> String? {
    let used = [
      (IORING_OP_READ, "read"), (IORING_OP_WRITE, "write"), (IORING_OP_READV, "readv"),
      (IORING_OP_WRITEV, "writev"),
      (IORING_OP_READ_FIXED, "read_fixed"), (IORING_OP_WRITE_FIXED, "write_fixed"),
      (IORING_OP_FSYNC, "fsync"),
      (IORING_OP_FALLOCATE, "fallocate"), (IORING_OP_POLL_ADD, "poll_add"), (IORING_OP_TIMEOUT, "timeout"),
      (IORING_OP_TIMEOUT_REMOVE, "timeout_remove"), (IORING_OP_ASYNC_CANCEL, "async_cancel"),
    ]
    // Sound: the probe is ours until it is freed, and the library checks the operation against its length.
    guard let probe = unsafe io_uring_get_probe_ring(ring) else { return "probe" }
    defer { unsafe io_uring_free_probe(probe) }
    return used.first { unsafe io_uring_opcode_supported(probe, Int32($0.0.rawValue)) == 0 }?.1
  }
}
