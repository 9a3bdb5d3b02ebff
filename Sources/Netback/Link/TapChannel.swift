import RingKit

/// One queue of a TAP as a data thread drives it: reads ahead as far as the frontend takes packets, writes at
/// once. A virtio-net header stands before each frame, in the frame's own buffer.
struct TapChannel: ~Copyable {
  /// How reading goes on.
  private enum Reading {
    /// Nothing is asked for.
    case resting
    /// A batch of reads is under way.
    case batch
    /// The TAP was empty: it is watched.
    case watching
  }

  /// A read's place; those of a batch are used in their order, as packets keep theirs.
  private struct Place {
    var buffer: IOBuffer?
    var result: Int32 = 0
    var isUnderWay = false
  }

  /// Kinds of tokens, in the upper bits.
  private enum Token {
    static let mask: UInt32 = 0xF000_0000
    static let read: UInt32 = 0x1000_0000
    static let write: UInt32 = 0x2000_0000
    static let watch: UInt32 = 0x3000_0000
  }

  /// Reads of one batch at most.
  static let largestBatch = 32
  /// Writes under way at most. They end while they are submitted, but where the kernel has no memory.
  static let writeCapacity = 256

  private let loop: DataLoop<NetQueue>
  private let key: QueueKey
  private let queue: TapQueue
  private let file: IOFile
  private var places = [Place](repeating: Place(), count: TapChannel.largestBatch)
  private var writes = [IOBuffer?](repeating: nil, count: TapChannel.writeCapacity)
  private var freeWrites: [UInt16]
  private var reading = Reading.resting
  private var underWay = 0
  /// The next place to be taken by the queue, and the one behind the last of the batch.
  private var next = 0
  private var end = 0
  private var batch = 1
  private var isClosing = false
  /// The TAP was deleted by somebody else: nothing comes from it, and it takes nothing.
  private var isGone = false
  /// The largest frame to be read, in bytes.
  var frameByteCount: Int
  /// What became of frames.
  var counters = NetLinkCounters()

  init(loop: DataLoop<NetQueue>, key: QueueKey, queue: TapQueue, frameByteCount: Int) {
    self.loop = loop
    self.key = key
    self.queue = queue
    file = loop.ring.register(descriptor: queue.descriptor)
    freeWrites = Array((0..<UInt16(TapChannel.writeCapacity)).reversed())
    self.frameByteCount = frameByteCount
  }

  deinit { loop.ring.unregister(file) }

  /// True when nothing is under way.
  var isDrained: Bool { underWay == 0 && freeWrites.count == TapChannel.writeCapacity }

  /// True when another frame can be written.
  var canWrite: Bool { !freeWrites.isEmpty }

  // MARK: Writing

  /// Writes a frame; the buffer is given back when that has ended.
  mutating func write(_ packet: NetPacket, share: inout BufferShare) {
    guard !isClosing, let index = freeWrites.popLast() else {
      counters.droppedErrors += 1
      release(packet.buffer, &share)
      return
    }
    let bytes = loop.pool.bytes(of: packet.buffer)
    let header = packet.start - VirtioNetHeader.byteCount
    VirtioNetHeader(packet.offload).write(to: bytes, at: header)
    let segment = packet.buffer.segment.slice(
      offset: UInt(header), count: UInt(packet.byteCount + VirtioNetHeader.byteCount))
    writes[Int(index)] = packet.buffer
    if queue.refusesToWait {
      loop.writePooledNow(file, from: segment, token: key.token(Token.write | UInt32(index)))
    } else {
      writeEnded(Int(index), queue.send(from: segment), &share)
    }
  }

  // MARK: Reading

  /// Asks for packets, if none are asked for or waiting. `share` is what the guest may hold.
  mutating func read(share: inout BufferShare) {
    guard !isClosing, !isGone, reading == .resting, next == end else { return }
    (next, end) = (0, 0)
    let size = pageByteCount + frameByteCount
    while end < batch {
      guard let buffer = loop.pool.allocate(byteCount: size, share: &share) else { break }
      places[end] = Place(buffer: buffer, isUnderWay: true)
      let segment = buffer.segment.slice(
        offset: UInt(pageByteCount - VirtioNetHeader.byteCount),
        count: UInt(VirtioNetHeader.byteCount + frameByteCount))
      let place = end
      end += 1
      underWay += 1
      guard !queue.refusesToWait else {
        loop.readPooledNow(file, into: segment, token: key.token(Token.read | UInt32(place)))
        continue
      }
      let result = queue.receive(into: segment)
      places[place].result = result
      places[place].isUnderWay = false
      underWay -= 1
      if result < 0 { break }
    }
    guard end > 0 else {
      loop.waitForBuffers(key)
      return
    }
    reading = .batch
    if underWay == 0 { batchEnded() }
  }

