import RingKit

/// Slots for packets that come from the pages of another guest, whose engine has them copied
/// (``NetTxHost/reserve(_:)``).
extension NetRxEngine where Host: ~Copyable {
  /// Takes slots for a packet, if there are enough and its frontend takes it as it is; their responses are
  /// written by the next flush, which the copies have to come before. Nil if not, and nothing is changed.
  public mutating func reserve(_ packet: NetDirectPacket) -> RxReservation? {
    guard failure == nil, !isClosing, !configuration.tellsHashes || packet.offload.hash == nil else {
      return nil
    }
    guard
      case .send(var flags, let segmentation) = ReceiveOffload.action(
        for: packet.offload, headers: packet.headers, accepted: configuration.accepted)
    else { return nil }
    var extraCount = 0
    if let segmentation {
      guard takes(segmentation) else { return nil }
      flags.formUnion([.checksumBlank, .dataValidated])
      extraCount = 1
    }
    guard let needed = try? configuration.slotsNeeded(byteCount: packet.byteCount, extraCount: extraCount),
      (try? isRoom(for: needed)) == true
    else {
      // Nobody waits: it comes again, and waits then.
      awaitedSlotCount = 0
      return nil
    }
    packets[packetCount] = RxPending(buffer: nil, slotCount: needed, byteCount: packet.byteCount)
    packetCount += 1
    let first = slotCount
    let headroom = configuration.headroom
    let hasExtras = extraCount > 0 || headroom > 0
    if hasExtras { flags.insert(.extraInfo) }
    let capacity = min(packet.byteCount, configuration.slotCapacity)
    var dataSlotCount = 0
    var offset = 0
    while offset < packet.byteCount {
      let count = min(capacity, packet.byteCount - offset)
      offset += count
      let posted = takeSlot()
      let response = NetRxResponse(
        id: posted.id, offset: UInt16(headroom),
        flags: offset < packet.byteCount ? flags.union(.moreData) : flags, status: Int16(count))
      note(RxSlot(word: response.encode().uint64(at: 0), reference: posted.reference))
      counters.grantCopies += 1
      if dataSlotCount == 0, hasExtras { tellExtras(segmentation, nil, count: extraCount) }
      dataSlotCount += 1
      flags = []
    }
    return RxReservation(
      first: first, extraCount: needed - dataSlotCount, dataSlotCount: dataSlotCount,
      byteCount: packet.byteCount, capacity: capacity)
  }

  /// Where the data slot `index` of a reservation wants its bytes.
  public func place(_ index: Int, of reservation: RxReservation) -> NetDirectPlace {
    NetDirectPlace(
      destination: GrantCopyBatch.GrantedBytes(
        domain: domain, reference: slots[slot(index, of: reservation)].reference,
        pageOffset: configuration.headroom),
      byteCount: min(reservation.capacity, reservation.byteCount - index * reservation.capacity))
  }

  /// The bytes of a data slot did not come: it will say so.
  public mutating func fail(_ index: Int, of reservation: RxReservation) {
    slots[slot(index, of: reservation)].copy = -2
  }

  private func slot(_ index: Int, of reservation: RxReservation) -> Int {
    precondition(index >= 0 && index < reservation.dataSlotCount)
    let slot = reservation.first + index + (index > 0 ? reservation.extraCount : 0)
    precondition(slot < slotCount, "a reservation that was flushed")
    return slot
  }
}
