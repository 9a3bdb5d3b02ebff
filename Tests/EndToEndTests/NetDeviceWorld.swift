import Foundation
import Frontends
import Glibc
import Loopback
import Netback
import RingKit
import Testing

/// Why the tests of interfaces cannot run here; nil when they can.
let netDeviceObstacle: String? = {
  if geteuid() != 0 { return "TAPs need root (CAP_NET_ADMIN), or `unshare -rn`" }
  if unsafe access("/dev/net/tun", R_OK | W_OK) != 0 { return "this machine has no /dev/net/tun" }
  do {
    try NetworkNamespace().addBridge("lan")
  } catch {
    return "no network namespace with a bridge can be made: \(error)"
  }
  return nil
}()

/// A machine with a daemon of interfaces in domain 0. Their TAPs are ports of a bridge in a network of its own,
/// together with one more TAP, through which a test is the outside world.
final class NetDeviceWorld {
  let host: LoopbackHost
  let toolstack: StoreClient
  let daemon: NetDeviceDaemon
  let outside: OutsideWorld
  private let directory: URL
  /// A domain dies with its last connection.
  private var guests: [DomainID: LoopbackHypervisor] = [:]

  static let guest = DomainID(rawValue: 7)

  init(maximumQueues: Int = 2, threadCount: Int = 2) throws {
    _ = signal(SIGPIPE, SIG_IGN)
    directory = FileManager.default.temporaryDirectory.appending(
      path: "ringback-\(UUID().uuidString.prefix(8))")
    host = try LoopbackHost(directory: directory.path)
    let network = try NetworkNamespace()
    // Neither the bridge nor its ports are to say anything by themselves.
    try network.ip("link add name lan type bridge forward_delay 0 mcast_snooping 0")
    try network.ip("link set dev lan addrgenmode none")
    try network.setUp("lan")
    outside = try OutsideWorld(network, bridge: "lan")
    let hypervisor = try host.hypervisor(for: DomainID(rawValue: 0))
    toolstack = try hypervisor.openStore()
    var offer = VifOffer()
    offer.maximumQueues = maximumQueues
    daemon = try NetDeviceDaemon(
      hypervisor: hypervisor, network: network, bridge: "lan", offer: offer, threadCount: threadCount)
  }

  deinit {
    host.stop()
    try? FileManager.default.removeItem(at: directory)
  }

  func address(_ device: UInt32 = 0) -> DeviceAddress {
    DeviceAddress(kind: "vif", domain: Self.guest, device: device)
  }

  func backendPath(_ device: UInt32 = 0) -> String { "/local/domain/0/backend/vif/\(Self.guest)/\(device)" }

  /// Makes the nodes of an interface, as a toolstack does (libxl_nic.c); `nodes` are more of the backend's.
  func addInterface(_ device: UInt32 = 0, nodes: [String: String] = [:]) throws {
    let domain = Self.guest
    if guests[domain] == nil {
      try host.addDomain(domain)
      guests[domain] = try host.hypervisor(for: domain)
    }
    let (front, back) = ("/local/domain/\(domain)/device/vif/\(device)", backendPath(device))
    let zero = DomainID(rawValue: 0)
    try toolstack.transaction { tree throws(StoreError) in
      for (path, owner, reader) in [(front, domain, zero), (back, zero, domain)] {
        try tree.makeDirectory(path)
        try tree.setPermissions(
          [
            StorePermission(domain: owner, canRead: false, canWrite: false),
            StorePermission(domain: reader, canRead: true, canWrite: false),
          ], of: path)
      }
      let mac = "00:16:3e:00:00:0\(device + 1)"
      for (name, value) in [
        ("backend", back), ("backend-id", "0"), ("handle", "\(device)"), ("mac", mac), ("state", "1"),
      ] {
        try tree.write("\(front)/\(name)", value)
      }
      for (name, value) in [
        ("frontend", front), ("frontend-id", "\(domain)"), ("online", "1"), ("handle", "\(device)"),
        ("mac", mac), ("bridge", "lan"), ("state", "1"),
      ] {
        try tree.write("\(back)/\(name)", value)
      }
      for (name, value) in nodes { try tree.write("\(back)/\(name)", value) }
    }
  }

  /// A connected frontend with a control ring, which hears the outside world.
  func connected(_ device: UInt32 = 0, _ options: NetFrontendOptions = .control()) throws -> NetFrontend {
    guard let guest = guests[Self.guest] else { throw WorldFailure("there is no guest") }
    let frontend = try NetFrontend(
      hypervisor: guest, domain: Self.guest, device: device, options: options)
    try frontend.connect(timeoutMilliseconds: worldMilliseconds)
    try awaitPath(to: frontend)
    return frontend
  }

