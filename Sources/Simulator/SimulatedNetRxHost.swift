public import Netback
public import RingKit

/// The world below a receive queue, in one thread and with a clock that the driver moves: buffers from a
/// small real pool, and copies into the guest's pages that fail where the hypervisor would refuse them.
///
/// It also watches the engine: whatever an engine must never do is written to ``violations``.
public final class SimulatedNetRxHost: NetRxHost {
  /// The time; a driver moves it.
  public var now: UInt64 = 1
  /// How often things fail.
  public var faults = FaultPlan()
  /// What the engine did that it must not do.
  public private(set) var violations: [String] = []
  /// Events sent to the frontend.
  public private(set) var notifyCount = 0
  /// Calls of ``copy(_:)``.
  public private(set) var copyCallCount = 0
  /// Called when the frontend is notified: everything must be free by then.
  public var onNotify: (() -> Void)?
  /// The guest whose pages are filled.
  public let guest: SimulatedGuest

  private var numbers: SeededNumbers
  private let pool: BufferPool
  private var share: BufferShare
  private let scratch: MappedPages
  private var live: [UInt: UInt] = [:]
  private var staged: [UInt32: (page: Int, isWritable: Bool)] = [:]

  /// A world around `guest` in which the queue may hold `bufferByteCount` bytes of buffers.
  public init(seed: UInt64, guest: SimulatedGuest, bufferByteCount: Int) throws(SystemError) {
    self.guest = guest
    numbers = SeededNumbers(seed: seed)
    pool = try BufferPool(byteCount: max(bufferByteCount, 1 << 20))
    share = BufferShare(limitByteCount: bufferByteCount)
    scratch = try MappedPages.anonymous(pageCount: 17)
  }

  /// Bytes of buffers that are held.
  public var liveByteCount: Int { live.values.reduce(0) { $0 + Int($1) } }

  private func violate(_ what: String) { violations.append(what) }

  private func isLive(_ segment: IOSegment) -> Bool {
    live.contains { start, length in
      segment.address >= start && segment.address + segment.length <= start + length
    }
  }

  // MARK: Packets

  /// A packet as a link would bring it, `start` bytes into its buffer; nil when there is no buffer for it.
  public func packet(
    _ bytes: [UInt8], offload: PacketOffload = PacketOffload(), start: Int = NetPacket.headroomByteCount
  ) -> NetPacket? {
    guard let buffer = allocateBuffer(byteCount: start + max(bytes.count, 1)) else { return nil }
    if !bytes.isEmpty {
      scratch.setBytes(bytes, at: 0)
      pool.copy(
        from: scratch.segment(offset: 0, length: bytes.count),
        to: buffer.segment.slice(offset: UInt(start), count: UInt(bytes.count)))
    }
    return NetPacket(buffer: buffer, start: start, byteCount: bytes.count, offload: offload)
  }

  /// Makes the page of a reference one that the frontend has granted for good.
  public func stage(_ reference: GrantReference, isWritable: Bool = true) {
    guard let page = guest.page(of: reference, forWriting: false) else { return }
    staged[reference.rawValue] = (page, isWritable)
  }

  // MARK: The host

  /// A buffer of the pool.
  public func allocateBuffer(byteCount: Int) -> IOBuffer? {
    guard !numbers.chance(faults.allocationFailure, in: 1000),
      let buffer = pool.allocate(byteCount: byteCount, share: &share)
    else { return nil }
    live[buffer.segment.address] = buffer.segment.length
    return buffer
  }

  /// Takes it back.
  public func releaseBuffer(_ buffer: IOBuffer) {
    if live.removeValue(forKey: buffer.segment.address) == nil { violate("released a buffer twice") }
    pool.release(buffer, share: &share)
  }

  /// Its bytes.
  public func bytes(of buffer: IOBuffer) -> PrivateBytes {
    if !isLive(buffer.segment) { violate("looked at memory that is in no buffer") }
    return pool.bytes(of: buffer)
  }

  /// Copies as the hypervisor would.
  public func copy(_ batch: inout GrantCopyBatch) {
    copyCallCount += 1
    for index in 0..<batch.count {
      let segment = batch[index]
      if !segment.toGuest { violate("copy from the guest") }
      if segment.domain != guest.domain { violate("copy with \(segment.domain)") }
      if !isLive(segment.local) { violate("copy from memory that is in no buffer") }
      guard let page = guest.page(of: segment.reference, forWriting: true) else {
        // GNTST_bad_gntref
        batch.setStatus(-3, at: index)
        continue
      }
      guard !numbers.chance(faults.copyFailure, in: 1000) else {
        batch.setStatus(-12, at: index)
        continue
      }
      pool.copy(
        from: segment.local,
        to: guest.segment(ofPage: page).slice(offset: UInt(segment.pageOffset), count: segment.local.length))
      batch.setStatus(0, at: index)
    }
  }

  /// A page granted for good.
  public func stagedPage(_ reference: GrantReference, writable: Bool) -> IOSegment? {
    guard let found = staged[reference.rawValue], found.isWritable || !writable else { return nil }
    return guest.segment(ofPage: found.page)
  }

  /// Copies into it.
  public func copyStaged(from source: IOSegment, to destination: IOSegment) {
    if !isLive(source) { violate("staged copy from memory that is in no buffer") }
    if guest.page(at: destination.address) == nil { violate("staged copy to no page of the guest") }
    pool.copy(from: source, to: destination)
  }

  /// Counts the event.
  public func notifyReceive() {
    notifyCount += 1
    onNotify?()
  }
}
