public import RingKit

/// The real world of one network queue: a data thread's io_uring, grants, events and buffers, and a link.
public struct NetQueueHost: NetTxHost, NetRxHost, ~Copyable {
  let loop: DataLoop<NetQueue>
  private let key: QueueKey
  /// Which of the interface's queues.
  let index: Int
  private var port: Port?
  private var receivePort: Port?
  let account: NetBufferAccount
  /// Pages that the frontend keeps granted for this queue.
  var staging: GrantStaging
  /// The TAP's queue, or the place at a switch: one of them is there.
  private var channel: TapChannel?
  let switchPort: SwitchPort?
  /// Whether the frontend has a control ring, by which it may steer and stage.
  let hasControl: Bool
  /// Who watches the frames.
  var captures: [FrameCapture]
  /// What became of frames before they reached a TAP, and at a switch.
  var counters = NetLinkCounters()
  private let limiter: RateLimiter
  private let member: RateLimiter.Member
  let multicast: MulticastList
  /// When the loop was told to run the queue; past when it has.
  private var wakeTime: UInt64 = 0
  /// False while the toolstack wants the link to be down: then everything is dropped.
  var isLinkUp = true

  /// Gathers what a queue needs on the thread that owns it.
  init(loop: DataLoop<NetQueue>, key: QueueKey, index: Int, plan: NetConnectionPlan, group: NetQueueGroup?) {
    self.loop = loop
    self.key = key
    self.index = index
    hasControl = group != nil
    captures = plan.captures
    account = group?.account ?? NetBufferAccount(limitByteCount: plan.bufferShareByteCount)
    // Nobody can fill it without a control ring.
    staging = GrantStaging(
      capacity: group == nil ? 1 : NetControlQueue.stagingCapacity, seed: .random(in: .min ... .max))
    limiter = plan.limiter
    member = plan.limiter.join()
    multicast = plan.multicast
    switch plan.links[index] {
    case .tap(let queue):
      channel = TapChannel(loop: loop, key: key, queue: queue, frameByteCount: plan.frameByteCount)
      switchPort = nil
    case .port(let port):
      channel = nil
      switchPort = port
    }
  }

  deinit { limiter.leave(member) }

  /// Tells the host where the frontend is signalled, before the first turn.
  mutating func adopt(port: Port, receivePort: Port) { (self.port, self.receivePort) = (port, receivePort) }

  /// The loop's clock: it stands still during a turn.
  public var now: UInt64 { loop.now }

  /// Has the queue run once more at `nanoseconds` of CLOCK_MONOTONIC, or before if it was told so already.
  mutating func runAgain(atNanoseconds nanoseconds: UInt64) {
    if wakeTime > loop.now && wakeTime <= nanoseconds { return }
    wakeTime = nanoseconds
    loop.schedule(key, atNanoseconds: nanoseconds)
  }

  /// Has the queue run in the thread's next turn.
  mutating func wake() { loop.wake(key) }

  // MARK: Memory

  /// Private memory from the thread's pool, within the guest's share.
  public mutating func allocateBuffer(byteCount: Int) -> IOBuffer? {
    if let buffer = loop.pool.allocate(byteCount: byteCount, share: &account.share) { return buffer }
    // Another packet may have to leave first.
    loop.waitForBuffers(key)
    return nil
  }

  /// Gives memory back to the pool.
  public mutating func releaseBuffer(_ buffer: IOBuffer) {
    loop.pool.release(buffer, share: &account.share)
    loop.buffersReleased()
  }

  /// The bytes of a buffer that is held.
  public func bytes(of buffer: IOBuffer) -> PrivateBytes { loop.pool.bytes(of: buffer) }

  /// Does grant copies.
  public mutating func copy(_ batch: inout GrantCopyBatch) { loop.grants.copy(&batch) }

  /// The page of a reference that is staged on this queue.
  public func stagedPage(_ reference: GrantReference, writable: Bool) -> IOSegment? {
    staging.lookup(reference, writable: writable)
  }

