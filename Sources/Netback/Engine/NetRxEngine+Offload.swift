import RingKit

/// What is done here to packets that their frontend does not take as they are.
extension NetRxEngine where Host: ~Copyable {
  /// Completes a packet's checksum and sends it.
  mutating func complete(_ packet: NetPacket, _ frame: PrivateBytes, host: inout Host) -> RxDelivery {
    let tellsHash = configuration.tellsHashes && packet.offload.hash != nil
    do throws(RxDropReason) {
      let needed = try configuration.slotsNeeded(byteCount: packet.byteCount, extraCount: tellsHash ? 1 : 0)
      // First: a packet that waits comes again as it is, and would be summed twice.
      guard try isRoom(for: needed) else { return .noRoom(slotsNeeded: needed, nextSegment: 0) }
    } catch {
      return lose(packet, error, host: &host)
    }
    var offload = packet.offload
    guard let flags = completed(&offload, frame) else { return lose(packet, .offload, host: &host) }
    let delivery = send(
      RxFrame(buffer: packet.buffer, bytes: frame.segment, hash: packet.offload.hash), flags: flags,
      segmentation: nil, host: &host)
    guard case .dropped(let reason) = delivery else { return delivery }
    return lose(packet, reason, host: &host)
  }

  /// Completes a checksum; the flags of the frame then, or nil if even so it cannot be sent.
  private mutating func completed(_ offload: inout PacketOffload, _ frame: PrivateBytes) -> NetRxFlags? {
    guard SoftwareChecksum.complete(frame, &offload) else { return nil }
    counters.checksums += 1
    let action = ReceiveOffload.action(for: offload, frame: frame, accepted: configuration.accepted)
    guard case .send(let flags, segmentation: nil) = action else { return nil }
    return flags
  }

  /// Cuts a packet into segments from `first` on and sends each as a packet, as many as there are slots for.
  mutating func cut(
    _ packet: NetPacket, _ frame: PrivateBytes, from first: Int, host: inout Host
  ) -> RxDelivery {
    let segmenter = Segmenter(frame: frame, offload: packet.offload)
    let count = segmenter.segmentCount
    guard count > 0, first >= 0, first < count else { return lose(packet, .offload, host: &host) }
    let hash = configuration.tellsHashes ? packet.offload.hash : nil
    for index in first..<count {
      let byteCount = segmenter.byteCount(of: index)
      do throws(RxDropReason) {
        let needed = try configuration.slotsNeeded(byteCount: byteCount, extraCount: hash == nil ? 0 : 1)
        guard try isRoom(for: needed) else { return .noRoom(slotsNeeded: needed, nextSegment: index) }
      } catch {
        return lose(packet, error, host: &host)
      }
      guard let buffer = host.allocateBuffer(byteCount: byteCount) else {
        return .noMemory(nextSegment: index)
      }
      let piece = host.bytes(of: buffer).slice(from: 0, count: byteCount)
      let written = segmenter.write(index, to: piece)
      guard let flags = flags(of: piece, written.offload),
        case .taken = send(
          RxFrame(buffer: buffer, bytes: piece.segment, hash: hash), flags: flags, segmentation: nil,
          host: &host)
      else {
        host.releaseBuffer(buffer)
        return lose(packet, .offload, host: &host)
      }
      counters.segments += 1
    }
    host.releaseBuffer(packet.buffer)
    return .taken
  }

  /// The flags of a segment, whose checksum is completed if its frontend does not take it blank.
  private mutating func flags(of piece: PrivateBytes, _ offload: PacketOffload) -> NetRxFlags? {
    guard piece.count >= NetLimits.ethernetHeaderByteCount else { return nil }
    switch ReceiveOffload.action(for: offload, frame: piece, accepted: configuration.accepted) {
    case .send(let flags, segmentation: nil): return flags
    case .completeChecksum:
      var offload = offload
      return completed(&offload, piece)
    case .send, .segment: return nil
    }
  }
}
