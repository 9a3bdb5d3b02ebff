import RingKit

/// The outside world: a TAP on the bridge.
final class OutsideWorld {
  private let queue: TapQueue
  private let memory: MappedPages

  init(_ network: NetworkNamespace, bridge: String) throws {
    queue = try network.run {
      let device = try TapDevice(creating: "outside")
      try network.ip("link set dev outside addrgenmode none")
      try network.ip("link set dev outside master \(bridge)")
      try device.setCarrier(true)
      try device.setUp(true)
      return device.queues[0]
    }
    memory = try MappedPages.anonymous(pageCount: 1)
  }

  /// Sends a frame to whoever hears it, with a header of its TAP (linux/virtio_net.h).
  func send(
    _ frame: [UInt8], header: [UInt8] = [UInt8](repeating: 0, count: TapQueue.headerByteCount)
  ) throws {
    let bytes = header + frame
    memory.setBytes(bytes, at: 0)
    let result = queue.send(from: memory.segment(offset: 0, length: bytes.count))
    guard result == bytes.count else { throw WorldFailure("a frame could not be sent: \(result)") }
  }

  /// Passes over what has come out of guests.
  func drain() {
    while queue.receive(into: memory.segment(offset: 0, length: pageByteCount)) > 0 {}
  }

  /// The next frame that came out of a guest.
  func receive() throws -> [UInt8] {
    while true {
      let result = queue.receive(into: memory.segment(offset: 0, length: pageByteCount))
      if result > 0 {
        return memory.copyBytes(
          at: TapQueue.headerByteCount, count: Int(result) - TapQueue.headerByteCount)
      }
      var poll = DescriptorPoll()
      poll.set([(queue.descriptor, false)])
      guard try !poll.wait(timeoutMilliseconds: Int32(worldMilliseconds)).isEmpty else {
        throw WorldFailure("nothing comes out of the guest")
      }
    }
  }
}
