public import RingKit
import Synchronization

/// Where a disk's bytes are. A closed set, so that the data path switches instead of dispatching.
public enum BlockStore: Sendable {
  /// A raw image file or a block device, through io_uring.
  case file(StorageFile)
  /// Accepts writes and forgets them; reads as zeros. For measuring everything but the medium.
  case null(byteCount: UInt64)
  /// Memory, for tests and benchmarks.
  case memory(MemoryDisk)

  /// Opens the image of `configuration`.
  public static func open(_ configuration: VbdConfiguration) throws(VbdError) -> BlockStore {
    let byteCount = ImageFormat.byteCount(configuration.imagePath) ?? 0
    do {
      switch configuration.format {
      case .raw:
        return .file(
          try StorageFile.open(
            path: configuration.imagePath, readOnly: !configuration.isWritable, direct: .preferred))
      case .null: return .null(byteCount: byteCount)
      case .memory: return .memory(try MemoryDisk(byteCount: Int(byteCount)))
      }
    } catch {
      throw VbdError("\(error)")
    }
  }

  /// Bytes on the disk.
  public var byteCount: UInt64 {
    switch self {
    case .file(let file): file.byteCount
    case .null(let byteCount): byteCount
    case .memory(let disk): UInt64(disk.byteCount)
    }
  }

  /// What the medium demands of transfers.
  public var geometry: MediumGeometry {
    switch self {
    case .file(let file):
      MediumGeometry(
        blockByteCount: max(512, file.logicalBlockByteCount), memoryAlignment: max(1, file.memoryAlignment))
    case .null, .memory: MediumGeometry(blockByteCount: 512, memoryAlignment: 1)
    }
  }

  /// The medium's own block in bytes, a hint for the guest.
  public var physicalBlockByteCount: Int {
    switch self {
    case .file(let file): file.physicalBlockByteCount
    case .null, .memory: 512
    }
  }
}

/// Whether a disk can still be trusted to keep data: shared by all its queues.
public final class DiskHealth: Sendable {
  private let errno = Atomic<Int32>(0)

  /// A disk that has lost nothing.
  public init() {}

  /// The error that lost data; 0 while none did.
  public var lossErrno: Int32 { errno.load(ordering: .acquiring) }

  /// Latches the first loss. The kernel tells of a failed write-back once; a flush after it would succeed and
  /// promise what is not so (decision 7).
  public func latch(errno: Int32) {
    _ = self.errno.compareExchange(expected: 0, desired: max(1, errno), ordering: .acquiringAndReleasing)
  }
}
