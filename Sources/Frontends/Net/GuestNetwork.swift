import Glibc
import Netback
public import RingKit

/// A guest's network made of an ordinary Linux stack: a TAP in the guest's own network namespace whose frames
/// go through a ``NetFrontend``, both ways, with their offloads. Ping and iperf3 use it as they use eth0.
///
/// One thread runs it. It takes from either side only what the other one has room for.
public final class GuestNetwork {
  /// The interface in the guest.
  public let tap: TapDevice
  /// Where its frames go.
  public let frontend: NetFrontend
  private let pool: BufferPool
  private let outgoing: IOBuffer
  private let incoming: IOBuffer
  /// A frame that waits for slots, by queue: its bytes in a buffer of its own are `outgoing`'s.
  private var waiting: Waiting?

  /// Frames that went nowhere, because they could not be understood or their link was down.
  public private(set) var droppedCount: UInt64 = 0

  private struct Waiting {
    var queue: Int
    var byteCount: Int
    var transmission: NetTransmission
  }

  private var poll = DescriptorPoll()

  /// Turns after which events, xenstore and the end are looked for although there is work.
  private static let turnsBetweenLooks: UInt64 = 64
  /// Frames of one direction and queue in a turn at most.
  private static let batch = 64
  private static let header = VirtioNetHeader.byteCount
  /// Where frames begin in a buffer: on a page, with the header before it.
  private static let start = pageByteCount

  /// Joins a connected frontend and a TAP named `name`, which gets the interface's address and MTU and is set up.
  public init(_ frontend: NetFrontend, tapName name: String) throws {
    self.frontend = frontend
    pool = try BufferPool(byteCount: 1 << 20)
    let size = Self.start + NetLimits.packetByteCount + 64
    guard let outgoing = pool.allocate(byteCount: size), let incoming = pool.allocate(byteCount: size) else {
      throw NetFrontendError.system(SystemError(call: "buffers of a guest's network", errno: 12))
    }
    (self.outgoing, self.incoming) = (outgoing, incoming)
    tap = try TapDevice(creating: name)
    try tap.setQueueCount(frontend.queues.count)
    try tap.setOffloads(TapOffloads(frontend.features.offloads))
    let address = frontend.address.rawValue
    try tap.setAddress((0..<6).map { UInt8(truncatingIfNeeded: address >> UInt64(40 - 8 * $0)) })
    try tap.setMTU(UInt32(min(frontend.mtu, Self.maximumMTU)))
    try tap.setUp(true)
    try tap.setCarrier(frontend.hasCarrier)
  }

  /// What a TAP can have (drivers/net/tun.c: 65535 less the Ethernet header).
  private static var maximumMTU: Int { 65521 }

  /// Moves frames until `descriptor` is readable. Throws when the backend closes or breaks the rules, and when
  /// the TAP was deleted.
  public func run(until descriptor: Int32) throws {
    var turns: UInt64 = 0
    while true {
      turns += 1
      let isBusy = try turn()
      // Work without an end is no reason not to hear of anything else.
      if isBusy, turns % Self.turnsBetweenLooks != 0 { continue }
      if try !isBusy && requestEvents() { continue }
      if try look(at: descriptor, waits: !isBusy) { return }
    }
  }

  /// Takes note of what has happened, and waits for it if nothing has; true if it is the end.
  private func look(at descriptor: Int32, waits: Bool) throws -> Bool {
    let hasRoom = waiting == nil && frontend.queues.allSatisfy { $0.transmitter.hasRoom }
    let taps = hasRoom ? tap.queues.map { ($0.descriptor, false) } : []
    let store = frontend.directory.store.descriptor
    poll.set([(descriptor, false), (frontend.eventDescriptor, false), (store, false)] + taps)
    let ready = try poll.wait(timeoutMilliseconds: waits ? nil : 0)
    if ready.contains(frontend.eventDescriptor) { frontend.takeEvents() }
    if ready.contains(store) {
      try frontend.poll()
      if frontend.hasCarrier != tap.hasCarrier { try tap.setCarrier(frontend.hasCarrier) }
    }
    return ready.contains(descriptor)
  }

  /// Asks for events of what is waited for; true if there is something to do at once. Answers to what was sent
  /// are of interest only where they make room, and then many at a time.
  private func requestEvents() throws -> Bool {
    for queue in frontend.queues {
      if try queue.receiver.requestEvent() { return true }
      let transmitter = queue.transmitter
      guard waiting != nil || !transmitter.hasRoom, transmitter.outstanding > 0 else { continue }
      if try transmitter.requestEvent(afterResponses: max(1, transmitter.outstanding / 2)) { return true }
    }
    return false
  }

