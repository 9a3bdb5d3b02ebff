import CUring
import Glibc
import RingKit
import Testing

/// Frames through a TAP as a data thread moves them: what the kernel promises, on both engines.
@Suite(.enabled(if: tapObstacle == nil, "\(tapObstacle ?? "")"))
struct TapQueueTests {
  /// A page for each of 16 requests.
  static func pages(_ pool: BufferPool) -> [IOSegment] {
    (0..<16).map { pool.arena.slice(offset: UInt($0) * 4096, count: 4096) }
  }

  @Test(arguments: bothEngines) func readsTakeFramesInOrderAndEndWhereThereAreNone(engine: IOEngine) throws {
    try inNetwork { network in
      let device = try TapDevice.running("vif1.0", in: network)
      let queue = device.queues[0]
      try #require(queue.refusesToWait, "TAPs of this kernel make no such promise")
      let pool = try BufferPool(byteCount: 1 << 17)
      let ring = try IORing.open(entries: 32, engine: engine)
      let file = ring.register(descriptor: queue.descriptor)
      let pages = Self.pages(pool)
      let peer = try PacketSocket(index: device.index)
      for number in 0..<5 as Range<UInt8> {
        try peer.send([UInt8](repeating: 0, count: 10) + numberedFrame(number))
      }
      let enters = ring.enterCount
      for token in 0..<8 { ring.readNow(file, into: pages[token], token: UInt64(token)) }
      try ring.submit()
      // All have ended, in the order in which they were prepared.
      for token in 0..<8 as Range<UInt64> {
        #expect(ring.nextCompletion() == IOCompletion(token: token, result: token < 5 ? 72 : -EAGAIN))
      }
      #expect(ring.enterCount == enters + 1 && ring.inFlightCount == 0)
      for number in 0..<5 {
        let bytes = pool.bytes(pages[number].slice(offset: 0, count: 72))
        #expect(bytes == [UInt8](repeating: 0, count: 12) + numberedFrame(UInt8(number)))
      }
      ring.unregister(file)
    }
  }

  @Test(arguments: bothEngines) func aPollTellsOfAFrame(engine: IOEngine) throws {
    try inNetwork { network in
      let device = try TapDevice.running("vif1.0", in: network)
      let ring = try IORing.open(entries: 8, engine: engine)
      let file = IOFile(descriptor: device.queues[0].descriptor)
      ring.pollReadable(file, token: 1)
      try ring.submit()
      #expect(ring.nextCompletion() == nil)
      try PacketSocket(index: device.index).send([UInt8](repeating: 0, count: 10) + numberedFrame(1))
      let seen = try ring.completions(1)
      #expect((seen[1]?.first ?? 0) & POLLIN != 0)
    }
  }

  /// Why there is readNow.
  @Test func aPlainReadOfIoUringWaitsThoughTheQueueDoesNot() throws {
    try inNetwork { network in
      let device = try TapDevice.running("vif1.0", in: network)
      let pool = try BufferPool(byteCount: 1 << 16)
      let ring = try IORing.open(entries: 8, engine: .uring)
      ring.read(
        IOFile(descriptor: device.queues[0].descriptor), at: 0, into: Self.pages(pool)[0], token: 1)
      try ring.submit()
      #expect(!ring.hasCompletions && ring.inFlightCount == 1)
      try PacketSocket(index: device.index).send([UInt8](repeating: 0, count: 10) + numberedFrame(1))
      #expect(try ring.completions(1) == [1: [72]])
    }
  }

