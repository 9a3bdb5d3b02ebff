public import Netback
public import RingKit

/// The world around the transmit direction of a network queue, in one thread: grants of a simulated guest, a
/// small pool of buffers, credit, and a link that records what it is given. What fails is the seed's choice.
///
/// It also watches the engine: whatever an engine must never do is written to ``violations``.
public final class SimulatedNetTxHost: NetTxHost {
  /// A frame as the link got it.
  public struct Frame: Sendable, Equatable {
    /// Its bytes.
    public var bytes: [UInt8]
    /// Its place in the buffer.
    public var start: Int
    /// What is to be done to it.
    public var offload: PacketOffload
  }

  /// How often grant copies and buffers fail.
  public var faults = FaultPlan()
  /// Bytes that may still be taken; nil for any number.
  public var credit: Int?
  /// Packets that the credit let pass, in bytes each.
  public private(set) var charges: [Int] = []
  /// Times the engine asked for credit.
  public private(set) var creditQuestionCount = 0
  /// The guest's filter.
  public var multicast = MulticastFilter()
  /// The references that the guest granted for good.
  public private(set) var staged: [GrantReference: Int] = [:]
  /// What the link was given. A test empties it.
  public var frames: [Frame] = []
  /// True when the link keeps buffers until ``sendHeld(upTo:)``, as one whose writes take time.
  public var holdsFrames = false
  /// References whose copy failed.
  public private(set) var failedReferences: Set<UInt32> = []
  /// Calls of ``copy(_:)``, in copies each.
  public private(set) var batches: [Int] = []
  /// Copies that crossed a page of ours, which cost the hypervisor two operations.
  public private(set) var splitCopyCount = 0
  /// Events sent to the frontend.
  public private(set) var notifyCount = 0
  /// What the engine did that it must not do.
  public private(set) var violations: [String] = []
  /// Called after each copy of a guest's page, with its number: a guest may change it just then.
  public var onGuestRead: ((Int) -> Void)?
  /// True when a buffer was refused and one was given back since: the engine is owed a turn.
  public private(set) var owesBuffer = false
  /// The time, which stands still.
  public var now: UInt64 = 1

  /// The guest whose pages are moved.
  public let guest: SimulatedGuest
  private var numbers: SeededNumbers
  private let pool: BufferPool
  private var share: BufferShare
  private let poison: MappedPages
  private var live: [UInt: UInt] = [:]
  private var held: [IOBuffer] = []
  private var wasRefusedBuffer = false

  /// The byte that fills every buffer when it is taken.
  public static let poisonByte: UInt8 = 0xA5

  /// A world around `guest`, which may hold `bufferByteCount` bytes of buffers.
  public init(seed: UInt64, guest: SimulatedGuest, bufferByteCount: Int) throws(SystemError) {
    self.guest = guest
    numbers = SeededNumbers(seed: seed)
    pool = try BufferPool(byteCount: bufferByteCount)
    share = BufferShare(limitByteCount: bufferByteCount)
    poison = try MappedPages.anonymous(pageCount: 1)
    poison.setBytes([UInt8](repeating: Self.poisonByte, count: pageByteCount), at: 0)
  }

  /// Buffers in use, those that the link holds among them.
  public var liveBufferCount: Int { live.count }
  /// Buffers that the link holds.
  public var heldCount: Int { held.count }

  /// Makes a reference one that is granted for good.
  public func stage(_ reference: GrantReference) {
    guard let page = guest.page(of: reference, forWriting: false) else { return }
    staged[reference] = page
  }

  /// Lets the link finish up to `count` frames.
  public func sendHeld(upTo count: Int) {
    for _ in 0..<min(count, held.count) { giveBack(held.removeFirst()) }
  }

  /// Notes that the engine had its turn.
  func takeDebt() { owesBuffer = false }

  // MARK: NetHost

  /// A buffer full of poison.
  public func allocateBuffer(byteCount: Int) -> IOBuffer? {
    let isUnlucky = happens(faults.allocationFailure)
    guard !isUnlucky, let buffer = pool.allocate(byteCount: byteCount, share: &share) else {
      wasRefusedBuffer = true
      // A neighbour's buffer comes back some time.
      if isUnlucky { owesBuffer = true }
      return nil
    }
    var offset: UInt = 0
    while offset < buffer.segment.length {
      pool.copy(
        from: poison.segment(offset: 0, length: pageByteCount),
        to: buffer.segment.slice(offset: offset, count: UInt(pageByteCount)))
      offset += UInt(pageByteCount)
    }
    live[buffer.segment.address] = buffer.segment.length
    return buffer
  }

