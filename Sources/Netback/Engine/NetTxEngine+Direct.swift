import RingKit

/// Packets that go from the pages of one guest to those of another, without coming into private memory but for
/// their first bytes (grant_table.h, GNTTABOP_copy with both flags).
///
/// What the receiver sees of the headers are the bytes that were checked here; the sender may change its own
/// pages at any time, and of what is copied from there nothing was decided.
extension NetTxEngine where Host: ~Copyable {
  /// Puts a packet, of which the first bytes are copied, on its way. False if it has to come whole.
  mutating func sendDirectly(_ index: Int, host: inout Host) throws(PacketRefusal) -> Bool {
    let packet = packets[index]
    guard let buffer = packet.buffer else { return false }
    let byteCount = Int(packet.byteCount)
    let leadingCount = host.leadingByteCount(ofPacket: byteCount)
    let leading = host.bytes(of: buffer).slice(from: packet.start, count: leadingCount)
    let headers = PacketHeaders(leading, frameByteCount: byteCount)
    // Padding is to be zeroed, which only private memory can be.
    guard !headers.isCutOff, headers.network == .none || headers.packetEnd == byteCount else { return false }
    let offload = try TransmitOffload.prepare(
      leading, headers: headers, flags: packet.flags, segmentation: packet.segmentation, hash: packet.hash)
    if direct == nil { direct = NetDirectBatch() }
    // Each border of a slot, on either side, begins a copy, and the end of the first bytes does.
    guard direct?.room ?? 0 >= Int(packet.slotCount) + NetLimits.slotCount + 1,
      let path = host.reserve(
        NetDirectPacket(leading: leading, headers: headers, byteCount: byteCount, offload: offload))
    else { return false }
    packets[index].path = path
    packets[index].progress = .direct
    appendDirectCopies(index, path, leadingCount: leadingCount, host: &host)
    return true
  }

  /// Adds the copies of a packet: its first bytes out of private memory, the others out of the sender's slots,
  /// each within one place of the path.
  private mutating func appendDirectCopies(
    _ index: Int, _ path: NetDirectPath, leadingCount: Int, host: inout Host
  ) {
    let packet = packets[index]
    guard let buffer = packet.buffer else { return }
    let byteCount = Int(packet.byteCount)
    var (slot, slotStart) = (packet.firstSlot, 0)
    var (placeIndex, placeStart) = (0, 0)
    var place = host.place(0, of: path)
    var offset = 0
    while offset < byteCount {
      while offset >= slotStart + Int(slots[Int(slot & slotMask)].byteCount) {
        slotStart += Int(slots[Int(slot & slotMask)].byteCount)
        slot &+= 1
      }
      if offset == placeStart + place.byteCount {
        placeStart += place.byteCount
        placeIndex += 1
        place = host.place(placeIndex, of: path)
      }
      var destination = place.destination
      destination.pageOffset += offset - placeStart
      let source = Int(slot & slotMask)
      var end = placeStart + place.byteCount
      if offset < leadingCount {
        end = min(end, leadingCount)
        let local = buffer.segment.slice(offset: UInt(packet.start + offset), count: UInt(end - offset))
        let part = part(index, nil, placeIndex, offset..<end)
        direct?.append(part, from: local, to: destination)
      } else {
        end = min(end, slotStart + Int(slots[source].byteCount))
        let part = part(index, UInt16(source), placeIndex, offset..<end)
        let origin = GrantCopyBatch.GrantedBytes(
          domain: domain, reference: slots[source].reference,
          pageOffset: Int(slots[source].pageOffset) + offset - slotStart)
        direct?.append(
          part,
          GrantCopyBatch.GuestToGuest(source: origin, destination: destination, byteCount: end - offset))
      }
      offset = end
    }
  }

  private func part(_ packet: Int, _ slot: UInt16?, _ place: Int, _ range: Range<Int>) -> NetDirectCopy {
    NetDirectCopy(
      packet: UInt16(packet), slot: slot, place: UInt16(place), offset: UInt16(range.lowerBound),
      byteCount: UInt16(range.count))
  }