  @Test(arguments: bothEngines) func aTapThatIsDownOrGoneEndsRequests(engine: IOEngine) throws {
    try inNetwork { network in
      let device = try TapDevice(creating: "vif1.0")
      try network.ip("link set dev vif1.0 addrgenmode none")
      let queue = device.queues[0]
      let pool = try BufferPool(byteCount: 1 << 16)
      let ring = try IORing.open(entries: 8, engine: engine)
      let file = IOFile(descriptor: queue.descriptor)
      let (room, frame) = (Self.pages(pool)[0], Self.pages(pool)[1].slice(offset: 0, count: 72))
      pool.fill(frame, [UInt8](repeating: 0, count: 12) + numberedFrame(9))
      ring.writeNow(file, from: frame, token: 1)
      ring.readNow(file, into: room, token: 2)
      #expect(try ring.completions(2) == [1: [-EIO], 2: [-EAGAIN]])
      #expect(queue.send(from: frame) == -EIO && queue.receive(into: room) == -EAGAIN)
      // As the script sets it up, the same queue works.
      try device.setUp(true)
      try device.setCarrier(true)
      let peer = try PacketSocket(index: device.index)
      ring.writeNow(file, from: frame, token: 3)
      #expect(try ring.completions(1) == [3: [72]])
      #expect(try peer.receive().suffix(60) == numberedFrame(9))
      try device.setUp(false)
      ring.writeNow(file, from: frame, token: 4)
      #expect(try ring.completions(1) == [4: [-EIO]])
      ring.pollReadable(file, token: 5)
      try ring.submit()
      try device.delete()
      // Whoever waits is woken: by an error on io_uring, which looks again, as if by a frame on libaio.
      #expect((try ring.completions(1)[5]?.first ?? 0) & (POLLERR | POLLIN) != 0)
      ring.writeNow(file, from: frame, token: 6)
      ring.readNow(file, into: room, token: 7)
      #expect(try ring.completions(2) == [6: [-EBADFD], 7: [-EBADFD]])
      #expect(queue.send(from: frame) == -EBADFD && queue.receive(into: room) == -EBADFD)
    }
  }

  @Test(arguments: bothEngines) func writesReachTheKernelInOrder(engine: IOEngine) throws {
    try inNetwork { network in
      let device = try TapDevice.running("vif1.0", in: network)
      let pool = try BufferPool(byteCount: 1 << 17)
      let ring = try IORing.open(entries: 32, engine: engine)
      let file = ring.register(descriptor: device.queues[0].descriptor)
      let pages = Self.pages(pool)
      let peer = try PacketSocket(index: device.index)
      for number in 0..<16 {
        let bytes = [UInt8](repeating: 0, count: 12) + numberedFrame(UInt8(number), byteCount: 60 + number)
        let segment = pages[number].slice(offset: 0, count: UInt(bytes.count))
        pool.fill(segment, bytes)
        ring.writeNow(file, from: segment, token: UInt64(number))
      }
      try ring.submit()
      for number in 0..<16 {
        #expect(ring.nextCompletion() == IOCompletion(token: UInt64(number), result: Int32(72 + number)))
        #expect(try peer.receive().dropFirst(10) == numberedFrame(UInt8(number), byteCount: 60 + number)[...])
      }
    }
  }

  @Test func framesToBeSegmentedPassRegisteredBuffersBothWays() throws {
    try inNetwork { network in
      let device = try TapDevice.running("vif1.0", in: network)
      try device.setOffloads([.checksum, .tcpIPv4])
      let pool = try BufferPool(byteCount: 1 << 18)
      let ring = try IORing.open(entries: 8, engine: .uring)
      try ring.registerBuffers([pool.arena])
      let file = ring.register(descriptor: device.queues[0].descriptor)
      let peer = try PacketSocket(index: device.index)
      let frame = tcpFrame(payloadByteCount: 60_000)
      let out = pool.arena.slice(offset: 4096 * 3 + 20, count: UInt(12 + frame.count))
      pool.fill(out, segmentationHeader + [0, 0] + frame)
      ring.writeFixedNow(file, from: out, buffer: 0, token: 1)
      #expect(try ring.completions(1) == [1: [Int32(12 + frame.count)]])
      // As one, and marked as it was.
      let received = try peer.receive()
      #expect(received.prefix(2) == [1, 1] && received[4..<6] == [0xE8, 3])
      #expect(received.dropFirst(10) == frame[...])
      try peer.send(segmentationHeader + frame)
      let room = pool.arena.slice(offset: 4096 * 20, count: 66_000)
      ring.readFixedNow(file, into: room, buffer: 0, token: 2)
      #expect(try ring.completions(1) == [2: [Int32(12 + frame.count)]])
      let bytes = pool.bytes(room.slice(offset: 0, count: UInt(12 + frame.count)))
      #expect(bytes.prefix(2) == [1, 1] && bytes[4..<10] == [0xE8, 3, 34, 0, 16, 0])
      #expect(bytes.dropFirst(12) == frame[...])
    }
  }

