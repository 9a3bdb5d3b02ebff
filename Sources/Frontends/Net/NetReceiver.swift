public import Netback
public import RingKit

/// A packet as a backend has put it into a frontend's pages.
@frozen
public struct NetReceivedPacket: Equatable, Sendable, BitwiseCopyable {
  /// Bytes.
  public var byteCount = 0
  /// Flags of its first slot.
  public var flags = NetRxFlags()
  /// Slots with data.
  public var slotCount = 0
  /// The extra info of segmentation.
  public var segmentation: NetExtraInfo?
  /// The hash that the backend tells.
  public var hash: NetHash?
  /// Bytes before the data in each page, as an extra info tells them.
  public var headroom: UInt16?

  /// Nothing yet.
  @inlinable public init() {}
}

/// A queue's receive ring as a frontend has it: pages are posted, and what comes back in their slots is put
/// together to packets and judged as a hardened Linux netfront judges it (xen-netfront.c,
/// xennet_get_responses), and in some points more strictly.
///
/// Responses stand in the very slots of their requests, so that they come in order. Pages are shared once. No
/// step allocates.
public final class NetReceiver {
  private struct Piece: BitwiseCopyable {
    var page: UInt16
    var offset: UInt16
    var byteCount: UInt16
  }

  private static let noPage = UInt16.max
  /// Linux copies packets up to so many bytes out of their first page, which makes room for one slot more
  /// (xen-netfront.c, RX_COPY_THRESHOLD).
  static let copyThreshold = 256

  /// The queue's number.
  public let number: Int
  /// The ring's page: whoever attacks the backend writes here.
  public let ringPages: SharedPages
  /// The data pages.
  public let dataPages: SharedPages

  private var ring: NetFrontendRing
  private let offered: NetOffloads
  private let idMask: UInt16
  private let slotMask: UInt32
  /// Where the next request and the next response stand.
  private var nextRequest: UInt32
  private var nextResponse: UInt32
  private var posted: [UInt16]
  private var freePages: [UInt16]
  private var freePageTop: Int
  /// The packet that the caller has: its pages are posted again after the next one was asked for.
  private var pieces: [Piece]
  private var pieceCount = 0

  /// What ``NetFrontendOptions/headroomByteCount`` asks for; nil while the backend changes it.
  var headroomByteCount: Int?
  /// Whether the backend was told a hash algorithm.
  var expectsHashes = false

  /// Packets taken.
  public private(set) var packetCount: UInt64 = 0
  /// Bytes of those.
  public private(set) var byteCount: UInt64 = 0
  /// Packets that the backend marked as failed, which are passed over.
  public private(set) var failedPacketCount: UInt64 = 0
  /// Slots used, with those of extra infos.
  public private(set) var slotCount: UInt64 = 0

  /// Takes over a page for the ring and those for the data, 1...65535 of them.
  init(number: Int, ringPages: SharedPages, dataPages: SharedPages, options: NetFrontendOptions) {
    self.number = number
    self.ringPages = ringPages
    self.dataPages = dataPages
    offered = options.offloads
    idMask = options.receiveIDMask
    headroomByteCount = options.headroomByteCount
    ring = NetFrontendRing(
      pages: ringPages.pages, slotByteCount: NetRxRequest.byteCount, startingAt: options.firstRingIndex,
      queue: number)
    nextRequest = options.firstRingIndex
    nextResponse = options.firstRingIndex
    let count = ring.slots.slotCount
    slotMask = UInt32(count - 1)
    posted = Array(repeating: Self.noPage, count: count)
    let pageCount = dataPages.pages.pageCount
    precondition(pageCount < Int(Self.noPage) && pageCount == dataPages.references.count)
    freePages = (0..<pageCount).reversed().map(UInt16.init)
    freePageTop = pageCount
    pieces = Array(repeating: Piece(page: 0, offset: 0, byteCount: 0), count: count)
  }

  /// Slots in the ring.
  public var ringSlotCount: Int { ring.slots.slotCount }
  /// Requests pushed whose responses were not taken.
  public var outstanding: Int { ring.slots.outstanding }
  /// Pages that are neither posted nor the caller's.
  public var freePageCount: Int { freePageTop }

