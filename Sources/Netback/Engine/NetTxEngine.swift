public import RingKit

/// The transmit direction of a network queue, guest to backend: takes packets apart from their slots, judges
/// a private copy of each, has their data copied and hands the frames to the host. No system call, no clock,
/// no allocation after `init`.
///
/// Every slot is answered exactly once and strictly in the order of requests. At the end of a turn all that
/// was taken is answered, but a packet that waits for credit or for a buffer; nothing of it is held outside
/// the ring, so that whoever attaches to the ring at `rsp_prod` after this process ended loses no packet
/// (net.md, rule 4).
public struct NetTxEngine<Host: NetTxHost & ~Copyable>: ~Copyable {
  var ring: BackRing
  let domain: DomainID
  let limits: NetTxLimits
  /// The slot being looked at: the private copy.
  var request = SlotCopy()
  /// What is written into an answered slot.
  var response = SlotCopy()
  /// Slots taken and not answered, each at the place of its counter: there are never more than the ring has.
  var slots: Slab<NetTxSlot>
  let slotMask: UInt32
  /// Counter of the next slot to be taken.
  var takenSlot: UInt32 = 0
  /// Counter of the next slot to be answered.
  var answeredSlot: UInt32 = 0
  /// Counter behind the last slot of the last packet that is complete.
  var completeSlot: UInt32 = 0
  /// This turn's packets, whose copies are in the batch.
  var packets: Slab<NetTxPacket>
  var packetCount = 0
  var copies: GrantCopyBatch
  /// Copies to other guests, what each of them is, and the largest number; made when there is the first.
  var direct: NetDirectBatch?
  /// A packet that waits for credit or a buffer; nothing is taken meanwhile.
  var waiting: NetTxPacket?
  var fault: NetFault?
  var isClosing = false

  /// What this direction has done.
  public internal(set) var counters = NetTxCounters()

  /// Makes the engine of a connected queue. `ring` has slots of ``NetTxRequest/byteCount`` bytes, and
  /// `domain` granted what its requests name. Allocates all that will ever be needed.
  public init(
    ring: consuming BackRing, domain: DomainID, limits: NetTxLimits = NetTxLimits()
  ) throws(SystemError) {
    precondition(ring.slotByteCount == NetTxRequest.byteCount)
    let slotCount = ring.slotCount
    let slots = try Slab<NetTxSlot>(name: "ringback-tx-slots", capacity: slotCount)
    let packets = try Slab<NetTxPacket>(name: "ringback-tx-packets", capacity: limits.packetCount)
    self.slots = slots
    self.packets = packets
    slotMask = UInt32(slotCount - 1)
    // A slot is copied once at most, and no turn takes more of them than the ring has.
    copies = GrantCopyBatch(capacity: slotCount)
    self.ring = ring
    self.domain = domain
    self.limits = limits
  }

  /// True when nothing that was taken awaits its answer. What waits for credit or a buffer is dropped by
  /// ``beginClosing()``.
  public var isDrained: Bool { waiting == nil }

  /// True when a packet waits, and the host runs the queue again when it has what the packet waits for.
  public var isWaiting: Bool { waiting != nil }

  /// Takes nothing more, for good. A packet that waits is left as it lies in the ring, unanswered: the next
  /// backend that attaches to the ring takes it.
  public mutating func beginClosing() {
    isClosing = true
    waiting = nil
  }

  /// Looks once whether a packet could be taken, for a thread that polls; the ring's broken state counts, so
  /// that a turn reports it. False while a packet waits: it is the host that knows when it may go on.
  public mutating func hasWork() -> Bool {
    guard fault == nil, !isClosing, waiting == nil else { return false }
    if ring.unconsumed > 0 { return true }
    do throws(NetFault) {
      return try refresh() > 0
    } catch {
      fault = error
      return true
    }
  }

  // MARK: A turn

  /// Takes at most ``NetTxLimits/packetCount`` packets and the ring's slots, has their data copied, hands them
  /// on and answers them.
  ///
  /// Call it after an event, and when the host has credit or buffers again after it had none. With `arms`
  /// false an idle turn does not ask the frontend for an event: the caller polls with ``hasWork()``, and makes
  /// one turn that arms before it stops polling.
  ///
  /// After `.broken` nothing but the same comes back, and the ring is not touched again. Packets that came
  /// before the fault were handed on; they are answered too, unless it is the ring that cannot be believed.
  public mutating func run(host: inout Host, arms: Bool = true) -> NetTurn {
    if let fault { return .broken(fault) }
    guard !isClosing else { return .idle }
    let end = takePackets(host: &host)
    let droppedCount = finishPackets(host: &host)
    answer(host: &host)
    if let fault { return .broken(fault) }
    switch end {
    case .wantsCredit: return .idle
    // What was given back in this turn may be what it waits for, and nothing will come to tell.
    case .wantsBuffer: return droppedCount > 0 ? .more : .idle
    case .outOfBudget where ring.unconsumed > 0: return .more
    case .outOfBudget, .nothing: break
    }
    guard arms else { return .idle }
    do throws(RingError) {
      return try ring.finalCheck() ? .more : .idle
    } catch {
      let fault = NetFault.ring(error)
      self.fault = fault
      return .broken(fault)
    }
  }

  /// Why no further packet was taken.
  enum TakingEnd {
    /// There is none, or the ring is broken.
    case nothing
    /// The turn has had its share.
    case outOfBudget
    /// The host says that the next one must wait.
    case wantsCredit
    /// There is no memory for the next one.
    case wantsBuffer
  }

  /// Takes packets until there are none, one must wait, or the turn's budget is spent.
  mutating func takePackets(host: inout Host) -> TakingEnd {
    packetCount = 0
    copies.removeAll()
    if let packet = waiting {
      waiting = nil
      if let end = begin(packet, host: &host) { return end }
    }
    // One that waited is this turn's first.
    var budget = limits.packetCount - packetCount
    do throws(NetFault) {
      while budget > 0 {
        if ring.unconsumed == 0 {
          guard try refresh() > 0 else { return .nothing }
        }
        budget -= 1
        guard let packet = try takePacket(host: &host) else { continue }
        if let end = begin(packet, host: &host) { return end }
      }
      return .outOfBudget
    } catch {
      fault = error
      return .nothing
    }
  }

  mutating func refresh() throws(NetFault) -> Int {
    do throws(RingError) { return try ring.refresh() } catch { throw .ring(error) }
  }

  // MARK: Answers

  /// Answers the slots of all packets that were finished, and lets the frontend see it.
  mutating func answer(host: inout Host) {
    // A broken ring takes no answers, and none are counted.
    guard ring.fault == nil else { return }
    let end = waiting?.firstSlot ?? completeSlot
    counters.slots += UInt64(end &- answeredSlot)
    while answeredSlot != end {
      let slot = slots[Int(answeredSlot & slotMask)]
      if slot.status == .null { counters.extraInfos += 1 }
      if slot.status == .error { counters.errors += 1 }
      response.setUInt16(slot.id, at: 0)
      response.setUInt16(UInt16(bitPattern: slot.status.rawValue), at: 2)
      ring.respond(response, byteCount: NetTxResponse.byteCount)
      answeredSlot &+= 1
    }
    if ring.publish() {
      counters.notifications += 1
      host.notifyTransmit()
    }
  }
}
