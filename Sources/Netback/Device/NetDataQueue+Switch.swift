import RingKit

/// What a queue gets from other ports of its switch, in turns of theirs, on the thread that all of them are on.
extension NetDataQueue {
  /// Receives a frame that another port's guest has sent, and its buffer with it, which counts as this queue's
  /// from here on.
  func receive(_ packet: NetPacket, of sender: NetBufferAccount) {
    let frame = host.frame(of: packet)
    guard admits(frame) else { return host.release(packet.buffer, of: sender) }
    guard host.takeOver(packet.buffer, of: sender) else {
      receive.engine.counters.drops[.backlogFull] += 1
      return host.release(packet.buffer, of: sender)
    }
    arrived(packet)
  }

  /// Receives a copy of a frame that goes to several ports.
  func receiveCopy(of frame: PrivateBytes, offload: PacketOffload) {
    guard admits(frame) else { return }
    let start = NetPacket.headroomByteCount
    guard let buffer = host.allocateBuffer(byteCount: start + frame.count) else {
      receive.engine.counters.drops[.backlogFull] += 1
      return
    }
    host.bytes(of: buffer).copy(frame.count, at: start, from: frame, at: 0)
    arrived(NetPacket(buffer: buffer, start: start, byteCount: frame.count, offload: offload))
  }

  private func arrived(_ packet: NetPacket) {
    host.countReceived(packet.byteCount)
    deliver(packet)
    host.wake()
  }

  /// Takes slots for a packet that comes from the pages of another port's guest; nil if it has to come by
  /// ``receive(_:of:)``.
  func reserve(_ packet: NetDirectPacket) -> RxReservation? {
    // A frontend with a control ring may want packets on other queues, and in pages that are mapped.
    guard !isBroken, group == nil, host.isLinkUp, host.captures.isEmpty, let slots = receive.reserve(packet)
    else { return nil }
    host.countReceived(packet.byteCount)
    host.wake()
    return slots
  }

  /// Whether a frame is to be received, by what is known without trying. Counts it if not.
  private func admits(_ frame: PrivateBytes) -> Bool {
    guard !isBroken else { return lose(.brokenRing) }
    guard !receive.isStalled else { return lose(.stalled) }
    guard host.admits(EthernetAddress(destinationOf: frame)) else { return false }
    // Receivers that take nothing leave each other, and all others, some of the thread's memory.
    guard receive.backlog.byteCount <= host.loop.pool.freeByteCount / 4 else { return lose(.backlogFull) }
    return true
  }

  private func lose(_ reason: RxDropReason) -> Bool {
    receive.engine.counters.drops[reason] += 1
    return false
  }
}

extension EthernetAddress {
  /// The first address of a frame, which has 14 bytes at least.
  init(destinationOf frame: PrivateBytes) { self.init(rawValue: frame.word(at: 0).byteSwapped >> 16) }

  /// The second address of a frame, which has 14 bytes at least.
  init(sourceOf frame: PrivateBytes) { self.init(rawValue: frame.word(at: 6).byteSwapped >> 16) }
}
