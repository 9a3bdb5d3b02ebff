public import RingKit

/// The real world of one block queue: a data thread's io_uring, grants, events and buffers, and a store.
public struct RingBlockHost: BlockHost, ~Copyable {
  private let loop: DataLoop<BlockQueue>
  private var identity: Identity?
  private var share: BufferShare
  private var persistent: PersistentGrants
  private var vectors: IOVectorTable
  private let store: BlockStore
  private let file: IOFile
  private let health: DiskHealth
  /// Ends of storage calls that needed no waiting, to be delivered at the next turn.
  private var immediate: [ImmediateCompletion] = []
  /// What the medium demands.
  public let medium: MediumGeometry

  /// The end of a storage call that the store did at once.
  struct ImmediateCompletion: BitwiseCopyable {
    var token: UInt32
    var result: Int32
  }

  /// What the queue's thread calls the queue, known once the thread has taken it over.
  private struct Identity {
    var key: QueueKey
    var port: Port
  }

  /// Gathers what a queue with `slots` slots needs on the thread that owns it.
  init(
    loop: DataLoop<BlockQueue>, share: BufferShare, persistent: consuming PersistentGrants,
    vectorCapacity: Int, slots: Int,
    store: BlockStore, health: DiskHealth
  ) {
    self.loop = loop
    self.share = share
    self.persistent = persistent
    vectors = IOVectorTable(capacity: vectorCapacity)
    self.store = store
    self.health = health
    medium = store.geometry
    file =
      switch store {
      case .file(let file): loop.ring.register(descriptor: file.descriptor)
      case .null, .memory: IOFile(descriptor: -1)
      }
    immediate.reserveCapacity(slots)
  }

  deinit {
    if case .file = store { loop.ring.unregister(file) }
  }

  /// Tells the host under which names the thread runs the queue, before the first turn.
  mutating func adopt(key: QueueKey, port: Port) { identity = Identity(key: key, port: port) }

  /// The name of an I/O on the thread's ring.
  private func name(_ token: UInt32) -> UInt64 {
    guard let identity else {
      preconditionFailure("a queue does nothing before its thread has taken it over")
    }
    return identity.key.token(token)
  }

  /// The next end of a storage call that needed no waiting.
  mutating func takeImmediate() -> ImmediateCompletion? { immediate.popLast() }

  /// Whether ends of storage calls wait to be delivered.
  var hasImmediate: Bool { !immediate.isEmpty }

  /// Has the queue run once more at `nanoseconds` of CLOCK_MONOTONIC.
  func runAgain(atNanoseconds nanoseconds: UInt64) {
    if let identity { loop.schedule(identity.key, atNanoseconds: nanoseconds) }
  }

  /// Pages mapped persistently now.
  var persistentPageCount: Int { persistent.mappedCount }

  /// Pages mapped since the queue connected.
  var mapCount: UInt64 { persistent.missCount - persistent.failureCount }

  /// True once data was lost.
  public var isFenced: Bool { health.lossErrno != 0 }

  /// Private memory from the thread's pool, within the guest's share.
  public mutating func allocateBuffer(byteCount: Int) -> IOBuffer? {
    loop.pool.allocate(byteCount: byteCount, share: &share)
  }

  /// Gives memory back to the pool.
  public mutating func releaseBuffer(_ buffer: IOBuffer) { loop.pool.release(buffer, share: &share) }

  /// Pins a persistently mapped page.
  public mutating func pin(_ reference: GrantReference) -> PinnedPage? {
    guard let page = persistent.page(for: reference, using: loop.grants) else { return nil }
    return PinnedPage(handle: page.handle, segment: page.segment)
  }

  /// Unpins it.
  public mutating func unpin(_ handle: UInt32) { persistent.unpin(handle) }

  /// Does grant copies.
  public mutating func copy(_ batch: inout GrantCopyBatch) { loop.grants.copy(&batch) }

  /// Sets a transfer vector.
  public mutating func setVector(_ segment: IOSegment, at index: Int) { vectors[index] = segment }

  /// Reads a transfer vector.
  public func vector(at index: Int) -> IOSegment { vectors[index] }

  /// Begins a read.
  public mutating func read(token: UInt32, firstVector: Int, vectorCount: Int, offset: UInt64) {
    switch store {
    case .file:
      let vector = vectors[firstVector]
      if vectorCount > 1 {
        loop.ring.readv(
          file, at: offset, into: vectors, first: firstVector, count: vectorCount, token: name(token))
      } else if loop.pool.contains(vector) {
        loop.readPooled(file, at: offset, into: vector, token: name(token))
      } else {
        loop.ring.read(file, at: offset, into: vector, token: name(token))
      }
    case .null:
      for index in firstVector..<firstVector + vectorCount where loop.pool.contains(vectors[index]) {
        // A private buffer may hold another guest's bytes; a guest's own page may stay as it is.
        loop.pool.zero(vectors[index])
      }
      finishAtOnce(token, firstVector: firstVector, vectorCount: vectorCount)
    case .memory(let disk):
      var position = offset
      for index in firstVector..<firstVector + vectorCount {
        disk.read(at: position, into: vectors[index])
        position += UInt64(vectors[index].length)
      }
      finishAtOnce(token, firstVector: firstVector, vectorCount: vectorCount)
    }
  }

  /// Begins a write.
  public mutating func write(token: UInt32, firstVector: Int, vectorCount: Int, offset: UInt64) {
    switch store {
    case .file:
      let vector = vectors[firstVector]
      if vectorCount > 1 {
        loop.ring.writev(
          file, at: offset, from: vectors, first: firstVector, count: vectorCount, token: name(token))
      } else if loop.pool.contains(vector) {
        loop.writePooled(file, at: offset, from: vector, token: name(token))
      } else {
        loop.ring.write(file, at: offset, from: vector, token: name(token))
      }
    case .null:
      finishAtOnce(token, firstVector: firstVector, vectorCount: vectorCount)
    case .memory(let disk):
      var position = offset
      for index in firstVector..<firstVector + vectorCount {
        disk.write(at: position, from: vectors[index])
        position += UInt64(vectors[index].length)
      }
      finishAtOnce(token, firstVector: firstVector, vectorCount: vectorCount)
    }
  }

  /// Begins a flush.
  public mutating func flush(token: UInt32) {
    switch store {
    case .file: loop.ring.fsync(file, dataOnly: true, token: name(token))
    case .null, .memory: immediate.append(ImmediateCompletion(token: token, result: 0))
    }
  }

  /// Latches the loss of data.
  public mutating func fence(errno: Int32) { health.latch(errno: errno) }

  /// Signals the frontend.
  public mutating func notify() {
    guard let identity else { return }
    do throws(EventChannelError) {
      try loop.events.notify(identity.port)
    } catch {
      // The frontend's end is gone: its state in xenstore ends the connection.
    }
  }

  private mutating func finishAtOnce(_ token: UInt32, firstVector: Int, vectorCount: Int) {
    let moved = vectors.byteCount(first: firstVector, count: vectorCount)
    immediate.append(ImmediateCompletion(token: token, result: Int32(moved)))
  }
}
