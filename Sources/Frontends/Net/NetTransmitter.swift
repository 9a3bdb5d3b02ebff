public import Netback
public import RingKit

/// A queue's transmit ring as a frontend has it: packets go into slots, and the backend's answers are judged
/// as a hardened Linux netfront judges them (xen-netfront.c, xennet_tx_buf_gc).
///
/// Pages are shared once. The ones that are free stand in a stack: a packet takes the topmost ones in order,
/// so that a caller may have written into them already (``freeSegment(_:offset:)``). No step allocates.
public final class NetTransmitter {
  /// A request in flight, by its id.
  private struct Entry: BitwiseCopyable {
    var isInFlight = false
    /// The page it has; ``noPage`` for none.
    var page: UInt16 = 0
    var packet: UInt16 = 0
  }

  /// A packet in flight.
  private struct Packet: BitwiseCopyable {
    var tag: UInt64 = 0
    var left: UInt16 = 0
    var slotCount: UInt16 = 0
    var status = NetStatus.okay
  }

  private static let noPage = UInt16.max

  /// The queue's number.
  public let number: Int
  /// The ring's page: whoever attacks the backend writes here.
  public let ringPages: SharedPages
  /// The data pages. The backend may only read them.
  public let dataPages: SharedPages

  private var ring: NetFrontendRing
  private var freePages: [UInt16]
  private var freePageTop: Int
  private var entries: [Entry]
  private var freeIDs: [UInt16]
  private var freeIDTop: Int
  private var packets: [Packet]
  private var freePackets: [UInt16]
  private var freePacketTop: Int
  private var extrasInFlight = 0
  private var rawInFlight = 0

  /// Packets answered with OKAY.
  public private(set) var packetCount: UInt64 = 0
  /// Packets of which a slot was answered otherwise.
  public private(set) var failedPacketCount: UInt64 = 0
  /// Slots used, with those of extra infos.
  public private(set) var slotCount: UInt64 = 0

  /// Takes over a page for the ring and those for the data, 1...65535 of them.
  init(number: Int, ringPages: SharedPages, dataPages: SharedPages, firstRingIndex: UInt32) {
    self.number = number
    self.ringPages = ringPages
    self.dataPages = dataPages
    ring = NetFrontendRing(
      pages: ringPages.pages, slotByteCount: NetTxRequest.byteCount, startingAt: firstRingIndex,
      queue: number)
    let count = ring.slots.slotCount
    let pageCount = dataPages.pages.pageCount
    precondition(pageCount < Int(Self.noPage) && pageCount == dataPages.references.count)
    // From the end, so that the first ones are taken first.
    freePages = (0..<pageCount).reversed().map(UInt16.init)
    freePageTop = pageCount
    entries = Array(repeating: Entry(), count: count)
    freeIDs = (0..<count).reversed().map(UInt16.init)
    freeIDTop = count
    packets = Array(repeating: Packet(), count: count)
    freePackets = (0..<count).reversed().map(UInt16.init)
    freePacketTop = count
  }

  /// Slots in the ring.
  public var ringSlotCount: Int { ring.slots.slotCount }
  /// Slots that a request can be placed in now.
  public var freeSlotCount: Int { ring.slots.freeSlotCount }
  /// Requests pushed whose responses were not taken.
  public var outstanding: Int { ring.slots.outstanding }
  /// Data pages that no request has.
  public var freePageCount: Int { freePageTop }
  /// True when there is room for the largest packet with an extra info, after which Linux's netfront goes on
  /// sending (netfront_tx_slot_available).
  public var hasRoom: Bool {
    ring.slots.freeSlotCount > NetLimits.slotCount + 1 && freePageTop >= NetLimits.slotCount
  }

  // MARK: Packets

  /// Memory of the free page that the packet's slot `position` will have, from `offset` to the page's end;
  /// nil when there are not as many free pages. It may be written to, and stays until a packet was placed.
  public func freeSegment(_ position: Int, offset: Int = 0) -> IOSegment? {
    guard position >= 0, position < freePageTop else { return nil }
    let page = Int(freePages[freePageTop - 1 - position])
    return dataPages.pages.segment(offset: page * pageByteCount + offset, length: pageByteCount - offset)
  }

