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
  private(set) var daemon: NetDeviceDaemon
  let outside: OutsideWorld
  private let network: NetworkNamespace
  private let makeDaemon: () throws -> NetDeviceDaemon
  private let directory: URL
  private var shared: [SharedPages] = []
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
    self.network = network
    makeDaemon = { [offer] in
      try NetDeviceDaemon(
        hypervisor: hypervisor, network: network, bridge: "lan", offer: offer, threadCount: threadCount)
    }
    daemon = try makeDaemon()
  }

  /// Another daemon, which finds what the last one has left.
  func startDaemon() throws { daemon = try makeDaemon() }

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

  /// Pages of the guest's that are granted, as long as this world lives.
  func share(
    _ pageCount: Int, _ access: GrantAccess = .readWrite, with domain: DomainID = DomainID(rawValue: 0)
  ) throws -> SharedPages {
    guard let guest = guests[Self.guest] else { throw WorldFailure("there is no guest") }
    shared.append(try guest.openGrantSharing().share(pageCount: pageCount, with: domain, access: access))
    return shared[shared.count - 1]
  }

  /// The guest's own xenstore.
  func guestStore() throws -> StoreClient {
    guard let guest = guests[Self.guest] else { throw WorldFailure("there is no guest") }
    return try guest.openStore()
  }

  /// The number of the interface's TAP; nil when there is none.
  func tapIndex(_ device: UInt32 = 0) throws -> UInt32? {
    try network.run {
      let index = unsafe if_nametoindex("vif\(Self.guest).\(device)")
      return index == 0 ? nil : index
    }
  }

  /// Takes the interface's directories away, as a toolstack does at its end.
  func removeDirectories(_ device: UInt32 = 0) throws {
    let paths = ["/local/domain/\(Self.guest)/device/vif/\(device)", backendPath(device)]
    try toolstack.transaction { tree throws(StoreError) in for path in paths { try tree.remove(path) } }
  }

  /// The guest is gone, with all that it had: `frontend` of the caller must be let go too.
  func killGuest() {
    shared = []
    guests[Self.guest] = nil
  }

  /// The queues' numbers.
  func statistics(_ device: UInt32 = 0) throws -> [NetStatistics.Snapshot] {
    try daemon.ask(address(device)) { $0.statistics.map(\.snapshot) }
  }

  /// What the backend tells that went wrong with an interface.
  func errorNode(_ device: UInt32 = 0) throws -> String? {
    try toolstack.read("/local/domain/0/error/backend/vif/\(Self.guest)/\(device)/error")
  }

  /// Pages of the guest that somebody has mapped.
  var mappedPageCount: Int { host.machine.mappedPageCount(of: Self.guest) }

  /// A round trip of `count` frames on each queue, each checked.
  func traffic(_ frontend: NetFrontend, count: Int) throws {
    for number in 0..<count {
      let frame = experimentalFrame(UInt8(number % 250 + 1), byteCount: 200)
      for queue in frontend.queues {
        #expect(try frontend.send(frame, on: queue.number).status == .okay)
        #expect(try outside.receive() == frame)
      }
      try outside.send(frame)
      #expect(try frontend.nextArrival().bytes == frame)
    }
  }

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
