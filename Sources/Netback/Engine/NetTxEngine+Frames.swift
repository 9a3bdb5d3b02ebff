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
    let leading = host.leadingByteCount(ofPacket: Int(packet.byteCount))
    appendCopies(of: packet, 0..<leading, to: buffer.segment, host: &host)
    packet.progress = leading < Int(packet.byteCount) ? .partial : .copied
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

  /// Adds a copy for each slot with some of a packet's bytes `range`, and moves what lies in staged pages at once.
  mutating func appendCopies(
    of packet: NetTxPacket, _ range: Range<Int>, to buffer: IOSegment, host: inout Host
  ) {
    var slotStart = 0
    var slot = packet.firstSlot
    let end = slot &+ UInt32(packet.slotCount)
    while slot != end {
      let index = Int(slot & slotMask)
      // Extra infos have no data, and zero bytes are never copied (XSA-448).
      let first = max(range.lowerBound, slotStart)
      let last = min(range.upperBound, slotStart + Int(slots[index].byteCount))
      slots[index].copy = 0
      if first < last {
        let local = buffer.slice(offset: UInt(packet.start + first), count: UInt(last - first))
        let pageOffset = Int(slots[index].pageOffset) + first - slotStart
        if let page = host.stagedPage(slots[index].reference, writable: false) {
          counters.stagedCopies += 1
          host.copyStaged(from: page.slice(offset: UInt(pageOffset), count: local.length), to: local)
        } else {
          let copy = copies.append(
            GrantCopyBatch.Segment(
              toGuest: false, domain: domain, reference: slots[index].reference, pageOffset: pageOffset,
              local: local))
          slots[index].copy = UInt16(copy + 1)
        }
      }
      slotStart += Int(slots[index].byteCount)
      slot &+= 1
    }
  }

  /// Does the copies and hands on what came over whole. Returns how many packets gave their buffers back.
  mutating func finishPackets(host: inout Host) -> Int {
    copyIn(host: &host)
    var releasedCount = 0
    // A packet that has to come whole holds up those behind it, which go by private memory too: packets keep
    // their order.
    var isDirect = true
    for index in 0..<packetCount {
      guard isCopied(packets[index]) else {
        release(index, as: .failedCopy, host: &host)
        releasedCount += 1
        continue
      }
      guard packets[index].progress == .partial else {
        if isDirect && !forward(index, host: &host) { releasedCount += 1 }
        continue
      }
      guard isDirect else { continue }
      do throws(PacketRefusal) {
        isDirect = try sendDirectly(index, host: &host)
      } catch {
        release(index, as: .refused(error), host: &host)
        releasedCount += 1
      }
    }
    releasedCount += finishDirect(host: &host)
    if !isDirect { releasedCount += finishPartial(host: &host) }
    return releasedCount
  }

  private mutating func copyIn(host: inout Host) {
    guard copies.count > 0 else { return }
    counters.grantCopies += UInt64(copies.count)
    host.copy(&copies)
  }

  /// Has the rest of packets copied that have to come whole, and hands on what was held up.
  private mutating func finishPartial(host: inout Host) -> Int {
    copies.removeAll()
    for index in 0..<packetCount where packets[index].progress == .partial {
      guard let buffer = packets[index].buffer else { continue }
      let leading = host.leadingByteCount(ofPacket: Int(packets[index].byteCount))
      appendCopies(
        of: packets[index], leading..<Int(packets[index].byteCount), to: buffer.segment, host: &host)
    }
    copyIn(host: &host)
    var releasedCount = 0
    for index in 0..<packetCount {
      switch packets[index].progress {
      case .dropped, .direct, .forwarded: continue
      case .partial:
        guard isCopied(packets[index]) else {
          release(index, as: .failedCopy, host: &host)
          releasedCount += 1
          continue
        }
      case .copied: break
      }
      if !forward(index, host: &host) { releasedCount += 1 }
    }
    return releasedCount
  }

  /// Completes a packet that is in private memory, and hands it on; false if it was refused.
  private mutating func forward(_ index: Int, host: inout Host) -> Bool {
    let packet = packets[index]
    guard let buffer = packet.buffer else { return false }
    let frame = host.bytes(of: buffer).slice(from: packet.start, count: Int(packet.byteCount))
    do throws(PacketRefusal) {
      let offload = try TransmitOffload.prepare(
        frame, flags: packet.flags, segmentation: packet.segmentation, hash: packet.hash)
      count(packet)
      packets[index].progress = .forwarded
      host.forward(
        NetPacket(buffer: buffer, start: packet.start, byteCount: Int(packet.byteCount), offload: offload))
      return true
    } catch {
      release(index, as: .refused(error), host: &host)
      return false
    }
  }

  /// Counts a packet that is handed on.
  mutating func count(_ packet: NetTxPacket) {
    counters.packets += 1
    counters.bytes += UInt64(packet.byteCount)
    if packet.segmentation != nil { counters.segmentedPackets += 1 }
  }

  /// Gives up a packet of this turn's. The slots of which a copy failed have their answers; those of a packet
  /// that is refused are all in error.
  private mutating func release(_ index: Int, as error: NetTxError, host: inout Host) {
    let packet = packets[index]
    if case .refused = error {
      drop(error, from: packet.firstSlot, to: packet.firstSlot &+ UInt32(packet.slotCount))
    } else {
      counters.count(error)
    }
    packets[index].progress = .dropped
    if let buffer = packet.buffer { host.releaseBuffer(buffer) }
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
