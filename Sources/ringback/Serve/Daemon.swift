import Blkback
import Foundation
import Logging
import RingKit

/// What the daemon is told on its command line.
struct DaemonConfiguration {
  var kinds: [String]
  var threadCount: Int
  var poolByteCount: Int
  var controlSocketPath: String
  var offer = VbdOffer()
}

/// The control thread: watches xenstore, keeps one ``Vbd`` for each disk, answers on the control socket, stops
/// cleanly. Nothing here is in the way of data: threads that serve rings never wait for it.
final class Daemon: VbdEnvironment {
  let threads: [DataThread<BlockQueue>]
  let bufferShareByteCount: Int
  let offer: VbdOffer
  let post: @Sendable (VbdIdentity, VbdEvent) -> Void
  var store: any StoreSession { client }

  private let host: any Hypervisor
  private let configuration: DaemonConfiguration
  private let logger: Logger
  private let signals: TerminationSignals
  private let inbox: Inbox<(VbdIdentity, VbdEvent)>
  private var client: StoreClient
  private var ownDomain: DomainID
  private var socket: ControlSocket
  private var disks: [VbdIdentity: Vbd] = [:]
  private var budgets: [DomainID: LogBudget] = [:]
  private var nextThread = 0
  private var isStopping = false

  /// Opens everything that can fail before the first disk is looked at.
  init(host: any Hypervisor, configuration: DaemonConfiguration, logger: Logger) throws {
    self.host = host
    self.configuration = configuration
    self.logger = logger
    offer = configuration.offer
    // First of all: threads inherit the signal mask.
    signals = try TerminationSignals()
    client = try host.openStore()
    ownDomain = try client.ownDomain()
    var sizes = DataThreadConfiguration()
    sizes.poolByteCount = configuration.poolByteCount
    bufferShareByteCount = max(BufferPool.largestByteCount, configuration.poolByteCount / 4)
    threads = try (0..<configuration.threadCount).map {
      try DataThread<BlockQueue>(number: $0, hypervisor: host, configuration: sizes)
    }
    let inbox = try Inbox<(VbdIdentity, VbdEvent)>()
    self.inbox = inbox
    post = { inbox.post(($0, $1)) }
    socket = try ControlSocket(path: configuration.controlSocketPath)
  }

  /// Serves until it is told to stop and every disk is drained.
  func run() throws {
    logger.notice(
      "serving \(configuration.kinds.joined(separator: ", ")) in domain \(ownDomain) on \(host.name)",
      metadata: ["threads": "\(threads.count)", "control": "\(configuration.controlSocketPath)"])
    try watchKinds()
    var poll = DescriptorPoll()
    while !(isStopping && disks.isEmpty) {
      poll.set([(client.descriptor, false), (signals.descriptor, false), (inbox.descriptor, false)] + socket.descriptors)
      // The loss of xenstored shows only in a call, so look now and then.
      let ready = try poll.wait(timeoutMilliseconds: 5000)
      while let request = signals.next() { if request == .stop { beginStopping() } }
      for (identity, event) in inbox.take() { disks[identity]?.handle(event) }
      for descriptor in ready where ![client.descriptor, signals.descriptor, inbox.descriptor].contains(descriptor) {
        socket.serve(descriptor) { answer($0) }
      }
      takeWatchEvents()
    }
    threads.forEach { $0.stop() }
    threads.forEach { $0.join() }
    logger.notice("stopped; every disk is drained and its guest keeps its state")
  }

  // MARK: Xenstore

  private func path(of kind: String) -> String { "/local/domain/\(ownDomain)/backend/\(kind)" }

  private func watchKinds() throws {
    for kind in configuration.kinds { try client.watch(path(of: kind), token: kind) }
  }

  /// Events only say where to look: each disk named is looked at once, however many events named it.
  private func takeWatchEvents() {
    var changed: [VbdIdentity] = []
    var kindsToScan: [String] = []
    do throws(StoreError) {
      while let event = try client.nextWatchEvent() {
        if let disk = disks.keys.first(where: { $0.description == event.token }) {
          if !changed.contains(disk) { changed.append(disk) }
        } else if configuration.kinds.contains(event.token) {
          if let disk = identity(in: event.path, kind: event.token) {
            if !changed.contains(disk) { changed.append(disk) }
          } else if !kindsToScan.contains(event.token) {
            kindsToScan.append(event.token)
          }
        }
      }
      for kind in kindsToScan {
        for disk in try scan(kind) where !changed.contains(disk) { changed.append(disk) }
        // A directory that vanished takes its disks with it.
        for disk in disks.keys where disk.kind == kind && !changed.contains(disk) { changed.append(disk) }
      }
    } catch .connectionLost {
      reconnect()
      return
    } catch {
      logger.error("\(error)")
    }
    for disk in changed { look(at: disk) }
  }

