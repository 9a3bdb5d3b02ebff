public import RingKit

/// The receive direction of a queue, backend to guest: puts packets into the pages that the frontend posts,
/// slot after slot, each packet whole or not at all. No system call, no clock, no allocation after `init`.
///
/// A packet takes slots in the order of the ring, and each slot's response stands where its request stood
/// (netif.h, the note on rx responses). ``flush(host:)`` does the copies of all packets since the last one
/// and lets the frontend see them.
public struct NetRxEngine<Host: NetRxHost & ~Copyable>: ~Copyable {
  var ring: BackRing
  /// Slots taken and not answered, in the order of the ring: the first ``slotCount`` elements.
  var slots: [RxSlot]
  var slotCount = 0
  /// The packets that they belong to, in the same order: the first ``packetCount`` elements.
  var packets: [RxPending]
  var packetCount = 0
  var copies: GrantCopyBatch
  var request = SlotCopy()
  let domain: DomainID
  var failure: RingError?
  var isClosing = false
  /// Slots that the packet needs for which there was no room last; 0 if there was.
  var awaitedSlotCount = 0

  /// What the frontend wants; may be replaced between turns, and holds for the packets after that.
  public var configuration: NetRxConfiguration
  /// What this direction has done.
  public var counters = NetRxCounters()

  /// Makes the engine of a connected queue, whose ring has slots of ``NetRxRequest/byteCount`` bytes.
  /// Allocates all that it will ever need.
  public init(ring: consuming BackRing, domain: DomainID, configuration: NetRxConfiguration) {
    precondition(ring.slotByteCount == NetRxRequest.byteCount)
    // Each packet takes a slot at least, and each slot one copy at most.
    let count = ring.slotCount
    slots = [RxSlot](repeating: RxSlot(), count: count)
    packets = [RxPending](repeating: RxPending(), count: count)
    copies = GrantCopyBatch(capacity: count)
    self.ring = ring
    self.domain = domain
    self.configuration = configuration
  }

  /// Takes no more packets; those taken are still flushed.
  public mutating func beginClosing() { isClosing = true }

  /// Slots of the ring.
  public var ringSlotCount: Int { ring.slotCount }

  /// True when packets were taken that a flush would let the frontend see.
  public var hasUnflushed: Bool { packetCount > 0 }

  // MARK: Packets

  /// Takes a packet over if the frontend has posted slots for all of it, or says what is missing. After
  /// ``RxDelivery/noRoom(slotsNeeded:nextSegment:)`` or ``RxDelivery/noMemory(nextSegment:)`` the caller
  /// offers it again, unchanged, with the `nextSegment` that it was told.
  ///
  /// The work is bounded by the slots of the ring.
  public mutating func deliver(
    _ packet: NetPacket, nextSegment: Int = 0, host: inout Host
  ) -> RxDelivery {
    guard failure == nil else { return lose(packet, .brokenRing, host: &host) }
    guard !isClosing else { return lose(packet, .closing, host: &host) }
    guard Self.isPlausible(packet) else { return lose(packet, .badLength, host: &host) }
    let frame = host.bytes(of: packet.buffer).slice(from: packet.start, count: packet.byteCount)
    let accepted = configuration.accepted
    switch ReceiveOffload.action(for: packet.offload, frame: frame, accepted: accepted) {
    case .send(let flags, let segmentation):
      let delivery = send(
        RxFrame(buffer: packet.buffer, bytes: frame.segment, hash: packet.offload.hash), flags: flags,
        segmentation: segmentation, host: &host)
      guard case .dropped(let reason) = delivery else { return delivery }
      return lose(packet, reason, host: &host)
    case .completeChecksum:
      return complete(packet, frame, host: &host)
    case .segment:
      return cut(packet, frame, from: nextSegment, host: &host)
    }
  }

  /// Gives up a packet that the caller keeps: gives its buffer back and counts it.
  public mutating func drop(_ packet: NetPacket, as reason: RxDropReason, host: inout Host) {
    host.releaseBuffer(packet.buffer)
    counters.drops[reason] += 1
  }

  mutating func lose(_ packet: NetPacket, _ reason: RxDropReason, host: inout Host) -> RxDelivery {
    drop(packet, as: reason, host: &host)
    return .dropped(reason)
  }

  private static func isPlausible(_ packet: NetPacket) -> Bool {
    packet.byteCount >= NetLimits.ethernetHeaderByteCount && packet.byteCount <= NetLimits.packetByteCount
      && packet.start >= 0 && packet.start <= Int(packet.buffer.segment.length) - packet.byteCount
  }

  // MARK: Slots

