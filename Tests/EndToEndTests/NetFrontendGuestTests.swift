import Foundation
import Frontends
import Netback
import RingKit
import Synchronization
import Testing

/// A Linux network stack behind a frontend: what passes is judged by the stack and its tools.
@Suite(
  .serialized, .timeLimit(.minutes(10)),
  .enabled(if: guestNetworkObstacle == nil, "\(guestNetworkObstacle ?? "")"))
struct NetFrontendGuestTests {
  /// A guest's stack in a namespace of its own, with a thread that carries its packets.
  private final class Guest {
    let network: NetworkNamespace
    private let stop: Mailbox<Int>
    private let ended = DispatchSemaphore(value: 0)
    private let outcome: Outcome

    /// What the thread leaves behind.
    final class Outcome: Sendable {
      let counts = Mutex(Counts())
      let failure = Mutex<String?>(nil)
    }

    struct Counts: Sendable {
      var sent: UInt64 = 0
      var received: UInt64 = 0
      var dropped: UInt64 = 0
      var events: UInt64 = 0
    }

    /// Connects the interface of `world` and gives the stack an address.
    init(_ world: NetFrontendWorld, _ options: NetFrontendOptions) throws {
      let network = try NetworkNamespace()
      let (stop, outcome, ended) = (try Mailbox<Int>(), Outcome(), ended)
      (self.network, self.stop, self.outcome) = (network, stop, outcome)
      let begun = DispatchSemaphore(value: 0)
      let hypervisor = try world.guestHypervisor()
      let thread = Thread {
        do {
          try network.run {
            defer { begun.signal() }
            let frontend = try NetFrontend(
              hypervisor: hypervisor, domain: NetFrontendWorld.domain, device: 0, options: options)
            try frontend.connect(timeoutMilliseconds: worldMilliseconds)
            let guest = try GuestNetwork(frontend, tapName: "eth0")
            begun.signal()
            try guest.run(until: stop.descriptor)
            for queue in frontend.queues { try queue.transmitter.reap() }
            let (sent, received) = frontend.packetCounts
            outcome.counts.withLock {
              $0 = Counts(
                sent: sent, received: received, dropped: guest.droppedCount, events: frontend.eventCount)
            }
            try frontend.close(timeoutMilliseconds: worldMilliseconds)
          }
        } catch {
          outcome.failure.withLock { $0 = "\(error)" }
        }
        ended.signal()
      }
      thread.start()
      guard begun.wait(timeout: .now() + 20) == .success else { throw WorldFailure("the guest hangs") }
      if let failure = outcome.failure.withLock({ $0 }) { throw WorldFailure("the guest: \(failure)") }
      try network.addAddress("10.9.0.2/24", to: "eth0")
    }

    /// Ends it; what it has carried.
    func end() throws -> Counts {
      stop.post(1)
      return try waitForEnd()
    }

    /// Waits until it ends by itself.
    @discardableResult
    func waitForEnd() throws -> Counts {
      guard ended.wait(timeout: .now() + 20) == .success else { throw WorldFailure("the guest does not end") }
      if let failure = outcome.failure.withLock({ $0 }) { throw WorldFailure("the guest: \(failure)") }
      return outcome.counts.withLock { $0 }
    }

    /// Waits until the stack sees the carrier so.
    func awaitCarrier(_ wanted: Bool) throws {
      let isSo = try network.run {
        let watch = try LinkWatch()
        let control = try LinkControl()
        var poll = DescriptorPoll()
        poll.set([(watch.descriptor, false)])
        let end = MonotonicClock.nowNanoseconds() + UInt64(worldMilliseconds) * 1_000_000
        while try control.status(name: "eth0")?.hasCarrier != wanted {
          guard MonotonicClock.nowNanoseconds() < end else { return false }
          _ = try poll.wait(timeoutMilliseconds: 1000)
          _ = try watch.changes()
        }
        return true
      }
      #expect(isSo)
    }
  }

  /// One shape of a connection.
  struct Shape: Sendable, CustomTestStringConvertible {
    var offloads = NetOffloads.all
    var queues = 1
    var byteCount = 56
    var testDescription: String { "offloads \(offloads.rawValue), \(queues) queues, \(byteCount) bytes" }
  }

  static let shapes = [
    Shape(), Shape(queues: 2), Shape(byteCount: 8900), Shape(byteCount: 60_000),
    Shape(offloads: [], byteCount: 1400), Shape(offloads: [.checksumIPv4], byteCount: 3000),
  ]

