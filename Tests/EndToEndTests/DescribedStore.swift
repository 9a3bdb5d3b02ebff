import Blkback
import RingKit

/// A disk in memory that says of itself what a test wants.
final class DescribedStore: BlockStore {
  private let below: any BlockStore
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

  var byteCount: UInt64 { below.byteCount }
  var geometry: MediumGeometry { below.geometry }
  var warning: String? { nil }
  func refreshByteCount() throws(VbdError) -> UInt64 { try below.refreshByteCount() }
  func openChannel(_ place: StoreChannelPlace) throws(VbdError) -> any StoreChannel {
    try below.openChannel(place)
  }
}
