import RingKit

/// From packets to frames: memory, copies, what is to be done to the headers, and the way to the link.
extension NetTxEngine where Host: ~Copyable {
  /// Puts a packet's copies into the batch, or keeps the packet waiting: then says for what.
  mutating func begin(_ packet: NetTxPacket, host: inout Host) -> TakingEnd? {
    var packet = packet
    if !packet.isCharged {
      guard host.mayTake(byteCount: Int(packet.byteCount)) else {
        counters.creditWaits += 1
        waiting = packet
        return .wantsCredit
      }
      packet.isCharged = true
    }
    let firstByteCount = Int(slots[Int(packet.firstSlot & slotMask)].byteCount)
    packet.start = Self.start(firstByteCount: firstByteCount)
    guard let buffer = host.allocateBuffer(byteCount: packet.start + Int(packet.byteCount)) else {
      counters.bufferWaits += 1
      waiting = packet
      return .wantsBuffer
    }
    packet.buffer = buffer
    appendCopies(of: packet, to: buffer.segment, host: &host)
    packets[packetCount] = packet
    packetCount += 1
    return nil
  }

  /// Where a frame begins in its buffer: the first slot's part ends with a page, so that whole pages which
  /// follow it go into whole pages, and each takes one copy of the hypervisor's and not two (net.md 3.6). A
  /// packet of one slot lies in one page with its headroom, if it fits.
  static func start(firstByteCount: Int) -> Int {
    let start = (pageByteCount - firstByteCount % pageByteCount) % pageByteCount
    return start < NetPacket.headroomByteCount ? start + pageByteCount : start
  }

  /// Adds a copy for each slot with data, and moves what lies in staged pages at once.
  mutating func appendCopies(of packet: NetTxPacket, to buffer: IOSegment, host: inout Host) {
    var offset = UInt(packet.start)
    var slot = packet.firstSlot
    let end = slot &+ UInt32(packet.slotCount)
    while slot != end {
      let index = Int(slot & slotMask)
      let byteCount = UInt(slots[index].byteCount)
      // Extra infos have no data, and zero bytes are never copied (XSA-448).
      if byteCount != 0 {
        let local = buffer.slice(offset: offset, count: byteCount)
        if let page = host.stagedPage(slots[index].reference, writable: false) {
          counters.stagedCopies += 1
          host.copyStaged(
            from: page.slice(offset: UInt(slots[index].pageOffset), count: byteCount), to: local)
        } else {
          let copy = copies.append(
            GrantCopyBatch.Segment(
              toGuest: false, domain: domain, reference: slots[index].reference,
              pageOffset: Int(slots[index].pageOffset), local: local))
          slots[index].copy = UInt16(copy + 1)
        }
        offset += byteCount
      }
      slot &+= 1
    }
  }

  /// Does the copies and hands on what came over whole. Returns how many packets did not, and gave their
  /// buffers back.
  mutating func finishPackets(host: inout Host) -> Int {
    if copies.count > 0 {
      counters.grantCopies += UInt64(copies.count)
      host.copy(&copies)
    }
    var droppedCount = 0
    for index in 0..<packetCount {
      let packet = packets[index]
      guard let buffer = packet.buffer else { continue }
      guard isCopied(packet) else {
        counters.count(.failedCopy)
        droppedCount += 1
        host.releaseBuffer(buffer)
        continue
      }
      let frame = host.bytes(of: buffer).slice(from: packet.start, count: Int(packet.byteCount))
      do throws(PacketRefusal) {
        let offload = try TransmitOffload.prepare(
          frame, flags: packet.flags, segmentation: packet.segmentation, hash: packet.hash)
        counters.packets += 1
        counters.bytes += UInt64(packet.byteCount)
        if packet.segmentation != nil { counters.segmentedPackets += 1 }
        host.forward(
          NetPacket(
            buffer: buffer, start: packet.start, byteCount: Int(packet.byteCount), offload: offload))
      } catch {
        drop(.refused(error), from: packet.firstSlot, to: packet.firstSlot &+ UInt32(packet.slotCount))
        droppedCount += 1
        host.releaseBuffer(buffer)
      }
    }
    return droppedCount
  }

  /// Whether all copies of a packet were done; slots of which it was not are answered ERROR, the others OKAY,
  /// as Linux does.
  mutating func isCopied(_ packet: NetTxPacket) -> Bool {
    var isCopied = true
    var slot = packet.firstSlot
    let end = slot &+ UInt32(packet.slotCount)
    while slot != end {
      let index = Int(slot & slotMask)
      let copy = Int(slots[index].copy)
      if copy != 0 && copies.status(at: copy - 1) != 0 {
        slots[index].status = .error
        isCopied = false
      }
      slot &+= 1
    }
    return isCopied
  }
}
