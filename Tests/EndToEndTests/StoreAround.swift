import Blkback
import RingKit

/// A store that is as the one below it, but for what it says or does itself.
protocol StoreAround: BlockStore {
  var below: any BlockStore { get }
}

extension StoreAround {
  var byteCount: UInt64 { below.byteCount }
  var geometry: MediumGeometry { below.geometry }
  var physicalBlockByteCount: Int { below.physicalBlockByteCount }
  var discard: DiscardSupport? { below.discard }
  var maximumQueueCount: Int { below.maximumQueueCount }
  var warning: String? { below.warning }
  func refreshByteCount() throws(VbdError) -> UInt64 { try below.refreshByteCount() }
  func tell(_ listener: @escaping @Sendable (DeviceSeverity, String) -> Void) { below.tell(listener) }
  func close(done: @escaping @Sendable () -> Void) { below.close(done: done) }
  func openChannel(_ place: StoreChannelPlace) throws(VbdError) -> any StoreChannel {
    try below.openChannel(place)
  }
}

/// A channel that does as the one below it, but for what it does itself.
protocol ChannelAround: StoreChannel {
  var below: any StoreChannel { get }
}

extension ChannelAround {
  func read(token: UInt32, into vectors: borrowing IOVectorTable, first: Int, count: Int, offset: UInt64) {
    below.read(token: token, into: vectors, first: first, count: count, offset: offset)
  }
  func write(token: UInt32, from vectors: borrowing IOVectorTable, first: Int, count: Int, offset: UInt64) {
    below.write(token: token, from: vectors, first: first, count: count, offset: offset)
  }
  func flush(token: UInt32) { below.flush(token: token) }
  func discard(token: UInt32, offset: UInt64, byteCount: UInt64, isSecure: Bool) {
    below.discard(token: token, offset: offset, byteCount: byteCount, isSecure: isSecure)
  }
  func completed(token: UInt32, result: Int32) { below.completed(token: token, result: result) }
  func nextCompletion() -> StoreCompletion? { below.nextCompletion() }
  var hasCompletions: Bool { below.hasCompletions }
  func beginClosing() { below.beginClosing() }
  func close() { below.close() }
}
