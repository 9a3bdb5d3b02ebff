import Blkback
import RingKit
import Synchronization

/// A disk in memory that says of itself what a test wants.
final class DescribedStore: StoreAround {
  let below: any BlockStore
  let discard: DiscardSupport?
  let maximumQueueCount: Int
  let physicalBlockByteCount: Int

  init(
    byteCount: Int = 1 << 20, discard: DiscardSupport? = nil, maximumQueueCount: Int = .max,
    physicalBlockByteCount: Int = 512
  ) throws(VbdError) {
    below = try MemoryStore(byteCount: byteCount)
    self.discard = discard
    self.maximumQueueCount = maximumQueueCount
    self.physicalBlockByteCount = physicalBlockByteCount
  }
}

/// When an image that takes its time to be closed is let go.
final class Lingering: Sendable {
  private let waiting = Mutex<[@Sendable () -> Void]>([])

  /// Closes that were begun and not ended.
  var count: Int { waiting.withLock { $0.count } }

  func add(_ done: @escaping @Sendable () -> Void) { waiting.withLock { $0.append(done) } }

  /// Ends them.
  func end() {
    let ended = waiting.withLock { waiting in
      defer { waiting = [] }
      return waiting
    }
    for done in ended { done() }
  }
}

/// A disk in memory whose image is closed when the test says so.
final class LingeringStore: StoreAround {
  let below: any BlockStore
  private let lingering: Lingering

  init(_ lingering: Lingering) throws(VbdError) {
    below = try MemoryStore(byteCount: 1 << 20)
    self.lingering = lingering
  }

  func close(done: @escaping @Sendable () -> Void) { lingering.add(done) }
}