  private func look(at identity: VbdIdentity) {
    if let disk = disks[identity] {
      disk.refresh()
      return
    }
    guard !isStopping else { return }
    let directory = "\(path(of: identity.kind))/\(identity.domain)/\(identity.device.number)"
    // A disk that is let go stays in the store until its toolstack has seen it Closed.
    guard let state = try? client.state("\(directory)/state"),
      state != .closed || (try? client.flag("\(directory)/online", default: false)) == true
    else { return }
    let disk = Vbd(identity, directory: directory, environment: self)
    disks[identity] = disk
    log(.information, "found", about: identity)
    disk.refresh()
  }

  private func scan(_ kind: String) throws(StoreError) -> [VbdIdentity] {
    var found: [VbdIdentity] = []
    for domain in try client.list(path(of: kind)) ?? [] {
      for device in try client.list("\(path(of: kind))/\(domain)") ?? [] {
        if let disk = identity(in: "\(path(of: kind))/\(domain)/\(device)", kind: kind) { found.append(disk) }
      }
    }
    return found
  }

  /// The disk that a path below `backend/<kind>` is about; nil when it is about more or less than one.
  private func identity(in path: String, kind: String) -> VbdIdentity? {
    let prefix = self.path(of: kind) + "/"
    guard path.hasPrefix(prefix) else { return nil }
    let parts = path.dropFirst(prefix.count).split(separator: "/", omittingEmptySubsequences: false)
    guard parts.count >= 2,
      let domain = StoreValue.decimal(String(parts[0]), in: 0...DomainID.highestOrdinary.rawValue),
      let device = StoreValue.decimal(String(parts[1]), in: 0...UInt32(1 << 29 - 1))
    else { return nil }
    return VbdIdentity(
      kind: kind, domain: DomainID(rawValue: domain), device: VirtualDevice(number: device))
  }

  /// Guests are served on while xenstored is away; when it is back, everything is looked at anew.
  private func reconnect() {
    logger.error("the connection to xenstored is lost; guests are served on, trying to reconnect")
    while !isStopping {
      do {
        client = try host.openStore()
        ownDomain = try client.ownDomain()
        try watchKinds()
        for disk in disks.values { disk.watchAgain() }
        logger.notice("connected to xenstored again")
        return
      } catch {
        var poll = DescriptorPoll()
        poll.set([(signals.descriptor, false)])
        _ = try? poll.wait(timeoutMilliseconds: 1000)
        while let request = signals.next() { if request == .stop { beginStopping() } }
      }
    }
  }

  // MARK: The disks' environment

  func claimThread(count: Int) -> Int {
    defer { nextThread = (nextThread + count) % threads.count }
    return nextThread
  }

  func log(_ severity: VbdSeverity, _ message: String, about disk: VbdIdentity) {
    let now = MonotonicClock.nowNanoseconds()
    guard let dropped = budgets[disk.domain, default: LogBudget()].allow(atNanoseconds: now) else { return }
    var metadata: Logger.Metadata = ["disk": "\(disk)"]
    if dropped > 0 { metadata["dropped"] = "\(dropped) lines" }
    let level: Logger.Level =
      switch severity {
      case .information: .info
      case .warning: .warning
      case .failure: .error
      }
    logger.log(level: level, "\(message)", metadata: metadata)
  }

  func forget(_ disk: VbdIdentity) {
    log(.information, "gone", about: disk)
    disks[disk] = nil
    if !disks.keys.contains(where: { $0.domain == disk.domain }) { budgets[disk.domain] = nil }
  }

  private func beginStopping() {
    guard !isStopping else { return }
    logger.notice("stopping: finishing the requests in flight of \(disks.count) disks")
    isStopping = true
    for disk in Array(disks.values) { disk.stop() }
  }

  // MARK: Questions

  private func answer(_ question: String) -> String {
    switch question {
    case "list":
      return (try? disks.values.map { DeviceReport($0) }.sorted { ($0.domain, $0.vdev) < ($1.domain, $1.vdev) }.json())
        ?? "[]"
    default:
      return "{\"error\": \"unknown question; known is: list\"}"
    }
  }
}

extension DeviceReport {
  /// What the daemon knows of a disk.
  init(_ disk: Vbd) {
    domain = disk.identity.domain.rawValue
    vdev = disk.identity.device.number
    name = disk.identity.device.description
    kind = disk.identity.kind
    state = disk.state.map { "\($0)" } ?? "none"
    image = disk.configuration?.imagePath ?? ""
    mode = disk.configuration.map { $0.isWritable ? "w" : "r" } ?? ""
    error = nil
    guard let (queues, slotCount) = disk.connectionNumbers else { return }
    var numbers = Statistics()
    for queue in queues { numbers.add(queue.snapshot) }
    numbers.queues = queues.count
    numbers.ringSlots = slotCount
    numbers.persistentGrants = disk.usesPersistentGrants
    statistics = numbers
  }
}
