import CUring
import Glibc

/// A file as a request names it: by descriptor, or by its place in the ring's table of registered files,
/// which saves the kernel a lookup and a reference count on every request.
@frozen
public struct IOFile: BitwiseCopyable, Sendable, Equatable {
  @usableFromInline let number: Int32
  @usableFromInline let flags: UInt8

  /// Names a file by descriptor; valid while the descriptor is open.
  @inlinable
  public init(descriptor: Int32) {
    number = descriptor
    flags = 0
  }

  init(slot: Int32) {
    number = slot
    flags = 1  // IOSQE_FIXED_FILE
  }

  /// True when the file was registered.
  public var isRegistered: Bool { flags != 0 }
}

/// The places of a ring's table of registered files.
final class IOFileSlots {
  /// Files a ring registers at most; further ones go by descriptor.
  static let capacity = 256
  var free: [Int32] = []
  var isOpen = false
}

extension IORing {
  /// Registers `count` at most 1024 buffers for ``readFixed(_:at:into:buffer:token:)``, numbered from 0. The
  /// memory is pinned until the ring ends, and counts against the locked-memory limit (ENOMEM).
  public func registerBuffers(_ segments: [IOSegment]) throws(SystemError) {
    // Nothing is gained by it without io_uring.
    guard aio == nil else { throw SystemError(call: "io_uring_register_buffers", errno: ENOSYS) }
    let table = IOVectorTable(capacity: segments.count)
    for (index, segment) in segments.enumerated() { table[index] = segment }
    // Sound: the kernel reads the table during the call only.
    let result = unsafe io_uring_register_buffers(
      ring, table.vectors(first: 0, count: segments.count), UInt32(segments.count))
    guard result == 0 else { throw SystemError(call: "io_uring_register_buffers", errno: -result) }
  }

  /// Registers an open file; by descriptor as before when the ring has no place or the kernel refuses. A
  /// registered file stays open in the kernel until ``unregister(_:)``, whatever happens to the descriptor.
  public func register(descriptor: Int32) -> IOFile {
    if let aio {
      return aio.files.register(descriptor).map(IOFile.init(slot:)) ?? IOFile(descriptor: descriptor)
    }
    if !fileSlots.isOpen {
      fileSlots.isOpen = true
      let count = UInt32(IOFileSlots.capacity)
      if unsafe io_uring_register_files_sparse(ring, count) == 0 {
        fileSlots.free = (0..<Int32(count)).reversed()
      }
    }
    guard let slot = fileSlots.free.popLast() else { return IOFile(descriptor: descriptor) }
    guard update(slot: slot, to: descriptor) else {
      fileSlots.free.append(slot)
      return IOFile(descriptor: descriptor)
    }
    return IOFile(slot: slot)
  }

  /// Gives a registered file's place back. Requests in flight keep the file until they complete.
  public func unregister(_ file: IOFile) {
    guard file.isRegistered else { return }
    if let aio {
      aio.files.unregister(file.number)
      return
    }
    precondition(!fileSlots.free.contains(file.number), "the file was unregistered before")
    if update(slot: file.number, to: -1) { fileSlots.free.append(file.number) }
  }

  private func update(slot: Int32, to descriptor: Int32) -> Bool {
    var descriptor = descriptor
    // Sound: the kernel reads one descriptor during the call.
    return unsafe io_uring_register_files_update(ring, UInt32(slot), &descriptor, 1) == 1
  }
}
