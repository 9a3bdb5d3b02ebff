public import RingKit
import Synchronization

/// A raw image file or a block device, through the data thread's ring.
public final class FileStore: BlockStore {
  /// The open file.
  public let file: StorageFile
  public let discard: DiscardSupport?
  private let change: RangeChange
  private let size: Atomic<UInt64>
  private let listener = Mutex<(@Sendable (DeviceSeverity, String) -> Void)?>(nil)

  /// Wraps an open file.
  public init(_ file: StorageFile, discardMode: DiscardMode = .unmap) {
    self.file = file
    change = discardMode == .zeroes ? .zero : .giveBack
    size = Atomic(file.byteCount)
    discard =
      discardMode == .off
      ? nil
      : file.rangeSupport(for: change).map {
        DiscardSupport(
          unitByteCount: $0.unitByteCount, chunkByteCount: discardMode == .zeroes ? 16 << 20 : 64 << 20,
          isSecurePossible: $0.isSecurePossible)
      }
  }

  public var byteCount: UInt64 { size.load(ordering: .acquiring) }
  public var physicalBlockByteCount: Int { file.physicalBlockByteCount }
  public var maximumQueueCount: Int { .max }
  public var warning: String? {
    let warnings = [file.directFallback, file.lockWarning].compactMap { $0 }
    return warnings.isEmpty ? nil : warnings.joined(separator: "; ")
  }
  public var geometry: MediumGeometry {
    MediumGeometry(
      blockByteCount: max(512, file.logicalBlockByteCount), memoryAlignment: max(1, file.memoryAlignment))
  }

  /// A size that is no whole number of blocks is told.
  public func tell(_ listener: @escaping @Sendable (DeviceSeverity, String) -> Void) {
    self.listener.withLock { $0 = listener }
  }

  public func refreshByteCount() throws(VbdError) -> UInt64 {
    do throws(StorageError) {
      let (now, tail) = try file.currentSize()
      if tail > 0 && now != byteCount {
        listener.withLock { $0 }?(
          .warning,
          "\(file.path): \(tail) bytes at its end are no whole block of \(file.logicalBlockByteCount) bytes and are"
            + " left out; `truncate -s %\(file.logicalBlockByteCount) \(file.path)` rounds it up")
      }
      size.store(now, ordering: .releasing)
      return now
    } catch {
      throw VbdError(error)
    }
  }

  public func openChannel(_ place: StoreChannelPlace) throws(VbdError) -> any StoreChannel {
    do throws(HostError) {
      if discard != nil { try place.loop.prepareChanges() }
    } catch {
      throw VbdError("\(error)")
    }
    return FileChannel(file, change: change, place)
  }
}

/// A queue's transfers to and from a file.
final class FileChannel: StoreChannel {
  private let storage: StorageFile
  private let change: RangeChange
  private let loop: DataLoop<BlockQueue>
  private let key: QueueKey
  private let file: IOFile

  init(_ storage: StorageFile, change: RangeChange, _ place: StoreChannelPlace) {
    self.storage = storage
    self.change = change
    loop = place.loop
    key = place.key
    file = place.loop.ring.register(descriptor: storage.descriptor)
  }

  func read(token: UInt32, into vectors: borrowing IOVectorTable, first: Int, count: Int, offset: UInt64) {
    let name = key.token(token)
    let vector = vectors[first]
    if count > 1 {
      loop.ring.readv(file, at: offset, into: vectors, first: first, count: count, token: name)
    } else if loop.pool.contains(vector) {
      loop.readPooled(file, at: offset, into: vector, token: name)
    } else {
      loop.ring.read(file, at: offset, into: vector, token: name)
    }
  }

  func write(token: UInt32, from vectors: borrowing IOVectorTable, first: Int, count: Int, offset: UInt64) {
    let name = key.token(token)
    let vector = vectors[first]
    if count > 1 {
      loop.ring.writev(file, at: offset, from: vectors, first: first, count: count, token: name)
    } else if loop.pool.contains(vector) {
      loop.writePooled(file, at: offset, from: vector, token: name)
    } else {
      loop.ring.write(file, at: offset, from: vector, token: name)
    }
  }

  func flush(token: UInt32) { loop.ring.fsync(file, dataOnly: true, token: key.token(token)) }

  func discard(token: UInt32, offset: UInt64, byteCount: UInt64, isSecure: Bool) {
    loop.change(
      isSecure ? .giveBackSecurely : change, of: storage, as: file, at: offset, byteCount: byteCount,
      token: key.token(token))
  }

  func completed(token: UInt32, result: Int32) {}
  func nextCompletion() -> StoreCompletion? { nil }
  var hasCompletions: Bool { false }
  func close() { loop.ring.unregister(file) }
}

extension StoreKind {
  /// Raw files and block devices: their bytes are the disk's bytes.
  static let file = StoreKind(
    prefixes: ["raw", "aio", "phy", "file"], locationForm: "/PATH", check: StoreTable.checkPath, canZero: true
  ) { (request) throws(VbdError) in
    do throws(StorageError) {
      return FileStore(
        try StorageFile.open(
          path: request.location, readOnly: request.isReadOnly, direct: request.direct,
          sharing: request.isShared ? .everybody : request.isReadOnly ? .readers : .nobody),
        discardMode: request.discardMode)
    } catch {
      throw VbdError(error)
    }
  }
}
