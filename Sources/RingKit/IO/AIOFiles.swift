import CUring
import Glibc

/// What a ring on libaio knows about a file it was given, so as not to ask the kernel on every request.
struct AIOFile {
  var descriptor: Int32
  /// Transfers bypass the page cache; others would wait inside io_submit.
  var isDirect: Bool
  /// The kernel can refuse to wait (RWF_NOWAIT).
  var mayRefuseToWait = true
  /// Requests that name it.
  var useCount = 0
  var isLeaving = false

  /// A descriptor of which nothing needs to be known.
  init(unknown descriptor: Int32) {
    self.descriptor = descriptor
    isDirect = false
  }

  /// Asks the kernel.
  init(descriptor: Int32) {
    self.descriptor = descriptor
    let flags = fcntl(descriptor, F_GETFL)
    isDirect = flags >= 0 && flags & ringback_o_direct() != 0
  }
}

/// The registered files of a ring on libaio: each a descriptor of the ring's own.
final class AIOFiles {
  private var files: [AIOFile?] = []
  private var free: [Int32] = []

  init() {
    files = Array(repeating: nil, count: IOFileSlots.capacity)
    free = (0..<Int32(IOFileSlots.capacity)).reversed()
  }

  deinit {
    for file in files { if let file { close(file.descriptor) } }
  }

  /// Gives a file a slot; nil when there is none.
  func register(_ descriptor: Int32) -> Int32? {
    guard let slot = free.popLast() else { return nil }
    let own = fcntl(descriptor, F_DUPFD_CLOEXEC, 0)
    guard own >= 0 else {
      free.append(slot)
      return nil
    }
    files[Int(slot)] = AIOFile(descriptor: own)
    return slot
  }

  /// Takes the slot away once no request names it.
  func unregister(_ slot: Int32) {
    precondition(files[Int(slot)]?.isLeaving == false, "the file was unregistered before")
    files[Int(slot)]?.isLeaving = true
    release(slot)
  }

  /// Uses a registered file for one more request; nil when there is none in the slot.
  func use(_ slot: Int32) -> AIOFile? {
    guard slot >= 0 && slot < files.count, let file = files[Int(slot)], !file.isLeaving else { return nil }
    files[Int(slot)]?.useCount += 1
    return file
  }

  /// Ends one use.
  func endUse(_ slot: Int32) {
    files[Int(slot)]?.useCount -= 1
    release(slot)
  }

  /// Notes that the kernel cannot refuse to wait for this file.
  func noteWaits(_ slot: Int32) { files[Int(slot)]?.mayRefuseToWait = false }

  private func release(_ slot: Int32) {
    guard let file = files[Int(slot)], file.isLeaving, file.useCount == 0 else { return }
    close(file.descriptor)
    files[Int(slot)] = nil
    free.append(slot)
  }
}
