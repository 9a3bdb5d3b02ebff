import CUring
import Glibc

/// One queue of a TAP: a descriptor that gives a frame with each read and takes one with each write, with a
/// `struct virtio_net_hdr_mrg_rxbuf` of 12 bytes in little-endian order before the frame.
///
/// It never waits (O_NONBLOCK). What a data thread sees, as seen on Linux 6.18:
/// - ``IORing/readNow(_:into:token:)`` on an empty queue ends with -EAGAIN at once; several prepared together
///   take as many frames in order, within one system call, and those that find nothing end with -EAGAIN.
/// - A plain ``IORing/read(_:at:into:token:)`` of an empty queue stays in flight until a frame comes, though
///   the descriptor is O_NONBLOCK; ``IORing/pollReadable(_:token:)`` waits without room for a frame.
/// - While the interface is down a write ends with -EIO; a read finds nothing (-EAGAIN). Neither is a fault.
/// - Once the interface was deleted both end with -EBADFD, and a poll ends.
/// - A frame longer than the memory is cut off without a word: offer 12 + 14 + 4 + 65535 bytes where
///   segmentation offloads are on.
///
/// Older kernels (the promise came to TAPs in 2023) answer ``IORing/readNow(_:into:token:)`` with -EOPNOTSUPP;
/// ``refusesToWait`` tells, and ``receive(into:)`` and ``send(from:)`` serve there.
///
/// What a frame costs, in CPU time through the ring against a system call of its own (medians of 401 interleaved
/// rounds, Linux 6.18): one at a time 1.2 to 1.35 times as much, 8 to 64 at once 0.8 to 1.05. A thread that
/// enters its ring anyway pays for nothing more than the frame.
///
/// A request in flight keeps the queue open in the kernel: whoever closes it has ended its requests first.
@safe
public final class TapQueue: Sendable {
  /// Bytes of the header before each frame.
  public static let headerByteCount = 12

  /// The open descriptor, for requests; closed with this object.
  public let descriptor: Int32
  /// Whether requests of io_uring can be told not to wait (RWF_NOWAIT).
  public let refusesToWait: Bool

  init(descriptor: Int32) {
    self.descriptor = descriptor
    // One byte is no frame: the kernel says so (EINVAL, EIO), unless it refuses the flag before.
    // Sound: one byte of ours for the call.
    var byte: UInt8 = 0
    refusesToWait =
      unsafe ringback_write_without_waiting(descriptor, &byte, 1) != -Int(EOPNOTSUPP)
  }

  deinit { close(descriptor) }

  /// Reads a header and a frame: their bytes, or a negative error number; -EAGAIN when there is none. The
  /// memory stays the caller's to keep.
  public func receive(into segment: IOSegment) -> Int32 {
    while true {
      // Sound: the owner of the memory keeps it for the call.
      let count = unsafe read(descriptor, segment.pointer, Int(segment.count))
      if count >= 0 { return Int32(clamping: count) }
      if errno != EINTR { return -errno }
    }
  }

  /// Writes a header and a frame: their bytes, or a negative error number.
  public func send(from segment: IOSegment) -> Int32 {
    while true {
      // Sound: the owner of the memory keeps it for the call.
      let count = unsafe write(descriptor, segment.pointer, Int(segment.count))
      if count >= 0 { return Int32(clamping: count) }
      if errno != EINTR { return -errno }
    }
  }
}