  /// Echo requests and their answers, alone and in many fragments.
  @Test(arguments: shapes) func theStackIsAnswered(shape: Shape) throws {
    let world = try NetFrontendWorld()
    var script = NetModelBackend.Script()
    script.reply = NetModelHost.reply
    if !shape.offloads.contains(.scatterGather) {
      script.features["feature-sg"] = "0"
      try world.toolstack.write("\(NetFrontendWorld.frontendPath)/mtu", "1500")
    }
    let backend = try world.backend(script)
    var options = NetFrontendOptions()
    options.offloads = shape.offloads
    options.queueCount = shape.queues
    options.firstRingIndex = 0xFFFF_FFF0
    let guest = try Guest(world, options)
    try guest.network.execute(
      "ping", ["-n", "-c", "20", "-i", "0.002", "-w", "10", "-s", "\(shape.byteCount)", "10.9.0.1"])
    let counts = try guest.end()
    #expect(counts.sent >= 20 && counts.received >= 20)
    #expect(counts.dropped == 0)
    #expect(world.mappedPageCount == 0)
    try backend.stop()
  }

  /// The stack hears of the backend's link.
  @Test func theCarrierIsTheBackends() throws {
    let world = try NetFrontendWorld()
    let backend = try world.backend()
    try world.write("carrier", "0")
    let guest = try Guest(world, NetFrontendOptions())
    try guest.awaitCarrier(false)
    try world.write("carrier", "1")
    try guest.awaitCarrier(true)
    _ = try guest.end()
    try backend.stop()
  }

  /// A TAP that was deleted ends the guest with an error, and not in a loop.
  @Test func aDeletedTapEndsTheGuest() throws {
    let world = try NetFrontendWorld()
    let backend = try world.backend()
    let guest = try Guest(world, NetFrontendOptions())
    try guest.network.ip("link delete eth0")
    let error = #expect(throws: WorldFailure.self) { try guest.waitForEnd() }
    #expect(error?.description.contains("read TAP") == true)
    try backend.stop()
  }

  /// A backend that goes ends it too.
  @Test func aBackendThatClosesEndsTheGuest() throws {
    let world = try NetFrontendWorld()
    let backend = try world.backend()
    let guest = try Guest(world, NetFrontendOptions())
    try backend.perform { try $0.setState(.closing) }
    let error = #expect(throws: WorldFailure.self) { try guest.waitForEnd() }
    #expect(error?.description.contains("went to Closing") == true)
    try backend.stop()
  }
}

/// Why the tests of guests' networks cannot run here; nil when they can.
let guestNetworkObstacle: String? = {
  if unsafe access("/dev/net/tun", R_OK | W_OK) != 0 { return "this machine has no usable /dev/net/tun" }
  do { _ = try NetworkNamespace() } catch { return "no network namespace can be made: \(error)" }
  for program in ["ip", "ping"] where NetworkNamespace.path(of: program) == nil {
    return "\(program) is not installed (Debian's packages iproute2 and iputils-ping)"
  }
  return nil
}()

/// A host that answers ARP and echo requests for any address.
enum NetModelHost {
  @Sendable static func reply(to packet: NetModelPacket) -> NetModelPacket? {
    var bytes = packet.bytes
    guard bytes.count >= 42 else { return nil }
    let own: [UInt8] = [2, 0, 0, 0, 0, 1]
    let sender = Array(bytes[6..<12])
    bytes.replaceSubrange(0..<12, with: sender + own)
    switch (bytes[12], bytes[13]) {
    case (8, 6) where bytes[21] == 1:
      let (source, target) = (Array(bytes[28..<32]), Array(bytes[38..<42]))
      bytes[21] = 2
      bytes.replaceSubrange(22..<42, with: own + target + sender + source)
    case (8, 0) where bytes[23] == 1:
      let (source, target) = (Array(bytes[26..<30]), Array(bytes[30..<34]))
      bytes.replaceSubrange(26..<34, with: target + source)
      // Only the first fragment has the header, whose checksum grows as its type shrinks.
      let isFirst = bytes[20] & 0x1F == 0 && bytes[21] == 0
      if isFirst {
        guard bytes[34] == 8 else { return nil }
        bytes[34] = 0
        let sum = (UInt32(bytes[36]) << 8 | UInt32(bytes[37])) + 0x0800
        let folded = (sum & 0xFFFF) + sum >> 16
        bytes[36] = UInt8(truncatingIfNeeded: folded >> 8)
        bytes[37] = UInt8(truncatingIfNeeded: folded)
      }
    default: return nil
    }
    return NetModelPacket(bytes: bytes, flags: packet.flags, extras: packet.extras)
  }
}
