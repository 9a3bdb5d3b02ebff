/// Ports read from the host in bulk and not yet reported, and which ports are bound at all.
///
/// The kernel's own queue and this buffer both outlive an unbind, so every port is checked against the bound
/// ones when it is reported.
@safe
package struct PendingPorts: ~Copyable {
  /// Ports read from the host at a time.
  package static var bufferCount: Int { 128 }

  private var buffer = [UInt32](repeating: 0, count: Self.bufferCount)
  private var start = 0
  private var end = 0
  // One bit a port: Xen's FIFO ABI has 2^17 ports (event_channel.h, EVTCHN_FIFO_NR_CHANNELS).
  private var bound: [UInt64] = []

  /// Nothing bound, nothing pending.
  package init() {}

  /// Records that `port` is bound.
  package mutating func add(_ port: Port) {
    let word = Int(port.rawValue / 64)
    while bound.count <= word { bound.append(0) }
    bound[word] |= 1 << UInt64(port.rawValue % 64)
  }

  /// Records that `port` is bound no more, and forgets its buffered event; false when it was not bound.
  package mutating func remove(_ port: Port) -> Bool {
    guard contains(port) else { return false }
    bound[Int(port.rawValue / 64)] &= ~(1 << UInt64(port.rawValue % 64))
    // A new port may get this number before its old event is read from the buffer. Port 0 is never bound.
    for index in start..<end where buffer[index] == port.rawValue { buffer[index] = 0 }
    return true
  }

  /// True when `port` is bound.
  package func contains(_ port: Port) -> Bool {
    let word = Int(port.rawValue / 64)
    return word < bound.count && bound[word] & (1 << UInt64(port.rawValue % 64)) != 0
  }

  /// Takes the next buffered port that is still bound.
  package mutating func next() -> Port? {
    while start < end {
      let port = Port(rawValue: buffer[start])
      start += 1
      if contains(port) { return port }
    }
    return nil
  }

  /// Lets `read` fill the empty buffer and return how many ports it wrote; false when it wrote none.
  package mutating func refill(_ read: (UnsafeMutableBufferPointer<UInt32>) -> Int) -> Bool {
    // Sound: the buffer is lent for the call only.
    let count = unsafe buffer.withUnsafeMutableBufferPointer { unsafe read($0) }
    start = 0
    end = max(0, min(count, Self.bufferCount))
    return end > 0
  }
}