  /// Copies bytes into that page; they must not cross its end.
  public func fill(_ position: Int, offset: Int = 0, from bytes: RawSpan) {
    precondition(offset >= 0 && bytes.byteCount <= pageByteCount - offset)
    let page = Int(freePages[freePageTop - 1 - position])
    dataPages.pages.copyIn(offset: page * pageByteCount + offset, from: bytes)
  }

  /// Places a packet whose `byteCount` bytes stand in the free pages already, the first of them at
  /// `firstOffset`, the others from each page's begin. False when there is no room for it now.
  public func place(
    byteCount: Int, firstOffset: Int = 0, _ transmission: NetTransmission
  ) throws(NetFrontendError) -> Bool {
    precondition(byteCount >= 0 && byteCount <= NetLimits.packetByteCount)
    let pieceCount = max(1, (firstOffset + byteCount + pageByteCount - 1) / pageByteCount)
    guard var writer = try begin(pieceCount: pieceCount, total: byteCount, transmission) else { return false }
    var left = byteCount
    for position in 0..<pieceCount {
      let offset = position == 0 ? firstOffset : 0
      let size = min(left, pageByteCount - offset)
      put(offset: offset, byteCount: size, &writer, transmission)
      left -= size
    }
    return true
  }

  /// Copies a packet into pages and places it, cut as told, else into as few slots as can be; false when there
  /// is no room for it now.
  public func place(
    _ frame: [UInt8], _ transmission: NetTransmission = .init(), cut: NetSlotCut? = nil
  ) throws(NetFrontendError) -> Bool {
    precondition(frame.count <= NetLimits.packetByteCount)
    let cut = cut ?? .pages(byteCount: frame.count)
    guard var writer = try begin(pieceCount: cut.pieces.count, total: frame.count, transmission) else {
      return false
    }
    var start = 0
    for piece in cut.pieces {
      let page = Int(freePages[freePageTop - 1])
      if piece.byteCount > 0 {
        dataPages.pages.setBytes(
          Array(frame[start..<(start + piece.byteCount)]), at: page * pageByteCount + piece.offset)
      }
      start += piece.byteCount
      put(offset: piece.offset, byteCount: piece.byteCount, &writer, transmission)
    }
    precondition(start == frame.count, "the cut is of another packet")
    return true
  }

  /// Places the dummy request that changes the backend's multicast filter (netif.h,
  /// XEN_NETIF_EXTRA_TYPE_MCAST_*): no page, no bytes. False when there is no room for it now. Its completion
  /// says whether the filter took it.
  public func placeMulticast(
    _ address: EthernetAddress, isAdded: Bool, tag: UInt64 = 0
  ) throws(NetFrontendError) -> Bool {
    let transmission = NetTransmission(
      otherExtras: [NetExtraInfo(multicast: address, isAdded: isAdded)], tag: tag)
    guard var writer = try begin(pieceCount: 1, total: 0, transmission, takesPages: false) else {
      return false
    }
    put(offset: 0, byteCount: 0, &writer, transmission)
    return true
  }

  /// Places any bytes at all in the next slot; false when there is none. What answers it is reported without
  /// a tag.
  public func placeRaw(_ slot: SlotCopy) -> Bool {
    guard ring.slots.freeSlotCount > 0 else { return false }
    ring.slots.place(slot)
    rawInFlight += 1
    slotCount += 1
    return true
  }

  private struct Writer {
    var packet: UInt16
    var left: Int
    var isFirst = true
    var total: Int
    var takesPages: Bool
  }

  /// Takes what a packet needs; nil when there is too little of it.
  private func begin(
    pieceCount: Int, total: Int, _ transmission: NetTransmission, takesPages: Bool = true
  ) throws(NetFrontendError) -> Writer? {
    try ring.check()
    precondition(pieceCount > 0)
    guard ring.slots.freeSlotCount >= pieceCount + transmission.extraCount, freeIDTop >= pieceCount,
      freePacketTop > 0, !takesPages || freePageTop >= pieceCount
    else { return nil }
    freePacketTop -= 1
    let packet = freePackets[freePacketTop]
    packets[Int(packet)] = Packet(
      tag: transmission.tag, left: UInt16(pieceCount), slotCount: UInt16(pieceCount))
    return Writer(packet: packet, left: pieceCount, total: total, takesPages: takesPages)
  }