  /// The next frame that has come, in order; nil when there is none now. Whoever takes it holds its buffer.
  mutating func nextPacket(share: inout BufferShare) -> NetPacket? {
    while next < end, !places[next].isUnderWay {
      let place = places[next]
      places[next].buffer = nil
      next += 1
      guard let buffer = place.buffer else { continue }
      let count = Int(place.result) - VirtioNetHeader.byteCount
      guard count >= NetLimits.ethernetHeaderByteCount else {
        if place.result > 0 { counters.droppedErrors += 1 }
        release(buffer, &share)
        continue
      }
      let bytes = loop.pool.bytes(of: buffer)
      let header = VirtioNetHeader(reading: bytes, at: pageByteCount - VirtioNetHeader.byteCount)
      do throws(PacketRefusal) {
        let offload = try header.offload(frame: bytes.slice(from: pageByteCount, count: count))
        counters.receivedPackets += 1
        counters.receivedBytes += UInt64(count)
        return NetPacket(buffer: buffer, start: pageByteCount, byteCount: count, offload: offload)
      } catch {
        counters.droppedUnwanted += 1
        release(buffer, &share)
      }
    }
    return nil
  }

  // MARK: Completions

  /// Takes a completion with a token of this channel's.
  mutating func completed(token: UInt32, result: Int32, share: inout BufferShare) {
    let index = Int(token & ~Token.mask)
    switch token & Token.mask {
    case Token.read:
      readEnded(index, result)
    case Token.write:
      writeEnded(index, result, &share)
    case Token.watch:
      underWay -= 1
      if reading == .watching { reading = .resting }
    default:
      break
    }
  }

  private mutating func writeEnded(_ index: Int, _ result: Int32, _ share: inout BufferShare) {
    guard index < writes.count, let buffer = writes[index] else { return }
    writes[index] = nil
    freeWrites.append(UInt16(index))
    release(buffer, &share)
    switch result {
    case 0...:
      counters.sentPackets += 1
      counters.sentBytes += UInt64(max(0, Int(result) - VirtioNetHeader.byteCount))
    // EIO: the interface is down, which its administrator knows.
    case -5: counters.droppedDown += 1
    default: counters.droppedErrors += 1
    }
  }

  private mutating func readEnded(_ index: Int, _ result: Int32) {
    guard index < places.count, places[index].isUnderWay else { return }
    places[index].isUnderWay = false
    places[index].result = result
    underWay -= 1
    // EBADFD: the TAP was deleted; a watch would end at once, again and again.
    if result == -77 { isGone = true }
    if reading == .batch, !places[0..<end].contains(where: \.isUnderWay) { batchEnded() }
  }

  /// A full batch may be followed by a larger one; otherwise the TAP is empty.
  private mutating func batchEnded() {
    let got = places[0..<end].count { $0.result > 0 }
    reading = .resting
    if got == end {
      batch = min(batch * 2, TapChannel.largestBatch)
    } else {
      batch = max(1, min(got + 1, TapChannel.largestBatch))
      watch()
    }
  }

  /// Waits until there is something to read: also that an interface which is down comes up.
  private mutating func watch() {
    guard !isClosing, !isGone else { return }
    reading = .watching
    underWay += 1
    loop.ring.pollReadable(file, token: key.token(Token.watch))
  }

  // MARK: The end

  /// Asks for nothing more; what is under way is cancelled or ends by itself.
  mutating func beginClosing() {
    guard !isClosing else { return }
    isClosing = true
    if reading == .watching { loop.ring.cancel(key.token(Token.watch), token: key.token(0)) }
  }

  /// Gives all buffers back. Nothing is under way.
  mutating func dispose(share: inout BufferShare) {
    for index in places.indices {
      if let buffer = places[index].buffer { release(buffer, &share) }
      places[index].buffer = nil
    }
    (next, end) = (0, 0)
  }

  private func release(_ buffer: IOBuffer, _ share: inout BufferShare) {
    loop.pool.release(buffer, share: &share)
    loop.buffersReleased()
  }
}