  /// Does the copies of the packets on their way; returns how many packets that were.
  mutating func finishDirect(host: inout Host) -> Int {
    guard direct?.copies.count ?? 0 > 0, var batch = direct.take() else { return 0 }
    counters.grantCopies += UInt64(batch.copies.count)
    host.copy(&batch.copies)
    var hasFailed = false
    for index in 0..<batch.copies.count where batch.copies.status(at: index) != 0 { hasFailed = true }
    if hasFailed { copyInSteps(&batch, host: &host) }
    batch.removeAll()
    direct = consume batch
    var count = 0
    for index in 0..<packetCount where packets[index].progress == .direct {
      if hasFailed && hasError(packets[index]) {
        counters.count(.failedCopy)
      } else {
        self.count(packets[index])
        counters.directPackets += 1
      }
      if let buffer = packets[index].buffer { host.releaseBuffer(buffer) }
      count += 1
    }
    return count
  }

  /// Does each copy that failed again in two steps, by way of private memory: the one that fails tells whose
  /// grant is at fault. The sender's slot is answered ERROR then, or the receiver's.
  private mutating func copyInSteps(_ batch: inout NetDirectBatch, host: inout Host) {
    var next = 0
    while next < batch.copies.count {
      next = copyInSteps(&batch, from: next, host: &host)
    }
  }

  /// As many of them as the batch for copies from the guest holds; returns where to go on.
  private mutating func copyInSteps(
    _ batch: inout NetDirectBatch, from first: Int, host: inout Host
  ) -> Int {
    copies.removeAll()
    var end = first
    while end < batch.copies.count, !copies.isFull {
      let part = batch[end]
      if batch.copies.status(at: end) != 0, let slot = part.slot, let local = local(part) {
        let place = batch.copies.guestToGuest(at: end)
        copies.append(
          GrantCopyBatch.Segment(
            toGuest: false, domain: domain, reference: slots[Int(slot)].reference,
            pageOffset: place?.source.pageOffset ?? 0, local: local))
      }
      end += 1
    }
    if copies.count > 0 { host.copy(&copies) }
    batch.retries.removeAll()
    batch.retried.removeAll(keepingCapacity: true)
    var copy = 0
    for index in first..<end where batch.copies.status(at: index) != 0 {
      let part = batch[index]
      guard let slot = part.slot, let local = local(part), let whole = batch.copies.guestToGuest(at: index)
      else {
        fail(part, host: &host)
        continue
      }
      defer { copy += 1 }
      guard copies.status(at: copy) == 0 else {
        slots[Int(slot)].status = .error
        fail(part, host: &host)
        continue
      }
      let to = whole.destination
      batch.retries.append(
        GrantCopyBatch.Segment(
          toGuest: true, domain: to.domain, reference: to.reference, pageOffset: to.pageOffset, local: local))
      batch.retried.append(index)
    }
    guard batch.retries.count > 0 else { return end }
    host.copy(&batch.retries)
    for copy in 0..<batch.retries.count where batch.retries.status(at: copy) != 0 {
      fail(batch[batch.retried[copy]], host: &host)
    }
    return end
  }

  private func hasError(_ packet: NetTxPacket) -> Bool {
    var slot = packet.firstSlot
    let end = slot &+ UInt32(packet.slotCount)
    while slot != end {
      if slots[Int(slot & slotMask)].status == .error { return true }
      slot &+= 1
    }
    return false
  }

  /// The place of a copy's bytes in its packet's buffer.
  private func local(_ part: NetDirectCopy) -> IOSegment? {
    let packet = packets[Int(part.packet)]
    return packet.buffer?.segment.slice(
      offset: UInt(packet.start) + UInt(part.offset), count: UInt(part.byteCount))
  }

  private mutating func fail(_ part: NetDirectCopy, host: inout Host) {
    guard let path = packets[Int(part.packet)].path else { return }
    host.fail(Int(part.place), of: path)
  }
}
