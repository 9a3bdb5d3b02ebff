import Glibc
import Loopback
import RingKit
import Testing

/// The handshake through a real store: discovery by watches, guarded writes, a guest and a toolstack with
/// connections of their own.
@Suite struct StoreXenbusTests {
  /// A backend daemon's control loop for one kind, as small as it gets. Connections succeed at once.
  final class Daemon {
    let store: StoreClient
    var directory = BackendDirectory(backend: DomainID(rawValue: 0), kinds: ["vbd3"])
    var devices: [DeviceAddress: (nodes: BackendNodes, handshake: BackendHandshake)] = [:]
    var log: [String] = []
    /// Runs between our reading of the nodes and our writing.
    var beforeWriting: (() throws -> Void)?

    init(socket: String) throws {
      store = try StoreClient(socketPath: socket)
      try store.watch(directory.path(of: "vbd3"), token: directory.token(of: "vbd3"))
    }

    /// Serves events until the store says `expected`, at most 10 s for each of them.
    func run(until expected: String, _ isDone: () throws -> Bool) throws {
      while try !isDone() {
        while let event = try store.nextWatchEvent() { directory.note(event) }
        guard let work = directory.next() else {
          var entry = pollfd(fd: store.descriptor, events: Int16(POLLIN), revents: 0)
          guard unsafe poll(&entry, 1, 10_000) == 1 else {
            throw StoreFixture.Failure(description: "10 s without event, awaiting \(expected): \(log)")
          }
          continue
        }
        switch work {
        case .scan(let kind): try scan(kind)
        case .read(let address): try read(address)
        }
      }
    }

    private func scan(_ kind: String) throws {
      let changes = try directory.scan(kind, in: store)
      for address in changes.appeared {
        let nodes = try BackendNodes(address, backend: directory.backend, in: store)
        try store.watch(nodes.frontendState, token: directory.token(ofFrontendOf: address))
        devices[address] = (nodes, BackendHandshake())
      }
      for address in changes.vanished + changes.appeared { try read(address) }
    }

    private func read(_ address: DeviceAddress) throws {
      guard let device = devices[address] else { return }
      let ready = try device.nodes.isHotplugConnected(in: store)
      try handle(.observed(device.nodes.observe(in: store, isHotplugReady: ready)), of: address)
    }

    private func handle(_ event: BackendEvent, of address: DeviceAddress) throws {
      guard let nodes = devices[address]?.nodes, let actions = devices[address]?.handshake.handle(event)
      else {
        return
      }
      for action in actions {
        log.append("\(action)")
        switch action {
        case .publishFeatures(let from, let state):
          let isWritten = try nodes.publishFeatures(from: from, thenState: state, in: store) {
            transaction, path throws(StoreError) in try transaction.write("\(path)/feature-flush-cache", "1")
          }
          if !isWritten { try read(address) }
        case .switchState(let from, let to):
          try beforeWriting?()
          if try !nodes.switchState(from: from, to: to, in: store) { try read(address) }
        case .connect(let generation, _):
          try handle(.connectSucceeded(generation: generation), of: address)
        case .disconnect(let generation):
          try handle(.drained(generation: generation), of: address)
        case .reconfigure: break
        case .reportError(let message):
          try nodes.reportError(message, in: store)
        case .forget:
          try store.unwatch(nodes.frontendState, token: directory.token(ofFrontendOf: address))
          devices[address] = nil
        }
      }
    }
  }

  static let back = "/local/domain/0/backend/vbd3/5/51712"
  static let front = "/local/domain/5/device/vbd/51712"

  /// What libxl writes, in one transaction.
  private func plug(_ toolstack: StoreClient) throws {
    try toolstack.transaction { store throws(StoreError) in
      let zero = DomainID(rawValue: 0)
      let guest = DomainID(rawValue: 5)
      try store.write(Self.back, "")
      try store.setPermissions(
        [
          StorePermission(domain: zero, canRead: false, canWrite: false),
          StorePermission(domain: guest, canRead: true, canWrite: false),
        ], of: Self.back)
      for (node, value) in [("frontend", Self.front), ("frontend-id", "5"), ("online", "1"), ("state", "1")] {
        try store.write("\(Self.back)/\(node)", value)
      }
      try store.write(Self.front, "")
      try store.setPermissions(
        [
          StorePermission(domain: guest, canRead: false, canWrite: false),
          StorePermission(domain: zero, canRead: true, canWrite: false),
        ], of: Self.front)
      for (node, value) in [("backend", Self.back), ("backend-id", "0"), ("state", "1")] {
        try store.write("\(Self.front)/\(node)", value)
      }
    }
  }

