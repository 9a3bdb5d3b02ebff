public import Netback
public import RingKit
import Synchronization

/// The world below a control ring, in one thread: messages to the queues arrive when the driver says so.
///
/// It also watches the engine: whatever an engine must never do is written to ``violations``.
public final class SimulatedNetControlHost: NetControlHost {
  /// How often copies fail, and maps (as ``FaultPlan/pinFailure``).
  public var faults = FaultPlan()
  /// What the engine did that it must not do.
  public private(set) var violations: [String] = []
  /// Events sent to the frontend.
  public private(set) var notifyCount = 0
  /// What the queues were last told about hashes.
  public private(set) var hash = NetHashState()
  /// How often they were told.
  public private(set) var hashCount = 0
  /// How often they had been told when the frontend was last signalled.
  public private(set) var hashCountAtNotify = 0
  /// Copies asked for.
  public private(set) var copyCount = 0
  /// Maps asked for.
  public private(set) var mapAttemptCount = 0
  /// Called after each copy from a guest's page, with its number: a guest may change it just then.
  public var onGuestRead: ((Int) -> Void)?
  /// The guest whose pages are moved.
  public let guest: SimulatedGuest

  private enum Message {
    case stage([StagedPage])
    case unstage([GrantReference], token: UInt32)
  }

  /// One queue's table and the messages on their way to its thread.
  private final class Queue {
    var table: GrantStaging
    var messages: [Message] = []

    init(capacity: Int, seed: UInt32) { table = GrantStaging(capacity: capacity, seed: seed) }
  }

  /// Which references are mapped; written by mappings when they end.
  private final class Ledger: Sendable {
    let mapped = Mutex<[UInt32: Int]>([:])
  }

  private var numbers: SeededNumbers
  private var queues: [Queue]
  private let ledger = Ledger()
  private let pool: BufferPool

  /// A world around `guest` with `queueCount` queues that may each have `stagingCapacity` pages staged.
  public init(
    seed: UInt64, guest: SimulatedGuest, queueCount: Int, stagingCapacity: Int
  ) throws(SystemError) {
    self.guest = guest
    var numbers = SeededNumbers(seed: seed)
    pool = try BufferPool(byteCount: 1 << 20)
    queues = (0..<queueCount).map { _ in
      Queue(capacity: max(1, stagingCapacity), seed: numbers.any(UInt32.self))
    }
    self.numbers = numbers
  }

  // MARK: What the engine asks for

  /// Copies between private memory and granted pages, as the hypervisor would.
  public func copy(_ batch: inout GrantCopyBatch) {
    let directions = Set((0..<batch.count).map { batch[$0].toGuest })
    if directions.count > 1 { violations.append("copies of both directions in one batch") }
    for index in 0..<batch.count {
      let segment = batch[index]
      copyCount += 1
      if segment.domain != guest.domain { violations.append("copy with \(segment.domain)") }
      if guest.page(at: segment.local.address) != nil { violations.append("copy onto the guest's memory") }
      guard let page = guest.page(of: segment.reference, forWriting: segment.toGuest) else {
        batch.setStatus(-3, at: index)
        continue
      }
      guard !happens(faults.copyFailure) else {
        batch.setStatus(-12, at: index)
        continue
      }
      let remote = guest.segment(ofPage: page).slice(
        offset: UInt(segment.pageOffset), count: segment.local.length)
      // The pool's copies have one side in the pool.
      guard let buffer = pool.allocate(byteCount: pageByteCount) else { continue }
      let between = buffer.segment.slice(offset: 0, count: segment.local.length)
      pool.copy(from: segment.toGuest ? segment.local : remote, to: between)
      pool.copy(from: between, to: segment.toGuest ? remote : segment.local)
      pool.release(buffer)
      batch.setStatus(0, at: index)
      if !segment.toGuest { onGuestRead?(page) }
    }
  }

  /// Maps a granted page.
  public func map(_ reference: GrantReference, access: GrantAccess) -> MappedPages? {
    mapAttemptCount += 1
    guard !happens(faults.pinFailure),
      let page = guest.page(of: reference, forWriting: access == .readWrite)
    else { return nil }
    let before = ledger.mapped.withLock { mapped in
      defer { mapped[reference.rawValue, default: 0] += 1 }
      return mapped[reference.rawValue, default: 0]
    }
    if before > 0 { violations.append("\(reference.rawValue) mapped twice") }
    // Sound: the guest's memory outlives its world, and nothing is unmapped but in the ledger.
    return unsafe MappedPages(base: guest.memory.unsafeBase + page * pageByteCount, pageCount: 1) {
      [ledger] _, _ in
      ledger.mapped.withLock { $0[reference.rawValue, default: 0] -= 1 }
    }
  }

  /// Sends pages to a queue.
  public func stage(_ pages: [StagedPage], onQueue queue: Int) {
    if pages.isEmpty { violations.append("nothing staged") }
    queues[queue].messages.append(.stage(pages))
  }

  /// Tells a queue to let go of pages.
  public func unstage(_ references: [GrantReference], onQueue queue: Int, token: UInt32) {
    if references.isEmpty { violations.append("nothing unstaged") }
    queues[queue].messages.append(.unstage(references, token: token))
  }

  /// Tells the queues about hashes.
  public func setHash(_ state: NetHashState) {
    hash = state
    hashCount += 1
  }

  /// Counts events.
  public func notifyControl() {
    notifyCount += 1
    hashCountAtNotify = hashCount
  }

  // MARK: The queues' threads

  /// Messages that have not arrived.
  public var messageCount: Int { queues.reduce(0) { $0 + $1.messages.count } }

  /// Delivers the oldest message to a queue, if there is one; the token to answer with, if it has one.
  public func deliver(toQueue queue: Int) -> UInt32? {
    guard !queues[queue].messages.isEmpty else { return nil }
    switch queues[queue].messages.removeFirst() {
    case .stage(let pages):
      let before = queues[queue].table.count
      queues[queue].table.insert(pages)
      if queues[queue].table.count != before + pages.count {
        violations.append("a page was left out on queue \(queue)")
      }
      return nil
    case .unstage(let references, let token):
      let before = queues[queue].table.count
      queues[queue].table.remove(references)
      if queues[queue].table.count != before - references.count {
        violations.append("a page was not there on queue \(queue)")
      }
      return token
    }
  }

  /// The guest's page that a queue finds staged under `reference`.
  public func stagedPage(_ reference: GrantReference, onQueue queue: Int, writable: Bool) -> Int? {
    queues[queue].table.lookup(reference, writable: writable).flatMap { guest.page(at: $0.address) }
  }

  /// Pages in a queue's table.
  public func stagedCount(onQueue queue: Int) -> Int { queues[queue].table.count }

  /// True while `reference` is mapped.
  public func isMapped(_ reference: GrantReference) -> Bool {
    ledger.mapped.withLock { $0[reference.rawValue, default: 0] } > 0
  }

  /// Pages mapped now.
  public var mappedCount: Int { ledger.mapped.withLock { $0.values.reduce(0, +) } }

  /// Has the queues drop their tables, as at the end of a connection.
  public func dropQueues() {
    queues = queues.map { _ in Queue(capacity: 1, seed: 0) }
  }

  private func happens(_ perThousand: Int) -> Bool {
    perThousand > 0 && numbers.chance(perThousand, in: 1000)
  }
}