  /// Places the packet's next slot, and the extra infos after the first one.
  private func put(offset: Int, byteCount: Int, _ writer: inout Writer, _ transmission: NetTransmission) {
    writer.left -= 1
    freeIDTop -= 1
    let id = freeIDs[freeIDTop]
    var page = Self.noPage
    var reference = GrantReference(rawValue: 0)
    if writer.takesPages {
      freePageTop -= 1
      page = freePages[freePageTop]
      reference = dataPages.references[Int(page)]
    }
    entries[Int(id)] = Entry(isInFlight: true, page: page, packet: writer.packet)
    var flags: NetTxFlags = writer.isFirst ? transmission.flags : []
    if writer.left > 0 { flags.insert(.moreData) }
    let extraCount = writer.isFirst ? transmission.extraCount : 0
    if extraCount > 0 { flags.insert(.extraInfo) }
    ring.slots.place(
      NetTxRequest(
        reference: reference, offset: UInt16(offset), flags: flags, id: id,
        size: UInt16(writer.isFirst ? writer.total : byteCount)
      ).encode())
    for position in 0..<extraCount {
      guard var extra = transmission.extra(at: position) else { continue }
      extra.hasMore = position < extraCount - 1
      ring.slots.place(extra.encode())
      extrasInFlight += 1
    }
    slotCount += UInt64(1 + extraCount)
    writer.isFirst = false
  }

  /// Lets the backend see what was placed; true if it wants an event for that.
  func push() -> Bool { ring.slots.push() }

  // MARK: Answers

  /// Takes responses until a packet is answered in full; nil when there are none left. A response that breaks
  /// the rules disables the ring.
  public func nextCompletion() throws(NetFrontendError) -> NetTransmitCompletion? {
    while ring.slots.unconsumed > 0 ? true : try ring.hasResponses() {
      var slot = SlotCopy()
      guard ring.slots.takeResponse(into: &slot, byteCount: NetTxResponse.byteCount) else { return nil }
      if let completion = try accept(NetTxResponse(slot)) { return completion }
    }
    return nil
  }

  /// Takes all responses there are; how many packets they ended.
  @discardableResult
  public func reap() throws(NetFrontendError) -> Int {
    var count = 0
    while try nextCompletion() != nil { count += 1 }
    return count
  }

  private func accept(_ response: NetTxResponse) throws(NetFrontendError) -> NetTransmitCompletion? {
    if response.status == .null {
      if extrasInFlight > 0 {
        extrasInFlight -= 1
        return nil
      }
      return try acceptRaw(response, otherwise: .unexpectedNull(response))
    }
    let id = Int(response.id)
    guard id < entries.count else {
      return try acceptRaw(response, otherwise: .transmitIDOutOfRange(response))
    }
    guard entries[id].isInFlight else {
      return try acceptRaw(response, otherwise: .transmitIDNotInUse(response))
    }
    guard response.status == .okay || response.status == .error || response.status == .dropped else {
      throw ring.disable(.unknownStatus(response))
    }
    let entry = entries[id]
    entries[id].isInFlight = false
    freeIDs[freeIDTop] = response.id
    freeIDTop += 1
    if entry.page != Self.noPage {
      freePages[freePageTop] = entry.page
      freePageTop += 1
    }
    let index = Int(entry.packet)
    if response.status != .okay { packets[index].status = response.status }
    packets[index].left -= 1
    guard packets[index].left == 0 else { return nil }
    freePackets[freePacketTop] = entry.packet
    freePacketTop += 1
    let packet = packets[index]
    if packet.status == .okay { packetCount += 1 } else { failedPacketCount += 1 }
    return NetTransmitCompletion(tag: packet.tag, status: packet.status, slotCount: Int(packet.slotCount))
  }

  private func acceptRaw(
    _ response: NetTxResponse, otherwise violation: NetViolation
  ) throws(NetFrontendError) -> NetTransmitCompletion {
    guard rawInFlight > 0 else { throw ring.disable(violation) }
    rawInFlight -= 1
    return NetTransmitCompletion(tag: nil, status: response.status, slotCount: 1)
  }

  /// True when `count` responses can be taken; otherwise so many will bring an event. As Linux asks, 1.
  func requestEvent(afterResponses count: Int = 1) throws(NetFrontendError) -> Bool {
    try ring.requestEvent(afterResponses: count)
  }
}
