import RingKit

/// From slots to packets (netif.h, "Packet framing"): requests and extra infos are taken, and judged by all
/// that can be known without their data. Which mistakes are fatal follows Linux, since frontends were made
/// to work with it (xenvif_tx_build_gops, xenvif_count_requests).
extension NetTxEngine where Host: ~Copyable {
  /// What the extra infos of a packet tell. Of two with the same type the last one counts, as in Linux.
  struct Extras {
    var segmentation: NetExtraInfo?
    var hash: NetHash?
    var added: EthernetAddress?
    var deleted: EthernetAddress?
  }

  /// Takes the slots of one packet, of which the first one is there. Nil when no data are to be moved for it
  /// and its slots' answers stand: it changed the multicast filter, or is in error.
  mutating func takePacket(host: inout Host) throws(NetFault) -> NetTxPacket? {
    guard ring.take(into: &request) else { return nil }
    let first = NetTxRequest(request)
    var packet = NetTxPacket(firstSlot: takenSlot, request: first)
    note(first)
    if first.flags.contains(.extraInfo) {
      let extras = try takeExtras()
      if let address = extras.added ?? extras.deleted {
        changeMulticast(address, isAdded: extras.added != nil, slot: packet.firstSlot, host: &host)
        return nil
      }
      packet.segmentation = extras.segmentation
      packet.hash = extras.hash
    }
    // The first request tells the size of the whole packet, so its own part is what the others leave.
    var byteCount = Int(first.size)
    var error: NetTxError?
    if first.flags.contains(.moreData) { error = try takeOtherSlots(leaving: &byteCount) }
    if error == nil && byteCount < NetLimits.ethernetHeaderByteCount { error = .tooShort }
    if let error {
      completeSlot = takenSlot
      drop(error, from: packet.firstSlot, to: takenSlot)
      return nil
    }
    try checkPage(offset: first.offset, byteCount: byteCount)
    if let segmentation = packet.segmentation { try check(segmentation) }
    slots[Int(packet.firstSlot & slotMask)].byteCount = UInt16(byteCount)
    packet.slotCount = UInt16(takenSlot &- packet.firstSlot)
    completeSlot = takenSlot
    return packet
  }

  /// Takes the data slots behind the first one. `rest` is what is left of the packet, and on return what the
  /// first slot holds, unless there is an error.
  mutating func takeOtherSlots(leaving rest: inout Int) throws(NetFault) -> NetTxError? {
    var count = 1
    var error: NetTxError?
    var isLast = false
    while !isLast {
      // Waiting for the rest would let a frontend hold half a packet here; it has to publish whole ones.
      guard ring.take(into: &request) else { throw .unfinishedPacket(slots: count) }
      let slot = NetTxRequest(request)
      note(slot)
      count += 1
      guard count <= limits.toleratedSlotCount else { throw .tooManySlots(count) }
      try checkPage(offset: slot.offset, byteCount: Int(slot.size))
      isLast = !slot.flags.contains(.moreData)
      guard error == nil else { continue }
      if count > limits.acceptedSlotCount {
        error = .tooManySlots
      } else if Int(slot.size) > rest {
        error = .overlongSlot
      } else {
        rest -= Int(slot.size)
      }
    }
    return error
  }

  /// Takes the extra infos behind a first request.
  mutating func takeExtras() throws(NetFault) -> Extras {
    var extras = Extras()
    var hasMore = true
    while hasMore {
      guard ring.take(into: &request) else { throw .missingExtraInfo }
      let extra = NetExtraInfo(request)
      guard extra.type != .none, extra.type.rawValue < NetExtraType.limit else {
        throw .extraInfoType(extra.type.rawValue)
      }
      // There is no id to echo; frontends know the slot by its status.
      slots[Int(takenSlot & slotMask)] = NetTxSlot(
        reference: GrantReference(rawValue: 0), pageOffset: 0, byteCount: 0, id: request.uint16(at: 0),
        status: .null)
      takenSlot &+= 1
      switch extra.type {
      case .segmentation: extras.segmentation = extra
      case .multicastAdd: extras.added = extra.address
      case .multicastDelete: extras.deleted = extra.address
      case .hash: extras.hash = extra.hash
      default: break
      }
      hasMore = extra.hasMore
    }
    return extras
  }

  /// Answers a dummy request that changes the multicast filter: what it says of data means nothing (netif.h,
  /// XEN_NETIF_EXTRA_TYPE_MCAST_*).
  mutating func changeMulticast(
    _ address: EthernetAddress, isAdded: Bool, slot: UInt32, host: inout Host
  ) {
    completeSlot = takenSlot
    if host.changeMulticast(address, isAdded: isAdded) {
      counters.multicastChanges += 1
    } else {
      counters.multicastRefusals += 1
      slots[Int(slot & slotMask)].status = .error
    }
  }

  /// Keeps what is needed of a request, OKAY for now.
  mutating func note(_ request: NetTxRequest) {
    slots[Int(takenSlot & slotMask)] = NetTxSlot(
      reference: request.reference, pageOffset: request.offset, byteCount: request.size, id: request.id,
      status: .okay)
    takenSlot &+= 1
  }

  /// Data must lie in the granted page, or the whole batch of copies would be refused (net.md 3.6).
  func checkPage(offset: UInt16, byteCount: Int) throws(NetFault) {
    guard Int(offset) + byteCount <= pageByteCount else {
      throw .crossesPage(offset: Int(offset), byteCount: byteCount)
    }
  }

  /// Segments must have bytes and a known protocol (Linux, xenvif_set_skb_gso).
  func check(_ segmentation: NetExtraInfo) throws(NetFault) {
    guard segmentation.segmentSize != 0 else { throw .noSegmentSize }
    let type = segmentation.segmentationType
    guard type == .tcpIPv4 || type == .tcpIPv6 else { throw .segmentationType(type.rawValue) }
  }

  /// Answers all data slots of a packet ERROR.
  mutating func drop(_ error: NetTxError, from first: UInt32, to end: UInt32) {
    counters.count(error)
    var slot = first
    while slot != end {
      let index = Int(slot & slotMask)
      if slots[index].status != .null { slots[index].status = .error }
      slot &+= 1
    }
  }
}