  /// A bounded share of work in both directions; false if there was nothing to do.
  private func turn() throws -> Bool {
    var isBusy = false
    for (number, queue) in frontend.queues.enumerated() {
      _ = try queue.transmitter.reap()
      if try receive(from: queue, to: tap.queues[number]) { isBusy = true }
      if try transmit(from: tap.queues[number], number, to: queue) { isBusy = true }
      try frontend.push(queue)
    }
    return isBusy
  }

  // MARK: Guest to backend

  private func transmit(from link: TapQueue, _ number: Int, to queue: NetFrontendQueue) throws -> Bool {
    if let waiting {
      guard waiting.queue == number, try place(waiting.byteCount, waiting.transmission, queue) else {
        return false
      }
      self.waiting = nil
    }
    let bytes = pool.bytes(of: outgoing)
    let place = bytes.slice(
      from: Self.start - Self.header, count: Self.header + NetLimits.packetByteCount + 32)
    for count in 0..<Self.batch {
      guard queue.transmitter.hasRoom else { return count > 0 }
      let result = link.receive(into: place.segment)
      guard result > 0 else {
        // EAGAIN: there is none. EIO: the interface is down.
        guard [EAGAIN, EIO].contains(-result) else { throw SystemError(call: "read TAP", errno: -result) }
        return count > 0
      }
      let byteCount = Int(result) - Self.header
      guard byteCount >= NetLimits.ethernetHeaderByteCount, byteCount <= NetLimits.packetByteCount else {
        droppedCount += 1
        continue
      }
      let frame = bytes.slice(from: Self.start, count: byteCount)
      let header = VirtioNetHeader(reading: bytes, at: Self.start - Self.header)
      guard let transmission = transmission(of: header, frame) else {
        droppedCount += 1
        continue
      }
      guard try self.place(byteCount, transmission, queue) else {
        waiting = Waiting(queue: number, byteCount: byteCount, transmission: transmission)
        return true
      }
    }
    return true
  }

  /// What the backend is told of a frame, whose checksum is completed if the backend does not do that; nil for
  /// one that cannot be sent.
  private func transmission(of header: VirtioNetHeader, _ frame: PrivateBytes) -> NetTransmission? {
    guard var offload = try? header.offload(frame: frame) else { return nil }
    // Once more after the checksum was completed.
    for _ in 0..<2 {
      switch FrontendOffload.action(for: offload, frame: frame, offered: frontend.features.offloads) {
      case .send(let flags, let segmentation):
        return NetTransmission(flags: flags, segmentation: segmentation)
      case .completeChecksum:
        SoftwareChecksum.complete(frame, &offload)
      case .segment:
        // The TAP was not asked for what the backend does not take.
        return nil
      }
    }
    return nil
  }

  private func place(
    _ byteCount: Int, _ transmission: NetTransmission, _ queue: NetFrontendQueue
  ) throws -> Bool {
    let frame = pool.bytes(of: outgoing).slice(from: Self.start, count: byteCount)
    var sent = 0
    var position = 0
    while sent < byteCount {
      let count = min(pageByteCount, byteCount - sent)
      guard let page = queue.transmitter.freeSegment(position) else { return false }
      pool.copy(
        from: frame.slice(from: sent, count: count).segment, to: page.slice(offset: 0, count: UInt(count)))
      sent += count
      position += 1
    }
    return try queue.transmitter.place(byteCount: byteCount, transmission)
  }

  // MARK: Backend to guest

  private func receive(from queue: NetFrontendQueue, to link: TapQueue) throws -> Bool {
    let bytes = pool.bytes(of: incoming)
    for count in 0..<Self.batch {
      guard let packet = try queue.receiver.nextPacket() else {
        queue.receiver.post()
        return count > 0
      }
      let frame = bytes.slice(from: Self.start, count: packet.byteCount)
      var at = 0
      for position in 0..<packet.slotCount {
        let segment = queue.receiver.segment(position)
        let size = Int(segment.length)
        pool.copy(from: segment, to: frame.slice(from: at, count: size).segment)
        at += size
      }
      do throws(PacketRefusal) {
        let offload = try FrontendOffload.received(
          frame, flags: packet.flags, segmentation: packet.segmentation, hash: packet.hash)
        VirtioNetHeader(offload).write(to: bytes, at: Self.start - Self.header)
        let written = bytes.slice(from: Self.start - Self.header, count: Self.header + packet.byteCount)
        if link.send(from: written.segment) < 0 { droppedCount += 1 }
      } catch {
        droppedCount += 1
      }
    }
    queue.receiver.post()
    return true
  }
}