  private func makeFixture() throws -> (StoreFixture, Daemon, toolstack: StoreClient, guest: StoreClient) {
    let fixture = try StoreFixture()
    try fixture.server.introduce(domain: 5)
    return (
      fixture, try Daemon(socket: fixture.socket()), try StoreClient(socketPath: fixture.socket()),
      try StoreClient(socketPath: fixture.socket(5))
    )
  }

  @Test func plugConnectUnplug() throws {
    let (fixture, daemon, toolstack, guest) = try makeFixture()
    defer { fixture.server.stop() }
    func awaitState(_ state: XenbusState) throws {
      // The guest reads it, with the permissions it inherited.
      try daemon.run(until: "\(state)") { try guest.state("\(Self.back)/state") == state }
    }
    // The daemon may be there first.
    try daemon.run(until: "the first scan") { daemon.directory.devices.isEmpty }
    try plug(toolstack)
    try awaitState(.initWait)
    #expect(try guest.read("\(Self.back)/feature-flush-cache") == "1")
    try guest.write("\(Self.front)/state", "3")
    try toolstack.write("\(Self.back)/hotplug-status", "connected")
    try awaitState(.connected)
    try guest.write("\(Self.front)/state", "4")

    try toolstack.transaction { store throws(StoreError) in
      try store.write("\(Self.back)/online", "0")
      try store.write("\(Self.back)/state", "5")
    }
    try daemon.run(until: "Closing read") { daemon.devices.values.first?.handshake.own == .closing }
    try guest.write("\(Self.front)/state", "5")
    try guest.write("\(Self.front)/state", "6")
    try awaitState(.closed)
    try daemon.run(until: "forget") { daemon.devices.isEmpty }
    try toolstack.remove(Self.back)
    try daemon.run(until: "the device gone") { daemon.directory.devices.isEmpty }
    #expect(try !toolstack.exists(Self.back))
  }

  @Test func aClosingThatComesBetweenReadingAndWritingStays() throws {
    let (fixture, daemon, toolstack, guest) = try makeFixture()
    defer { fixture.server.stop() }
    try plug(toolstack)
    try toolstack.write("\(Self.back)/hotplug-status", "connected")
    try guest.write("\(Self.front)/state", "3")
    daemon.beforeWriting = {
      daemon.beforeWriting = nil
      try toolstack.write("\(Self.back)/state", "5")
    }
    try daemon.run(until: "Closing read") { daemon.devices.values.first?.handshake.own == .closing }
    #expect(daemon.log.contains { $0.contains("switchState") && $0.contains("to: Connected") })
    #expect(try toolstack.read("\(Self.back)/state") == "5")
  }

  @Test func forcedRemovalIsNotUndone() throws {
    let (fixture, daemon, toolstack, guest) = try makeFixture()
    defer { fixture.server.stop() }
    try plug(toolstack)
    try toolstack.write("\(Self.back)/hotplug-status", "connected")
    try guest.write("\(Self.front)/state", "3")
    try daemon.run(until: "Connected") { try guest.state("\(Self.back)/state") == .connected }
    try toolstack.remove(Self.back)
    try toolstack.remove(Self.front)
    try daemon.run(until: "forget") { daemon.devices.isEmpty && daemon.directory.devices.isEmpty }
    #expect(try !toolstack.exists(Self.back))
    #expect(try !toolstack.exists(Self.front))
  }

  @Test func aGuestThatFloodsItsStateLeavesOneReading() throws {
    let (fixture, daemon, toolstack, guest) = try makeFixture()
    defer { fixture.server.stop() }
    try plug(toolstack)
    try toolstack.write("\(Self.back)/hotplug-status", "connected")
    try daemon.run(until: "InitWait") { try guest.state("\(Self.back)/state") == .initWait }
    for index in 0..<2000 {
      try guest.write("\(Self.front)/state", ["3", "6", "x", "", "99", "1"][index % 6])
      try guest.write("\(Self.front)/state/child\(index % 10)", "x")
    }
    try guest.write("\(Self.front)/state", "6")
    // Replies come behind events: after a call of ours all events of the flood are here.
    _ = try daemon.store.read("domid")
    while let event = try daemon.store.nextWatchEvent() { daemon.directory.note(event) }
    let disk = DeviceAddress(kind: "vbd3", domain: DomainID(rawValue: 5), device: 51712)
    var pending: [BackendDirectory.Work] = []
    while let work = daemon.directory.next() { pending.append(work) }
    // One listing may be left of the plugging; the flood itself leaves one reading.
    #expect(pending.filter { $0 == .read(disk) }.count == 1)
    #expect(pending.filter { $0 != .read(disk) && $0 != .scan(kind: "vbd3") }.isEmpty)
    #expect(pending.count <= 2)
    daemon.directory.note(disk)
    try daemon.run(until: "Closed") { try guest.state("\(Self.back)/state") == .closed }
  }
}