  /// Takes a buffer back from the engine.
  public func releaseBuffer(_ buffer: IOBuffer) {
    // The engine knows of what it gives back itself.
    let wasRefused = wasRefusedBuffer
    giveBack(buffer)
    wasRefusedBuffer = wasRefused
  }

  /// The bytes of a buffer.
  public func bytes(of buffer: IOBuffer) -> PrivateBytes {
    if live[buffer.segment.address] == nil { violate("looked at memory that is in no buffer") }
    return pool.bytes(of: buffer)
  }

  /// Copies from granted pages, as the hypervisor would.
  public func copy(_ batch: inout GrantCopyBatch) {
    if batch.count == 0 { violate("an empty batch of copies") }
    batches.append(batch.count)
    for index in 0..<batch.count {
      let segment = batch[index]
      if segment.domain != guest.domain { violate("copy with \(segment.domain)") }
      if segment.toGuest { violate("copy to the guest") }
      if !isLive(segment.local) { violate("copy with memory that is in no buffer") }
      let last = segment.local.address + segment.local.length - 1
      if segment.local.address / UInt(pageByteCount) != last / UInt(pageByteCount) { splitCopyCount += 1 }
      guard let page = guest.page(of: segment.reference, forWriting: false), !happens(faults.copyFailure)
      else {
        failedReferences.insert(segment.reference.rawValue)
        batch.setStatus(-3, at: index)
        continue
      }
      let granted = guest.segment(ofPage: page)
      pool.copy(
        from: granted.slice(offset: UInt(segment.pageOffset), count: segment.local.length),
        to: segment.local)
      batch.setStatus(0, at: index)
      onGuestRead?(page)
    }
  }

  /// The page that is granted for good.
  public func stagedPage(_ reference: GrantReference, writable: Bool) -> IOSegment? {
    if writable { violate("asked for a page to write to") }
    return staged[reference].map { guest.segment(ofPage: $0) }
  }

  /// Copies out of a staged page.
  public func copyStaged(from source: IOSegment, to destination: IOSegment) {
    if !isLive(destination) { violate("copy with memory that is in no buffer") }
    pool.copy(from: source, to: destination)
    if let page = guest.page(at: source.address) { onGuestRead?(page) }
  }

  // MARK: NetTxHost

  /// Whether the credit that a test set lets the packet pass.
  public func mayTake(byteCount: Int) -> Bool {
    creditQuestionCount += 1
    if let credit {
      guard credit >= byteCount else { return false }
      self.credit = credit - byteCount
    }
    charges.append(byteCount)
    return true
  }

  /// Changes the guest's filter.
  public func changeMulticast(_ address: EthernetAddress, isAdded: Bool) -> Bool {
    multicast.change(address, isAdded: isAdded)
  }

  /// Records the frame.
  public func forward(_ packet: NetPacket) {
    let segment = packet.buffer.segment
    if live[segment.address] != segment.length { violate("forwarded memory that is in no buffer") }
    if packet.start < NetPacket.headroomByteCount { violate("a frame at \(packet.start) of its buffer") }
    if packet.start + packet.byteCount > Int(segment.length) { violate("a frame beyond its buffer") }
    if packet.byteCount < 14 || packet.byteCount > 65535 { violate("a frame of \(packet.byteCount)") }
    let bytes = pool.bytes(of: packet.buffer)
    frames.append(
      Frame(
        bytes: (packet.start..<packet.start + packet.byteCount).map { bytes[$0] }, start: packet.start,
        offload: packet.offload))
    if holdsFrames { held.append(packet.buffer) } else { giveBack(packet.buffer) }
  }

  /// Counts an event.
  public func notifyTransmit() { notifyCount += 1 }

  // MARK: Inside

  private func giveBack(_ buffer: IOBuffer) {
    if live.removeValue(forKey: buffer.segment.address) == nil { violate("a buffer given back twice") }
    if wasRefusedBuffer { (owesBuffer, wasRefusedBuffer) = (true, false) }
    pool.release(buffer, share: &share)
  }

  private func isLive(_ segment: IOSegment) -> Bool {
    for (address, length) in live
    where segment.address >= address && segment.address + segment.length <= address + length { return true }
    return false
  }

  private func happens(_ perThousand: Int) -> Bool {
    perThousand > 0 && numbers.chance(perThousand, in: 1000)
  }

  private func violate(_ what: String) {
    if violations.count < 100 { violations.append(what) }
  }
}
