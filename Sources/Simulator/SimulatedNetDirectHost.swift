public import Netback
public import RingKit

/// The world around a guest that sends to another one at a switch, in one thread: grants of both, buffers, and
/// the other one's receive ring. What an engine must never do is written to ``violations``.
public final class SimulatedNetDirectHost: NetTxHost {
  /// The receiver's side.
  public var line: NetRxLine<SimulatedNetRxHost>
  /// The world below the receiver's ring.
  public var receiverHost: SimulatedNetRxHost
  /// Who sends.
  public let sender: SimulatedGuest
  /// Who receives.
  public let receiver: SimulatedGuest
  /// Whether packets may go from page to page.
  public var allowsDirect = true
  /// Whether the hypervisor refuses to copy from page to page.
  public var refusesPageToPage = false
  /// Called after each copy out of a page of the sender's into private memory, with the page's number.
  public var onSenderRead: ((Int) -> Void)?
  /// Copies of each call: into private memory, out of it, and past it.
  public private(set) var calls: [(into: Int, outOf: Int, past: Int)] = []
  /// Packets that came whole.
  public private(set) var wholeCount = 0
  /// What the engine did that it must not do.
  public private(set) var violations: [String] = []
  /// Events sent to the sender.
  public private(set) var notifyCount = 0
  /// The time, which stands still.
  public var now: UInt64 = 1

  /// Frames up to this long always come whole.
  public static let privateByteCount = 2048
  /// Bytes of longer ones that come first.
  public static let leadingByteCount = 256
  private let pool: BufferPool
  private var share: BufferShare
  private var live: [UInt: UInt] = [:]

  /// A world in which `receiver` has `ring`, and accepts what `configuration` says.
  public init(
    sender: SimulatedGuest, receiver: SimulatedGuest, ring: consuming BackRing,
    configuration: NetRxConfiguration
  ) throws(SystemError) {
    self.sender = sender
    self.receiver = receiver
    pool = try BufferPool(byteCount: 16 << 20)
    share = BufferShare(limitByteCount: 16 << 20)
    receiverHost = try SimulatedNetRxHost(seed: 1, guest: receiver, bufferByteCount: 64 << 20)
    line = NetRxLine(
      engine: NetRxEngine(ring: ring, domain: receiver.domain, configuration: configuration),
      backlog: RxBacklog(capacity: 1024, byteLimit: 64 << 20), sendsEvents: true)
  }

  /// Buffers of the sender's in use.
  public var liveBufferCount: Int { live.count }

  /// Gives the receiver a turn.
  public func runReceiver() -> NetTurn { line.run(host: &receiverHost) }

  private func violate(_ what: String) { if violations.count < 100 { violations.append(what) } }

  private func isLive(_ segment: IOSegment) -> Bool {
    live.contains { start, length in
      segment.address >= start && segment.address + segment.length <= start + length
    }
  }

  // MARK: The sender's host

  /// A buffer of the pool.
  public func allocateBuffer(byteCount: Int) -> IOBuffer? {
    guard let buffer = pool.allocate(byteCount: byteCount, share: &share) else { return nil }
    live[buffer.segment.address] = buffer.segment.length
    return buffer
  }

  /// Takes it back.
  public func releaseBuffer(_ buffer: IOBuffer) {
    if live.removeValue(forKey: buffer.segment.address) == nil { violate("released a buffer twice") }
    pool.release(buffer, share: &share)
  }

  /// Its bytes.
  public func bytes(of buffer: IOBuffer) -> PrivateBytes { pool.bytes(of: buffer) }

  /// Copies as the hypervisor would.
  public func copy(_ batch: inout GrantCopyBatch) {
    var call = (into: 0, outOf: 0, past: 0)
    for index in 0..<batch.count {
      if let copy = batch.guestToGuest(at: index) {
        call.past += 1
        batch.setStatus(pageToPage(copy), at: index)
        continue
      }
      let segment = batch[index]
      if !isLive(segment.local) { violate("copy with memory that is in no buffer") }
      if segment.toGuest { call.outOf += 1 } else { call.into += 1 }
      let guest = segment.toGuest ? receiver : sender
      if segment.domain != guest.domain { violate("copy with \(segment.domain)") }
      guard let page = guest.page(of: segment.reference, forWriting: segment.toGuest) else {
        batch.setStatus(-3, at: index)
        continue
      }
      let granted = guest.segment(ofPage: page)
        .slice(offset: UInt(segment.pageOffset), count: segment.local.length)
      if segment.toGuest {
        pool.copy(from: segment.local, to: granted)
      } else {
        pool.copy(from: granted, to: segment.local)
        onSenderRead?(page)
      }
      batch.setStatus(0, at: index)
    }
    if call.into > 0 && call.outOf + call.past > 0 { violate("copies in both directions in one batch") }
    calls.append(call)
  }

  private func pageToPage(_ copy: GrantCopyBatch.GuestToGuest) -> Int16 {
    if copy.source.domain != sender.domain || copy.destination.domain != receiver.domain {
      violate("copy from \(copy.source.domain) to \(copy.destination.domain)")
    }
    guard !refusesPageToPage, let from = sender.page(of: copy.source.reference, forWriting: false),
      let to = receiver.page(of: copy.destination.reference, forWriting: true)
    else { return refusesPageToPage ? -8 : -3 }
    let bytes = sender.memory.copyBytes(
      at: from * pageByteCount + copy.source.pageOffset, count: copy.byteCount)
    receiver.memory.setBytes(bytes, at: to * pageByteCount + copy.destination.pageOffset)
    return 0
  }

  /// Nothing is staged.
  public func stagedPage(_ reference: GrantReference, writable: Bool) -> IOSegment? { nil }

  /// Nothing is staged.
  public func copyStaged(from source: IOSegment, to destination: IOSegment) { violate("a staged copy") }

  /// There is no limit.
  public func mayTake(byteCount: Int) -> Bool { true }

  /// There is no filter.
  public func changeMulticast(_ address: EthernetAddress, isAdded: Bool) -> Bool { true }

  /// Counts an event.
  public func notifyTransmit() { notifyCount += 1 }

  /// Hands a packet that came whole to the receiver.
  public func forward(_ packet: NetPacket) {
    wholeCount += 1
    let bytes = pool.bytes(of: packet.buffer)
    let frame = (packet.start..<packet.start + packet.byteCount).map { bytes[$0] }
    releaseBuffer(packet.buffer)
    guard let copy = receiverHost.packet(frame, offload: packet.offload) else {
      return violate("the receiver has no memory left")
    }
    line.receive(copy, host: &receiverHost)
  }

  // MARK: Past private memory

  /// The first bytes of long frames.
  public func leadingByteCount(ofPacket byteCount: Int) -> Int {
    byteCount > Self.privateByteCount ? Self.leadingByteCount : byteCount
  }

  /// The receiver's slots.
  public func reserve(_ packet: NetDirectPacket) -> NetDirectPath? {
    guard allowsDirect, let slots = line.reserve(packet) else { return nil }
    return NetDirectPath(receiver: 0, slots: slots)
  }

  /// A page of the receiver's.
  public func place(_ index: Int, of path: NetDirectPath) -> NetDirectPlace {
    line.engine.place(index, of: path.slots)
  }

  /// A slot of the receiver's that says ERROR.
  public func fail(_ index: Int, of path: NetDirectPath) { line.engine.fail(index, of: path.slots) }
}