  // MARK: Posting

  /// Posts pages until `limit` are posted, or there is none left.
  public func post(upTo limit: Int = .max) {
    while freePageTop > 0, ring.slots.freeSlotCount > 0,
      ring.slots.slotCount - ring.slots.freeSlotCount < limit
    {
      freePageTop -= 1
      let page = freePages[freePageTop]
      let slot = nextRequest & slotMask
      posted[Int(slot)] = page
      ring.slots.place(
        NetRxRequest(id: id(of: slot), reference: dataPages.references[Int(page)]).encode())
      nextRequest &+= 1
    }
  }

  /// Lets the backend see what was posted; true if it wants an event for that.
  func push() -> Bool { ring.slots.push() }

  private func id(of slot: UInt32) -> UInt16 { UInt16(truncatingIfNeeded: slot) ^ idMask }

  private func give(_ page: UInt16) {
    freePages[freePageTop] = page
    freePageTop += 1
  }

  // MARK: Packets

  /// Takes the next packet; nil when there is none. Its bytes stay in place until the next one is asked for.
  /// What breaks the rules disables the ring.
  public func nextPacket() throws(NetFrontendError) -> NetReceivedPacket? {
    release()
    while ring.slots.unconsumed > 0 ? true : try ring.hasResponses() {
      if let packet = try takePacket() { return packet }
      release()
    }
    return nil
  }

  /// Gives the pages of the last packet back, to be posted again.
  public func release() {
    for index in 0..<pieceCount { give(pieces[index].page) }
    pieceCount = 0
  }

  /// Memory of the packet's slot `position`, less than its ``NetReceivedPacket/slotCount``.
  public func segment(_ position: Int) -> IOSegment {
    precondition(position >= 0 && position < pieceCount)
    let piece = pieces[position]
    return dataPages.pages.segment(
      offset: Int(piece.page) * pageByteCount + Int(piece.offset), length: Int(piece.byteCount))
  }

  /// A copy of the packet that was taken last.
  public func bytes() -> [UInt8] {
    var bytes: [UInt8] = []
    for piece in pieces[0..<pieceCount] {
      bytes += dataPages.pages.copyBytes(
        at: Int(piece.page) * pageByteCount + Int(piece.offset), count: Int(piece.byteCount))
    }
    return bytes
  }

  /// Takes the slots of one packet, which all have been published; nil if the backend marked it as failed.
  private func takePacket() throws(NetFrontendError) -> NetReceivedPacket? {
    var packet = NetReceivedPacket()
    var isFailed = false
    var hasMore = true
    while hasMore {
      guard let (response, page) = try takeSlot() else {
        throw ring.disable(.receiveIncomplete(slots: packet.slotCount))
      }
      let isFirst = packet.slotCount == 0
      packet.slotCount += 1
      hasMore = response.flags.contains(.moreData)
      if isFirst {
        packet.flags = response.flags
        if response.flags.contains(.extraInfo) { try takeExtras(&packet) }
      }
      if response.status < 0 {
        isFailed = true
        give(page)
        continue
      }
      var offset = Int(response.offset)
      // Linux's backend leaves the offset at 0 and tells the headroom in the extra info alone.
      if isFirst, offset == 0, let headroom = packet.headroom { offset = Int(headroom) }
      guard offset + Int(response.status) <= pageByteCount else {
        give(page)
        throw ring.disable(.receiveBeyondPage(response))
      }
      if isFirst { try checkHeadroom(packet, offset: UInt16(offset)) }
      pieces[pieceCount] = Piece(page: page, offset: UInt16(offset), byteCount: UInt16(response.status))
      pieceCount += 1
      packet.byteCount += Int(response.status)
    }
    if isFailed {
      failedPacketCount += 1
      return nil
    }
    try check(packet)
    packetCount += 1
    byteCount += UInt64(packet.byteCount)
    return packet
  }

  /// The next published response and the page of its request.
  private func takeSlot() throws(NetFrontendError) -> (NetRxResponse, page: UInt16)? {
    var slot = SlotCopy()
    guard let page = takeSlot(into: &slot) else { return nil }
    let response = NetRxResponse(slot)
    let expected = id(of: (nextResponse &- 1) & slotMask)
    guard response.id == expected else {
      give(page)
      throw ring.disable(.receiveIDMismatch(response, expected: expected))
    }
    return (response, page)
  }

