import RingKit

/// A disk that accepts writes and forgets them, and reads as zeros: for measuring everything but the medium.
public final class NullStore: BlockStore {
  public let byteCount: UInt64

  /// A disk of `byteCount` bytes, a multiple of 512.
  public init(byteCount: UInt64) { self.byteCount = byteCount }

  public var geometry: MediumGeometry { MediumGeometry(blockByteCount: 512, memoryAlignment: 1) }
  public var physicalBlockByteCount: Int { 512 }
  public var discard: DiscardSupport? { DiscardSupport(unitByteCount: 512, chunkByteCount: 1 << 40) }
  public var maximumQueueCount: Int { .max }
  public var warning: String? { nil }
  public func refreshByteCount() throws(VbdError) -> UInt64 { byteCount }

  public func openChannel(_ place: StoreChannelPlace) throws(VbdError) -> any StoreChannel {
    NullChannel(place)
  }
}

/// A queue's transfers to nowhere.
private final class NullChannel: StoreChannel {
  private let loop: DataLoop<BlockQueue>
  private var completions = StoreCompletions()

  init(_ place: StoreChannelPlace) {
    loop = place.loop
    completions.reserve(place.callCapacity)
  }

  func read(token: UInt32, into vectors: borrowing IOVectorTable, first: Int, count: Int, offset: UInt64) {
    for index in first..<first + count where loop.pool.contains(vectors[index]) {
      // A private buffer may hold another guest's bytes; a guest's own page may stay as it is.
      loop.pool.zero(vectors[index])
    }
    completions.add(token, byteCount: vectors.byteCount(first: first, count: count))
  }

  func write(token: UInt32, from vectors: borrowing IOVectorTable, first: Int, count: Int, offset: UInt64) {
    completions.add(token, byteCount: vectors.byteCount(first: first, count: count))
  }

  func flush(token: UInt32) { completions.add(token, byteCount: 0) }

  func discard(token: UInt32, offset: UInt64, byteCount: UInt64, isSecure: Bool) {
    completions.add(token, byteCount: 0)
  }

  func completed(token: UInt32, result: Int32) {}
  func nextCompletion() -> StoreCompletion? { completions.next() }
  var hasCompletions: Bool { !completions.isEmpty }
  func close() {}
}

/// Ends of storage calls that a channel did at once, to be handed out later.
struct StoreCompletions {
  private var list: [StoreCompletion] = []

  var isEmpty: Bool { list.isEmpty }

  mutating func reserve(_ count: Int) { list.reserveCapacity(count) }

  mutating func add(_ token: UInt32, byteCount: UInt) {
    list.append(StoreCompletion(token: token, result: Int32(byteCount)))
  }

  mutating func add(_ completion: StoreCompletion) { list.append(completion) }

  /// Any of them: the order of ends means nothing.
  mutating func next() -> StoreCompletion? { list.popLast() }
}

extension StoreKind {
  /// Disks that forget.
  static let null = StoreKind(
    prefixes: ["null"], locationForm: "SIZE", check: StoreTable.checkSize, canZero: true
  ) { (request) throws(VbdError) in
    NullStore(byteCount: StoreTable.byteCount(request.location) ?? 0)
  }
}