  @Test func offloadsDecideWhatTheKernelLeavesToUs() throws {
    try inNetwork { network in
      let device = try TapDevice.running("vif1.0", in: network)
      let pool = try BufferPool(byteCount: 1 << 16)
      let room = Self.pages(pool)[0]
      let queue = device.queues[0]
      let peer = try PacketSocket(index: device.index)
      func headers() throws -> [[UInt8]] {
        try peer.send(segmentationHeader + tcpFrame(payloadByteCount: 2500))
        var found: [[UInt8]] = []
        while case let count = queue.receive(into: room), count > 0 {
          found.append(Array(pool.bytes(room.slice(offset: 0, count: 10))) + [UInt8(count / 256)])
        }
        return found
      }
      #expect(
        try headers() == Array(repeating: [UInt8](repeating: 0, count: 10) + [4], count: 2) + [
          [UInt8](repeating: 0, count: 10) + [2]
        ])
      try device.setOffloads([.checksum])
      let partial: [UInt8] = [1, 0, 0, 0, 0, 0, 34, 0, 16, 0]
      #expect(try headers() == [partial + [4], partial + [4], partial + [2]])
      try device.setOffloads([.checksum, .tcpIPv6])
      #expect(try headers().count == 3)
      try device.setOffloads([.checksum, .tcpIPv4])
      let one = try headers()
      #expect(one.count == 1 && one[0][0...1] == [1, 1] && one[0][4...5] == [0xE8, 3])
      try device.setOffloads([])
      #expect(try headers().count == 3)
    }
  }

  @Test func aQueueThatWasTakenAwayGetsNoFrames() throws {
    try inNetwork { network in
      let device = try TapDevice.running("vif1.0", in: network)
      let first = device.queues[0]
      let second = try device.addQueue()
      device.removeQueue(first)
      let peer = try PacketSocket(index: device.index)
      let pool = try BufferPool(byteCount: 1 << 16)
      let room = Self.pages(pool)[0]
      for number in 0..<20 as Range<UInt8> {
        try peer.send([UInt8](repeating: 0, count: 10) + numberedFrame(number))
        #expect(second.receive(into: room) == 72)
      }
      #expect(first.receive(into: room) == -EAGAIN)
    }
  }

  @Test func whatAnEarlierProcessTookIsForgotten() throws {
    try inNetwork { network in
      let index: Int32
      do {
        let device = try TapDevice.running("vif1.0", in: network)
        try device.setOffloads([.checksum, .tcpIPv4])
        try device.setPersistent(true)
        index = device.index
      }
      let control = try LinkControl()
      #expect(try onceClosed { try control.status(index: index).tun?.queueCount == 0 })
      let device = try TapDevice(attaching: index)
      try device.setCarrier(true)
      let pool = try BufferPool(byteCount: 1 << 16)
      let room = Self.pages(pool)[0]
      // Until the kernel has put its own queues back, it drops what is sent (dev_activate).
      let peer = try PacketSocket(index: index)
      var poll = DescriptorPoll()
      poll.set([(device.queues[0].descriptor, false)])
      repeat {
        try peer.send([UInt8](repeating: 0, count: 10) + numberedFrame(0))
      } while try poll.wait(
        timeoutMilliseconds: 10
      ).isEmpty
      while device.queues[0].receive(into: room) > 0 {}
      try peer.send(segmentationHeader + tcpFrame(payloadByteCount: 2500))
      var counts: [Int32] = []
      while case let count = device.queues[0].receive(into: room), count > 0 { counts.append(count) }
      #expect(counts == [1066, 1066, 566])
    }
  }
}