  /// Puts a frame into slots and takes its buffer over. When it says anything but ``RxDelivery/taken``,
  /// nothing was consumed and the buffer is still the caller's.
  mutating func send(
    _ frame: RxFrame, flags: NetRxFlags, segmentation: NetExtraInfo?, host: inout Host
  ) -> RxDelivery {
    var flags = flags
    var extraCount = 0
    if let segmentation {
      // Linux's netfront and others would pass a packet on that is too long for their network.
      guard takes(segmentation) else { return .dropped(.offload) }
      // Windows' frontends are slow without (net.md 33).
      flags.formUnion([.checksumBlank, .dataValidated])
      extraCount += 1
    }
    let hash = configuration.tellsHashes ? frame.hash : nil
    if hash != nil { extraCount += 1 }
    let byteCount = Int(frame.bytes.length)
    let needed: Int
    do throws(RxDropReason) {
      needed = try configuration.slotsNeeded(byteCount: byteCount, extraCount: extraCount)
      guard try isRoom(for: needed) else { return .noRoom(slotsNeeded: needed, nextSegment: 0) }
    } catch {
      return .dropped(error)
    }

    packets[packetCount] = RxPending(buffer: frame.buffer, slotCount: needed, byteCount: byteCount)
    packetCount += 1
    let hasExtras = extraCount > 0 || configuration.headroom > 0
    if hasExtras { flags.insert(.extraInfo) }
    let capacity = min(byteCount, configuration.slotCapacity)
    fillSlot(
      frame.bytes.slice(offset: 0, count: UInt(capacity)), flags: flags, isLast: capacity == byteCount,
      host: &host)
    if hasExtras { tellExtras(segmentation, hash, count: extraCount) }
    var sent = capacity
    while sent < byteCount {
      let count = min(capacity, byteCount - sent)
      fillSlot(
        frame.bytes.slice(offset: UInt(sent), count: UInt(count)), flags: [],
        isLast: sent + count == byteCount, host: &host)
      sent += count
    }
    return .taken
  }

  /// Whether the frontend takes packets that are to be cut as this says, whatever the judge of offloads
  /// thought.
  func takes(_ segmentation: NetExtraInfo) -> Bool {
    let wanted: NetOffloads =
      segmentation.segmentationType == .tcpIPv6 ? .segmentationIPv6 : .segmentationIPv4
    return configuration.accepted.isSuperset(of: [.scatterGather, wanted])
  }

  /// Whether so many slots are posted; looks at the frontend's producer only if it knows of too few.
  mutating func isRoom(for count: Int) throws(RxDropReason) -> Bool {
    awaitedSlotCount = 0
    if ring.unconsumed >= count { return true }
    if postedSlotCount() >= count { return true }
    guard failure == nil else { throw .brokenRing }
    awaitedSlotCount = count
    return false
  }

  /// Slots that the frontend has posted and that are not taken; 0 once it broke the ring.
  public mutating func postedSlotCount() -> Int {
    guard failure == nil else { return 0 }
    do throws(RingError) {
      return try ring.refresh()
    } catch {
      failure = error
      return 0
    }
  }

  /// Takes the next slot for data, which goes there by the next flush or at once.
  private mutating func fillSlot(
    _ bytes: IOSegment, flags: NetRxFlags, isLast: Bool, host: inout Host
  ) {
    let posted = takeSlot()
    let headroom = configuration.headroom
    let response = NetRxResponse(
      id: posted.id, offset: UInt16(headroom), flags: isLast ? flags : flags.union(.moreData),
      status: Int16(bytes.length))
    var copy = -1
    if let page = host.stagedPage(posted.reference, writable: true) {
      host.copyStaged(from: bytes, to: page.slice(offset: UInt(headroom), count: bytes.length))
      counters.stagedCopies += 1
    } else {
      copy = copies.append(
        GrantCopyBatch.Segment(
          toGuest: true, domain: domain, reference: posted.reference, pageOffset: headroom, local: bytes))
    }
    note(RxSlot(word: response.encode().uint64(at: 0), copy: Int32(copy)))
  }

  /// Takes the slots of the extra infos, in the order of their types. Their pages stay as they are.
  mutating func tellExtras(_ segmentation: NetExtraInfo?, _ hash: NetHash?, count: Int) {
    var left = count + (configuration.headroom > 0 ? 1 : 0)
    if let segmentation { tell(segmentation, left: &left) }
    if let hash { tell(NetExtraInfo(hash: hash), left: &left) }
    if configuration.headroom > 0 {
      tell(NetExtraInfo(headroom: UInt16(configuration.headroom)), left: &left)
    }
  }

  private mutating func tell(_ extra: NetExtraInfo, left: inout Int) {
    _ = takeSlot()
    left -= 1
    var extra = extra
    extra.hasMore = left > 0
    counters.extras += 1
    note(RxSlot(word: extra.encode().uint64(at: 0), copy: -1))
  }

  mutating func takeSlot() -> NetRxRequest {
    let isThere = ring.take(into: &request)
    precondition(isThere, "a slot that was not reserved")
    return NetRxRequest(request)
  }

  mutating func note(_ slot: RxSlot) {
    slots[slotCount] = slot
    slotCount += 1
  }
}

/// A frame on its way into slots.
struct RxFrame: BitwiseCopyable {
  /// The buffer that is given back after the copies.
  var buffer: IOBuffer
  /// The frame in it.
  var bytes: IOSegment
  /// The packet's hash, if it is known.
  var hash: NetHash?
}

/// A slot that was taken and not answered.
struct RxSlot: BitwiseCopyable {
  /// The response or extra info as it goes into the slot.
  var word: UInt64 = 0
  /// The copy that fills the slot's page; -1 if there is none, -2 if somebody else's failed.
  var copy: Int32 = -1
  /// The page of a slot that is filled by somebody else.
  var reference = GrantReference(rawValue: 0)
}

/// A packet whose slots were taken and not answered.
struct RxPending: BitwiseCopyable {
  var buffer: IOBuffer?
  var slotCount = 0
  var byteCount = 0
}
