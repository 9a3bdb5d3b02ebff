import RingKit

/// A drive without a medium: nothing can be read or written.
public final class EmptyStore: BlockStore {
  /// An empty drive.
  public init() {}

  public var byteCount: UInt64 { 0 }
  public var geometry: MediumGeometry { MediumGeometry(blockByteCount: 512, memoryAlignment: 1) }
  public var physicalBlockByteCount: Int { 512 }
  public var discard: DiscardSupport? { nil }
  public var maximumQueueCount: Int { .max }
  public var warning: String? { nil }
  public func refreshByteCount() throws(VbdError) -> UInt64 { 0 }
  public func openChannel(_ place: StoreChannelPlace) throws(VbdError) -> any StoreChannel { ClosedChannel() }
}

/// A way to no store: of an empty drive, and of a paused disk. Flushes find nothing to do; all else fails.
final class ClosedChannel: StoreChannel {
  private var completions = StoreCompletions()
  /// ENOMEDIUM (errno.h); this module imports no C library.
  private static let noMedium: Int32 = 123

  func read(token: UInt32, into vectors: borrowing IOVectorTable, first: Int, count: Int, offset: UInt64) {
    refuse(token)
  }

  func write(token: UInt32, from vectors: borrowing IOVectorTable, first: Int, count: Int, offset: UInt64) {
    refuse(token)
  }

  func flush(token: UInt32) { completions.add(token, byteCount: 0) }

  func discard(token: UInt32, offset: UInt64, byteCount: UInt64, isSecure: Bool) { refuse(token) }

  private func refuse(_ token: UInt32) {
    completions.add(StoreCompletion(token: token, result: -Self.noMedium))
  }

  func completed(token: UInt32, result: Int32) {}
  func nextCompletion() -> StoreCompletion? { completions.next() }
  var hasCompletions: Bool { !completions.isEmpty }
  func close() {}
}
