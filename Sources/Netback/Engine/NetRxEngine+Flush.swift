import RingKit

/// How packets become visible, and how the engine waits for slots.
extension NetRxEngine where Host: ~Copyable {
  /// Does the copies of the packets taken, gives their buffers back, and lets the frontend see their slots.
  public mutating func flush(host: inout Host) -> NetTurn {
    if packetCount > 0 { answer(host: &host) }
    if let failure { return .broken(.ring(failure)) }
    return .idle
  }

  private mutating func answer(host: inout Host) {
    // A broken ring is never touched again, and nobody learns what would be copied.
    if failure == nil && copies.count > 0 {
      host.copy(&copies)
      counters.grantCopies += UInt64(copies.count)
    }
    var slot = 0
    for position in 0..<packetCount {
      let packet = packets[position]
      let end = slot + packet.slotCount
      let isWhole = answer(slot..<end)
      slot = end
      if let buffer = packet.buffer { host.releaseBuffer(buffer) }
      if failure != nil {
        counters.drops[.brokenRing] += 1
      } else if isWhole {
        counters.packets += 1
        counters.bytes += UInt64(packet.byteCount)
      } else {
        counters.drops[.copyFailed] += 1
      }
    }
    counters.slots += UInt64(slotCount)
    slotCount = 0
    packetCount = 0
    copies.removeAll()
    // Last: the frontend may post the slots again at once, and must find everything free.
    if ring.publish() {
      counters.notifications += 1
      host.notifyReceive()
    }
  }

  /// Writes the responses of one packet; false if a copy failed.
  private mutating func answer(_ range: Range<Int>) -> Bool {
    var isWhole = true
    var response = SlotCopy()
    for index in range {
      response.setUInt64(slots[index].word, at: 0)
      let copy = Int(slots[index].copy)
      if failure == nil && (copy < -1 || copy >= 0 && copies.status(at: copy) != 0) {
        // The rest of the packet follows: the frontend takes all of its slots, and drops it.
        var failed = NetRxResponse(response)
        failed.status = NetStatus.error.rawValue
        response = failed.encode()
        counters.copyErrors += 1
        isWhole = false
      }
      ring.respond(response, byteCount: NetRxResponse.byteCount)
    }
    return isWhole
  }

  // MARK: Waiting

  /// Asks for an event when `count` slots are posted, not for those before it, after a flush: what is not
  /// flushed keeps the frontend from posting. ``NetTurn/more`` if as many are there: none may come then.
  ///
  /// A count that the ring cannot hold waits for all of the ring.
  public mutating func arm(forSlots count: Int, host: inout Host) -> NetTurn {
    if case .broken(let fault) = flush(host: &host) { return .broken(fault) }
    do throws(RingError) {
      return try ring.finalCheck(forRequests: min(max(count, 1), ring.slotCount)) ? .more : .idle
    } catch {
      failure = error
      return .broken(.ring(error))
    }
  }

  /// Whether the packet for which there was no room last would have it now, for a thread that polls. What
  /// broke the ring counts, so that a turn reports it.
  public mutating func hasWork() -> Bool {
    guard failure == nil, !isClosing, awaitedSlotCount > 0 else { return false }
    return postedSlotCount() >= awaitedSlotCount || failure != nil
  }
}
