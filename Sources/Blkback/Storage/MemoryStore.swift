import RingKit

/// A disk in memory that is gone when it is detached, for tests and measurements.
public final class MemoryStore: BlockStore {
  private let disk: MemoryDisk
  private let takesDiscards: Bool

  /// A disk of `byteCount` zeros, a positive multiple of 4096.
  public init(byteCount: Int, discardMode: DiscardMode = .unmap) throws(VbdError) {
    takesDiscards = discardMode != .off
    do throws(SystemError) {
      disk = try MemoryDisk(byteCount: byteCount)
    } catch {
      throw VbdError("\(byteCount) bytes of memory for a disk: \(error)")
    }
  }

  public var byteCount: UInt64 { UInt64(disk.byteCount) }
  public var geometry: MediumGeometry { MediumGeometry(blockByteCount: 512, memoryAlignment: 1) }
  public var physicalBlockByteCount: Int { 512 }
  /// What is given back reads as zeros; a MiB at a time, because that takes the data thread's time.
  public var discard: DiscardSupport? {
    takesDiscards ? DiscardSupport(unitByteCount: 512, chunkByteCount: 1 << 20) : nil
  }
  public var maximumQueueCount: Int { .max }
  public var warning: String? { nil }
  public func refreshByteCount() throws(VbdError) -> UInt64 { byteCount }

  public func openChannel(_ place: StoreChannelPlace) throws(VbdError) -> any StoreChannel {
    MemoryChannel(disk, place)
  }
}

/// A queue's transfers to and from memory.
private final class MemoryChannel: StoreChannel {
  private let disk: MemoryDisk
  private var completions = StoreCompletions()

  init(_ disk: MemoryDisk, _ place: StoreChannelPlace) {
    self.disk = disk
    completions.reserve(place.callCapacity)
  }

  func read(token: UInt32, into vectors: borrowing IOVectorTable, first: Int, count: Int, offset: UInt64) {
    var position = offset
    for index in first..<first + count {
      disk.read(at: position, into: vectors[index])
      position += UInt64(vectors[index].length)
    }
    completions.add(token, byteCount: vectors.byteCount(first: first, count: count))
  }

  func write(token: UInt32, from vectors: borrowing IOVectorTable, first: Int, count: Int, offset: UInt64) {
    var position = offset
    for index in first..<first + count {
      disk.write(at: position, from: vectors[index])
      position += UInt64(vectors[index].length)
    }
    completions.add(token, byteCount: vectors.byteCount(first: first, count: count))
  }

  func flush(token: UInt32) { completions.add(token, byteCount: 0) }

  func discard(token: UInt32, offset: UInt64, byteCount: UInt64, isSecure: Bool) {
    disk.zero(at: offset, byteCount: Int(byteCount))
    completions.add(token, byteCount: 0)
  }

  func completed(token: UInt32, result: Int32) {}
  func nextCompletion() -> StoreCompletion? { completions.next() }
  var hasCompletions: Bool { !completions.isEmpty }
  func close() {}
}

extension StoreKind {
  /// Disks in memory.
  static let memory = StoreKind(
    prefixes: ["ram", "memory"], locationForm: "SIZE", check: StoreTable.checkSize, canZero: true
  ) { (request) throws(VbdError) in
    try MemoryStore(
      byteCount: Int(StoreTable.byteCount(request.location) ?? 0), discardMode: request.discardMode)
  }
}
