import Foundation
import Netback
import RingKit
import Synchronization

/// A small network backend for tests of the frontend: it follows the frontend's states as Linux's netback
/// does, and sends every packet that comes back to where it came from, or does what a test tells it.
///
/// It runs on a thread of its own, and serves one interface.
final class NetModelBackend: Sendable {
  /// How it is to behave.
  struct Script: Sendable {
    /// Nodes of its offer.
    var features: [String: String] = [
      "feature-rx-copy": "1", "feature-split-event-channels": "1", "multi-queue-max-queues": "4",
      "feature-sg": "1", "feature-gso-tcpv4": "1", "feature-gso-tcpv6": "1", "feature-ipv6-csum-offload": "1",
      "feature-multicast-control": "1", "feature-dynamic-multicast-control": "1",
      "feature-xdp-headroom": "1", "feature-ctrl-ring": "1",
    ]
    /// Whether it becomes Connected by itself.
    var connects = true
    /// Whether it takes packets by itself.
    var echoes = true
    /// Whether it looks for pages by itself while packets wait for some.
    var looksForPages = true
    /// What it sends for a packet, if anything: the packet itself unless told otherwise.
    var reply: @Sendable (NetModelPacket) -> NetModelPacket? = { $0 }
  }

  private enum Message: Sendable {
    case body(@Sendable (NetModelConnection) -> Void)
    case stop
  }

  private let inbox: Mailbox<Message>
  private let ended = DispatchSemaphore(value: 0)
  private let failure = Mutex<String?>(nil)

  init(hypervisor: any Hypervisor, path: String, frontendPath: String, frontend: DomainID, script: Script)
    throws
  {
    let inbox = try Mailbox<Message>()
    self.inbox = inbox
    let thread = Thread { [self] in
      do {
        let connection = try NetModelConnection(
          hypervisor: hypervisor, path: path, frontendPath: frontendPath, frontend: frontend, script: script)
        try Self.run(connection, inbox)
      } catch {
        failure.withLock { $0 = "\(error)" }
      }
      ended.signal()
    }
    thread.name = "model"
    thread.start()
  }

  private static func run(_ connection: NetModelConnection, _ inbox: Mailbox<Message>) throws {
    var poll = DescriptorPoll()
    poll.set([
      (connection.store.descriptor, false), (connection.events.descriptor, false), (inbox.descriptor, false),
    ])
    try connection.begin()
    while true {
      for message in inbox.take() {
        switch message {
        case .body(let body): body(connection)
        case .stop: return
        }
      }
      try connection.look()
      try connection.serve()
      // A ring that holds some pages and not enough asks for no event.
      let hasParked = connection.script.looksForPages && connection.queues.contains { $0.hasParked }
      _ = try poll.wait(timeoutMilliseconds: hasParked ? 5 : 1000)
    }
  }

  /// Has the backend's thread do something, and gives what came of it.
  @discardableResult
  func perform<Value: Sendable>(
    _ body: @escaping @Sendable (NetModelConnection) throws -> Value
  ) throws -> Value {
    let result = Mutex<Result<Value, any Error>?>(nil)
    let done = DispatchSemaphore(value: 0)
    inbox.post(
      .body { connection in
        let value = Result { try body(connection) }
        result.withLock { $0 = value }
        done.signal()
      })
    guard done.wait(timeout: .now() + 20) == .success, let result = result.withLock({ $0 }) else {
      throw WorldFailure("the model backend hangs: \(failure.withLock { $0 } ?? "")")
    }
    return try result.get()
  }

  /// Ends it without a word to the frontend; a failure is thrown.
  func stop() throws {
    inbox.post(.stop)
    guard ended.wait(timeout: .now() + 20) == .success else {
      throw WorldFailure("the model backend does not stop")
    }
    if let failure = failure.withLock({ $0 }) { throw WorldFailure("the model backend: \(failure)") }
  }
}

/// What belongs to the backend's thread.
final class NetModelConnection {
  let store: StoreClient
  let events: any EventChannels
  let grants: any GrantTable
  let path: String
  let frontendPath: String
  let frontend: DomainID
  let script: NetModelBackend.Script
  private(set) var queues: [NetModelQueue] = []
  private(set) var control: NetModelControl?
  /// States of the frontend in the order in which they were seen, each change once.
  private(set) var walk: [XenbusState] = []
  /// The frontend's nodes, as they were when it became connected.
  private(set) var keys: [String: String] = [:]
  private var isConnected = false

  init(
    hypervisor: any Hypervisor, path: String, frontendPath: String, frontend: DomainID,
    script: NetModelBackend.Script
  ) throws {
    store = try hypervisor.openStore()
    events = try hypervisor.openEventChannels()
    grants = try hypervisor.openGrantTable()
    self.path = path
    self.frontendPath = frontendPath
    self.frontend = frontend
    self.script = script
  }

  func begin() throws {
    for (name, value) in script.features { try store.write("\(path)/\(name)", value) }
    try setState(.initWait)
    try store.watch("\(frontendPath)/state", token: "frontend")
  }

  func setState(_ state: XenbusState) throws { try store.write("\(path)/state", state.text) }

  /// Follows the frontend (Linux, xen-netback's xenbus.c, frontend_changed).
  func look() throws {
    while try store.nextWatchEvent() != nil {}
    guard let state = try store.state("\(frontendPath)/state") else { return }
    guard state != walk.last else { return }
    walk.append(state)
    switch state {
    case .initialising:
      if try store.state("\(path)/state") == .closed { try setState(.initWait) }
    case .connected:
      guard !isConnected else { return }
      try attach()
      if script.connects { try setState(.connected) }
    case .reconfiguring: try setState(.reconfigured)
    case .closing: try setState(.closing)
    case .closed:
      detach()
      try setState(.closed)
    default: break
    }
  }

  private func attach() throws {
    keys = try nodes(below: frontendPath, prefix: "")
    let count = keys["multi-queue-num-queues"].flatMap(Int.init) ?? 1
    for number in 0..<count {
      queues.append(
        try NetModelQueue(
          prefix: count > 1 ? "queue-\(number)/" : "", keys: keys, frontend: frontend, grants: grants,
          events: events))
    }
    if keys["ctrl-ring-ref"] != nil {
      control = try NetModelControl(keys: keys, frontend: frontend, grants: grants, events: events)
    }
    isConnected = true
  }

  private func nodes(below path: String, prefix: String) throws -> [String: String] {
    var found: [String: String] = [:]
    for name in try store.list(path) ?? [] {
      found[prefix + name] = try store.read("\(path)/\(name)")
      found.merge(try nodes(below: "\(path)/\(name)", prefix: "\(prefix)\(name)/")) { old, _ in old }
    }
    return found
  }

  private func detach() {
    for queue in queues { for port in queue.ports { events.unbind(port) } }
    if let control { events.unbind(control.port) }
    queues = []
    control = nil
    isConnected = false
  }

  /// Does what the rings ask for.
  func serve() throws {
    while let port = events.nextPending() { events.unmask(port) }
    try control?.serve(events)
    for queue in queues { try queue.flush(grants, events) }
    guard script.echoes else { return }
    for queue in queues {
      while let packet = try queue.take(grants, events) {
        if let reply = script.reply(packet) { try queue.send(reply, grants, events) }
      }
    }
  }
}
