import RingKit
import Testing

/// Ports read in bulk and reported one by one.
@Suite struct EventPortTests {
  func port(_ number: UInt32) -> Port { Port(rawValue: number) }

  /// Fills the buffer with `numbers`.
  func refill(_ ports: inout PendingPorts, _ numbers: [UInt32]) -> Bool {
    unsafe ports.refill { buffer in
      for (index, number) in numbers.enumerated() { unsafe buffer[index] = number }
      return numbers.count
    }
  }

  func drain(_ ports: inout PendingPorts) -> [UInt32] {
    var all: [UInt32] = []
    while let port = ports.next() { all.append(port.rawValue) }
    return all
  }

  @Test func onlyBoundPortsAreReported() {
    var ports = PendingPorts()
    for number: UInt32 in [1, 63, 64, 131_071] { ports.add(port(number)) }
    #expect(refill(&ports, [1, 2, 62, 63, 64, 65, 131_070, 131_071, .max, 0, 1]))
    #expect(drain(&ports) == [1, 63, 64, 131_071, 1])
    #expect(drain(&ports) == [])
  }

  @Test(arguments: [0, -1, Int.min]) func nothingReadIsNothingPending(count: Int) {
    var ports = PendingPorts()
    ports.add(port(1))
    #expect(refill(&ports, [1]))
    let isFilled = unsafe ports.refill { _ in count }
    #expect(!isFilled)
    #expect(ports.next() == nil)
  }

  @Test func aFullBufferIsReportedWhole() {
    var ports = PendingPorts()
    let numbers = (1...UInt32(PendingPorts.bufferCount)).map { $0 }
    for number in numbers { ports.add(port(number)) }
    #expect(refill(&ports, numbers))
    #expect(drain(&ports) == numbers)
  }

  @Test func anUnboundPortsBufferedEventIsForgotten() {
    var ports = PendingPorts()
    for number: UInt32 in 1...4 { ports.add(port(number)) }
    #expect(refill(&ports, [1, 2, 3, 4]))
    #expect(ports.next() == port(1))
    let isRemoved = ports.remove(port(3))
    #expect(isRemoved)
    let isRemovedAgain = ports.remove(port(3))
    #expect(!isRemovedAgain)
    // Bound again before its old event was read.
    ports.add(port(3))
    #expect(drain(&ports) == [2, 4])
    #expect(refill(&ports, [3]))
    #expect(drain(&ports) == [3])
  }
}