  private func takeSlot(into slot: inout SlotCopy) -> UInt16? {
    guard ring.slots.takeResponse(into: &slot, byteCount: NetRxResponse.byteCount) else { return nil }
    let index = Int(nextResponse & slotMask)
    nextResponse &+= 1
    slotCount += 1
    return posted[index]
  }

  /// Extra infos stand in slots of their own, whose pages go unused.
  private func takeExtras(_ packet: inout NetReceivedPacket) throws(NetFrontendError) {
    while true {
      var slot = SlotCopy()
      guard let page = takeSlot(into: &slot) else { throw ring.disable(.extraMissing) }
      give(page)
      let extra = NetExtraInfo(slot)
      guard extra.type != .none, extra.type.rawValue < NetExtraType.limit else {
        throw ring.disable(.extraType(extra.type.rawValue))
      }
      switch extra.type {
      case .segmentation: packet.segmentation = extra
      case .headroom: packet.headroom = extra.headroom
      case .hash:
        guard expectsHashes, let hash = extra.hash else { throw ring.disable(.unaskedHash(extra.hash)) }
        packet.hash = hash
      default: break
      }
      guard extra.hasMore else { return }
    }
  }

  // MARK: Rules

  private func check(_ packet: NetReceivedPacket) throws(NetFrontendError) {
    let most = NetLimits.slotCount + (pieces[0].byteCount <= Self.copyThreshold ? 1 : 0)
    guard packet.slotCount <= most else { throw ring.disable(.receiveTooManySlots(packet.slotCount)) }
    guard packet.slotCount == 1 || offered.contains(.scatterGather) else {
      throw ring.disable(.receiveUnofferedSlots)
    }
    guard
      packet.byteCount >= NetLimits.ethernetHeaderByteCount, packet.byteCount <= NetLimits.packetByteCount
    else { throw ring.disable(.receiveByteCount(packet.byteCount)) }
    if let extra = packet.segmentation { try checkSegmentation(extra) }
    if packet.flags.contains(.checksumBlank), !offered.isSuperset(of: [.checksumIPv4, .checksumIPv6]) {
      let needed = checksumFamily(packet)
      guard offered.contains(needed) else { throw ring.disable(.unofferedChecksum(packet.flags)) }
    }
  }

  private func checkSegmentation(_ extra: NetExtraInfo) throws(NetFrontendError) {
    guard extra.segmentSize > 0 else { throw ring.disable(.segmentation(extra)) }
    let needed: NetOffloads
    switch extra.segmentationType {
    case .tcpIPv4: needed = .segmentationIPv4
    case .tcpIPv6: needed = .segmentationIPv6
    default: throw ring.disable(.segmentation(extra))
    }
    guard offered.contains(needed) else { throw ring.disable(.unofferedSegmentation(extra)) }
  }

  private func checkHeadroom(_ packet: NetReceivedPacket, offset: UInt16) throws(NetFrontendError) {
    guard let asked = headroomByteCount else { return }
    let told = packet.headroom ?? 0
    guard Int(told) == asked, Int(offset) >= asked else {
      throw ring.disable(.headroom(told: told, asked: asked, offset: offset))
    }
  }

  /// Which offload a blank checksum in this packet needs, by its type after VLAN tags.
  private func checksumFamily(_ packet: NetReceivedPacket) -> NetOffloads {
    let header = pieces[0]
    var offset = 12
    while offset + 2 <= Int(header.byteCount) {
      let type = dataPages.pages.copyBytes(
        at: Int(header.page) * pageByteCount + Int(header.offset) + offset, count: 2)
      switch UInt16(type[0]) << 8 | UInt16(type[1]) {
      case 0x8100, 0x88A8: offset += 4
      case 0x86DD: return .checksumIPv6
      default: return .checksumIPv4
      }
    }
    return .checksumIPv4
  }

  // MARK: Waiting

  /// True when a response can be taken; when there are none, the next one brings an event.
  func requestEvent() throws(NetFrontendError) -> Bool { try ring.requestEvent() }
}