  /// Copies bytes between a staged page and private memory.
  public mutating func copyStaged(from source: IOSegment, to destination: IOSegment) {
    loop.pool.copy(from: source, to: destination)
  }

  // MARK: Guest to link

  /// Whether the interface's rate lets another packet pass; if not, the queue runs again when it does.
  public mutating func mayTake(byteCount: Int) -> Bool {
    // The frames taken so far in this turn are under way too.
    guard channel?.canWrite ?? true else { return false }
    if let due = limiter.take(member, byteCount: byteCount, atNanoseconds: loop.now) {
      runAgain(atNanoseconds: due)
      return false
    }
    return true
  }

  /// Changes the frontend's multicast filter.
  public mutating func changeMulticast(_ address: EthernetAddress, isAdded: Bool) -> Bool {
    multicast.change(address, isAdded: isAdded)
  }

  /// Sends a packet to the link.
  public mutating func forward(_ packet: NetPacket) {
    guard isLinkUp else {
      counters.droppedDown += 1
      releaseBuffer(packet.buffer)
      return
    }
    capture(packet, .inbound)
    if let switchPort {
      send(packet, through: switchPort)
    } else {
      channel?.write(packet, share: &account.share)
    }
  }

  /// Signals the frontend that transmit responses have come.
  public mutating func notifyTransmit() { notify(port) }

  /// Signals the frontend that receive responses have come.
  public mutating func notifyReceive() { notify(receivePort) }

  private func notify(_ port: Port?) {
    guard let port else { return }
    do throws(EventChannelError) {
      try loop.events.notify(port)
    } catch {
      // The frontend's end is gone: its state in xenstore ends the connection.
    }
  }

  // MARK: Link to guest

  /// The next frame that the link has for the guest; nil when there is none now.
  mutating func nextPacket() -> NetPacket? {
    while let packet = channel?.nextPacket(share: &account.share) {
      guard isLinkUp else {
        counters.droppedDown += 1
        releaseBuffer(packet.buffer)
        continue
      }
      let bytes = loop.pool.bytes(of: packet.buffer)
      let address = EthernetAddress(rawValue: bytes.word(at: packet.start).byteSwapped >> 16)
      guard multicast.accepts(address) else {
        counters.droppedUnwanted += 1
        releaseBuffer(packet.buffer)
        continue
      }
      return packet
    }
    return nil
  }

  /// The bytes of a packet that is held.
  func frame(of packet: NetPacket) -> PrivateBytes {
    loop.pool.bytes(of: packet.buffer).slice(from: packet.start, count: packet.byteCount)
  }

  /// Shows a frame to who watches.
  func capture(_ packet: NetPacket, _ direction: PcapngWriter.Direction) {
    guard !captures.isEmpty else { return }
    for capture in captures { capture.note(frame(of: packet), direction, atNanoseconds: loop.now) }
  }

  /// Asks the link for more frames.
  mutating func read() { channel?.read(share: &account.share) }

  /// The largest frame that comes without segmentation.
  mutating func setFrameByteCount(_ byteCount: Int) { channel?.frameByteCount = byteCount }

  /// Takes a completion of the queue's.
  mutating func completed(token: UInt32, result: Int32) {
    channel?.completed(token: token, result: result, share: &account.share)
  }

  /// What became of frames at the link.
  var linkCounters: NetLinkCounters {
    mutating get { counters + (channel?.counters ?? NetLinkCounters()) }
  }

  // MARK: The end

  /// Asks the link for nothing more.
  mutating func beginClosing() { channel?.beginClosing() }

  /// True when nothing is under way at the link.
  var isDrained: Bool {
    mutating get { channel?.isDrained ?? true }
  }

  /// Lets go of everything. Nothing is under way, and nothing follows.
  mutating func dispose() { channel?.dispose(share: &account.share) }
}
