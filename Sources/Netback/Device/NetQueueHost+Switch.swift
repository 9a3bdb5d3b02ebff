import RingKit

/// What a guest sends into a switch.
extension NetQueueHost {
  /// Sends a packet to where its destination is.
  mutating func send(_ packet: NetPacket, through port: SwitchPort) {
    let frame = frame(of: packet)
    switch route(frame, port) {
    case .drop:
      counters.droppedUnwanted += 1
      releaseBuffer(packet.buffer)
    case .port(let number):
      guard let place = port.fabric.place(ofPort: number, forQueue: index),
        let receiver = port.fabric[place]
      else {
        counters.droppedDown += 1
        return releaseBuffer(packet.buffer)
      }
      countSent(packet.byteCount)
      receiver.receive(packet, of: account)
    case .flood:
      countSent(packet.byteCount)
      flood(frame, packet.offload, port)
      releaseBuffer(packet.buffer)
    }
  }

  private mutating func flood(_ frame: PrivateBytes, _ offload: PacketOffload, _ port: SwitchPort) {
    for number in 0..<SwitchTable.portLimit where number != port.number {
      guard let place = port.fabric.place(ofPort: number, forQueue: index),
        let receiver = port.fabric[place]
      else { continue }
      guard port.fabric.mayFlood(port.number, inTurn: loop.turnCount) else {
        counters.droppedFlood += 1
        return
      }
      receiver.receiveCopy(of: frame, offload: offload)
    }
  }

  private func route(_ frame: PrivateBytes, _ port: SwitchPort) -> SwitchRoute {
    port.fabric.table.route(
      destination: EthernetAddress(destinationOf: frame), source: EthernetAddress(sourceOf: frame),
      from: port.number, atNanoseconds: loop.now)
  }

  private mutating func countSent(_ byteCount: Int) {
    counters.sentPackets += 1
    counters.sentBytes += UInt64(byteCount)
  }

  // MARK: Past private memory

  /// The first bytes of a packet for a switch that is longer than others.
  public func leadingByteCount(ofPacket byteCount: Int) -> Int {
    // Who watches sees all of a frame.
    guard switchPort != nil, !hasControl, captures.isEmpty, byteCount > SwitchFabric.privateByteCount
    else { return byteCount }
    return SwitchFabric.leadingByteCount
  }

  /// Takes slots of the one queue that a packet is for.
  public mutating func reserve(_ packet: NetDirectPacket) -> NetDirectPath? {
    guard isLinkUp, let switchPort,
      case .port(let number) = route(packet.leading, switchPort),
      let place = switchPort.fabric.place(ofPort: number, forQueue: index),
      let slots = switchPort.fabric[place]?.reserve(packet)
    else { return nil }
    countSent(packet.byteCount)
    return NetDirectPath(receiver: place.rawValue, slots: slots)
  }

  /// A page of the receiver's.
  public func place(_ index: Int, of path: NetDirectPath) -> NetDirectPlace {
    // Asked right after reserve(_:) gave the path; queues leave a switch between turns, so no guest gets here.
    guard let receiver = switchPort?.fabric[SwitchPlace(rawValue: path.receiver)] else {
      preconditionFailure("a queue that went in another one's turn")
    }
    return receiver.receive.engine.place(index, of: path.slots)
  }

  /// A page of the receiver's that could not be written.
  public mutating func fail(_ index: Int, of path: NetDirectPath) {
    switchPort?.fabric[SwitchPlace(rawValue: path.receiver)]?.receive.engine.fail(index, of: path.slots)
  }

  // MARK: What others send

  /// Whether the guest is to have a frame for this destination; counts it if not.
  mutating func admits(_ destination: EthernetAddress) -> Bool {
    guard isLinkUp else {
      counters.droppedDown += 1
      return false
    }
    guard multicast.accepts(destination) else {
      counters.droppedUnwanted += 1
      return false
    }
    return true
  }

  /// Counts a frame that came from the switch.
  mutating func countReceived(_ byteCount: Int) {
    counters.receivedPackets += 1
    counters.receivedBytes += UInt64(byteCount)
  }

  /// Has a buffer count as this queue's; false when it may hold no more.
  func takeOver(_ buffer: IOBuffer, of giver: NetBufferAccount) -> Bool {
    loop.pool.recharge(buffer, from: &giver.share, to: &account.share)
  }

  /// Gives back a buffer that counts as another queue's.
  func release(_ buffer: IOBuffer, of owner: NetBufferAccount) {
    loop.pool.release(buffer, share: &owner.share)
    loop.buffersReleased()
  }
}