  /// The kernel lets a bridge's port forward some time after its carrier came, and what is sent before is lost:
  /// the first probe that arrives shows that it does.
  func awaitPath(to frontend: NetFrontend) throws {
    for _ in 0..<200 {
      try outside.send(experimentalFrame(0))
      guard try frontend.wait(timeoutMilliseconds: 50) else { continue }
      for queue in frontend.queues {
        if try queue.receiver.nextPacket() != nil { return try frontend.drain() }
      }
    }
    throw WorldFailure("no frame reaches the frontend: \(daemon.lines)")
  }

  /// The guest is gone, with all that it had: `frontend` of the caller must be let go too.
  func killGuest() { guests[Self.guest] = nil }

  /// The queues' numbers.
  func statistics(_ device: UInt32 = 0) throws -> [NetStatistics.Snapshot] {
    try daemon.ask(address(device)) { $0.statistics.map(\.snapshot) }
  }

  /// Pages of the guest that somebody has mapped.
  var mappedPageCount: Int { host.machine.mappedPageCount(of: Self.guest) }

  /// Asks for the interface's end, as a toolstack does, and waits for it.
  func detach(_ device: UInt32 = 0) throws {
    let path = backendPath(device)
    try toolstack.transaction { tree throws(StoreError) in
      try tree.write("\(path)/online", "0")
      try tree.write("\(path)/state", XenbusState.closing.text)
    }
  }

  /// Waits until a condition holds that other threads bring about; the store's events are not enough to see it.
  func wait(_ what: String, until condition: () throws -> Bool) throws {
    let deadline = ContinuousClock.now + .milliseconds(worldMilliseconds)
    while try !condition() {
      guard ContinuousClock.now < deadline else { throw WorldFailure("\(what): \(daemon.lines)") }
      sched_yield()
    }
  }
}

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

  /// Sends a frame to whoever hears it.
  func send(_ frame: [UInt8]) throws {
    let bytes = [UInt8](repeating: 0, count: TapQueue.headerByteCount) + frame
    memory.setBytes(bytes, at: 0)
    let result = queue.send(from: memory.segment(offset: 0, length: bytes.count))
    guard result == bytes.count else { throw WorldFailure("a frame could not be sent: \(result)") }
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

extension NetFrontendOptions {
  /// Two queues at most, and a control ring.
  static func control(queueCount: Int = 2) -> NetFrontendOptions {
    var options = NetFrontendOptions()
    options.queueCount = queueCount
    options.usesControlRing = true
    options.firstRingIndex = 0xFFFF_FFF0
    return options
  }
}

extension NetFrontend {
  /// A packet that came, with the number of its queue.
  struct Arrival {
    var queue: Int
    var packet: NetReceivedPacket
    var bytes: [UInt8]
  }

  /// The next packet on any queue but probes; its pages are posted again.
  func nextArrival() throws -> Arrival {
    while true {
      for queue in queues {
        while let packet = try queue.receiver.nextPacket() {
          let bytes = queue.receiver.bytes()
          queue.receiver.release()
          queue.receiver.post()
          try push()
          if bytes != experimentalFrame(0) {
            return Arrival(queue: queue.number, packet: packet, bytes: bytes)
          }
        }
      }
      guard try wait(timeoutMilliseconds: worldMilliseconds) else { throw WorldFailure("no packet comes") }
    }
  }

  /// Takes what has come, and posts its pages again.
  func drain() throws {
    for queue in queues {
      while try queue.receiver.nextPacket() != nil {}
      queue.receiver.post()
    }
    try push()
  }

  /// Sends a frame from a queue, and waits for its answer.
  func send(_ frame: [UInt8], on number: Int = 0) throws -> NetTransmitCompletion {
    let transmitter = queues[number].transmitter
    guard try transmitter.place(frame) else { throw WorldFailure("no room to send") }
    try push()
    while true {
      if let completion = try transmitter.nextCompletion() { return completion }
      guard try wait(timeoutMilliseconds: worldMilliseconds) else { throw WorldFailure("no answer") }
    }
  }
}

/// A frame of an experimental protocol that nobody answers, with a number in it.
func experimentalFrame(_ number: UInt8, byteCount: Int = 60) -> [UInt8] {
  [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 2, 0, 0, 0, 0, 9, 0x88, 0xB5]
    + (14..<byteCount).map { UInt8(truncatingIfNeeded: $0) &* 3 &+ number }
}
