import Blkback
import Foundation
import Logging
import Netback
import RingKit

/// The control thread: watches xenstore, keeps one ``Vbd`` for each disk, answers on the control socket,
/// stops cleanly. Nothing here is in the way of data: threads that serve rings never wait for it.
final class Daemon: VbdEnvironment {
  let threads: [DataThread<BlockQueue>]
  let bufferShareByteCount: Int
  /// For disks that are found from here on.
  var offer: VbdOffer
  var defaultLimits: RateLimits
  let post: @Sendable (DeviceAddress, VbdEvent) -> Void
  var store: any StoreSession { client }
  var statisticsProcess: Int32? {
    sharedStatistics == nil ? nil : ProcessInfo.processInfo.processIdentifier
  }

  let host: any Hypervisor
  let configuration: DaemonConfiguration
  var logger: Logger
  /// What is in force of the configuration.
  var settings: DaemonSettings
  var service: ServiceNotices
  var pulses: ThreadPulses
  /// Data threads of which was told that they do not answer.
  var silentThreads: Set<Int> = []
  private let signals: TerminationSignals
  private let inbox: Mailbox<(DeviceAddress, VbdEvent)>
  private var client: StoreClient
  private(set) var ownDomain: DomainID
  private(set) var directory: BackendDirectory
  var socket: ControlSocket
  var disks: [DeviceAddress: Vbd] = [:]
  var vifs: DaemonVifs
  var metricsServer: MetricsServer?
  var metricsFile: MetricsFile?
  var sharedStatistics: SharedStatistics?
  var kernelWait = KernelDeviceWait()
  var chores = DaemonChores()
  private var budgets: [DomainID: LogBudget] = [:]
  private var nextThread = 0
  var taps: DaemonTaps
  let lending: Lending
  var isServing = false
  var isStopping = false

  /// Opens everything that can fail before the first disk is looked at.
  init(host: any Hypervisor, configuration: DaemonConfiguration, logger: Logger) throws {
    self.host = host
    self.configuration = configuration
    self.logger = logger
    offer = configuration.offer
    defaultLimits = configuration.defaultLimits
    settings = configuration.settings
    service = ServiceNotices.takeFromEnvironment()
    pulses = ThreadPulses(threadCount: configuration.threadCount)
    // First of all: threads inherit the signal mask.
    signals = try TerminationSignals()
    // libxenstore sets and restores this signal's action around each call.
    signal(SIGPIPE, SIG_IGN)
    DescriptorLimit.raise()
    client = try host.openStore()
    ownDomain = try client.ownDomain()
    directory = BackendDirectory(backend: ownDomain, kinds: configuration.kinds)
    let sizes = configuration.threads
    // The least is one request of 256 segments with the medium's blocks that it covers in part.
    bufferShareByteCount = max(2 << 20, sizes.poolByteCount / 4)
    threads = try (0..<configuration.threadCount).map {
      try DataThread<BlockQueue>(number: $0, hypervisor: host, configuration: sizes)
    }
    let inbox = try Mailbox<(DeviceAddress, VbdEvent)>()
    self.inbox = inbox
    vifs = try DaemonVifs()
    post = { inbox.post(($0, $1)) }
    lending = try Lending()
    taps = DaemonTaps(file: configuration.tapFile, directory: configuration.tapDirectory)
    socket = try ControlSocket(path: configuration.controlSocketPath)
    metricsServer = try configuration.metricsAddress.map { try MetricsServer($0) }
    metricsFile = configuration.metricsFile
    openSharedStatistics()
    lending.owner = self
    taps.door = lending
    restoreTaps()
  }

  /// Serves until it is told to stop and every disk is drained.
  func run() throws {
    logger.notice(
      "serving \(configuration.kinds.joined(separator: ", ")) in domain \(ownDomain) on \(host.name)",
      metadata: [
        "threads": "\(threads.count)", "engine": "\(engineName)",
        "control": "\(configuration.controlSocketPath)",
      ])
    if let reason = threads.lazy.compactMap(\.engineFallback).first {
      logger.warning("\(reason); libaio does its work")
    }
    try watchKinds()
    watchLinks()
    // The watches' first events lead to the same again, which costs little and cannot be waited for.
    noteKinds()
    takeWatchEvents()
    tidyLinks()
    beginServing()
    var poll = DescriptorPoll()
    while !(isStopping && disks.isEmpty && vifs.devices.isEmpty) {
      poll.set(
        [
          client.descriptor, signals.descriptor, inbox.descriptor, vifs.inbox.descriptor,
          vifs.bell.descriptor,
        ].map { ($0, false) }
          + (vifs.watch.map { [($0.descriptor, false)] } ?? [])
          + socket.descriptors + (metricsServer?.descriptors ?? []) + lending.descriptors)
      let ready = try poll.wait(timeoutMilliseconds: timeToNextChore())
      takeSignals()
      for (identity, event) in inbox.take() { disks[identity]?.handle(event) }
      takeVifEvents()
      takeLinkChanges()
      let now = MonotonicClock.nowNanoseconds()
      for descriptor in ready {
        if let (question, ticket) = socket.serve(descriptor, atNanoseconds: now) {
          answer(question, to: ticket)
        }
        metricsServer?.serve(descriptor, atNanoseconds: now) { metrics() }
        lending.serve(descriptor)
      }
      takeWatchEvents()
      serveCaptures(atNanoseconds: now)
      doChores(atNanoseconds: now)
    }
    lending.closeAll()
    endTelling()
    threads.forEach { $0.stop() }
    vifs.threads.forEach { $0.stop() }
    threads.forEach { $0.join() }
    vifs.threads.forEach { $0.join() }
    logger.notice("stopped; everything in flight has ended, and guests keep their devices")
  }

  /// What carries the data threads' I/O.
  var engineName: String {
    Set(threads.map { EngineChoice($0.engine).rawValue }).sorted().joined(separator: "+")
  }

  // MARK: Xenstore

  private func watchKinds() throws {
    for kind in directory.kinds {
      // Where they cannot be cleared they are only a nuisance.
      try? BackendNodes.clearStaleErrors(of: kind, backend: ownDomain, in: client)
      try client.watch(directory.path(of: kind), token: directory.token(of: kind))
    }
  }

  /// Has all kinds looked through.
  private func noteKinds() {
    for kind in directory.kinds {
      directory.note(WatchEvent(path: directory.path(of: kind), token: directory.token(of: kind)))
    }
  }

  /// Events only say where to look: each disk named is looked at once, however many events named it.
  private func takeWatchEvents() {
    do throws(StoreError) {
      while let event = try client.nextWatchEvent() { directory.note(event) }
      while let work = directory.next() {
        switch work {
        case .scan(let kind):
          let changes = try directory.scan(kind, in: client)
          for path in changes.ignored { logger.warning("backend/\(path) is no device, ignored") }
          for address in changes.vanished {
            kernelWait.forget(address)
            if let disk = disks[address] {
              disk.vanish()
            } else if let vif = vifs.devices[address] {
              vif.vanish()
            } else {
              try? BackendNodes.clearError(of: address, backend: ownDomain, in: client)
            }
            noteGone()
          }
          for address in changes.appeared {
            try look(at: address)
            // Each may take seconds.
            tellService(atNanoseconds: MonotonicClock.nowNanoseconds())
          }
        case .read(let address):
          try look(at: address)
        }
      }
    } catch .connectionLost {
      reconnect()
    } catch {
      logger.error("\(error)")
    }
  }

  func look(at address: DeviceAddress) throws(StoreError) {
    if let disk = disks[address] {
      disk.refresh()
      return
    }
    let base = "\(directory.path(of: address.kind))/\(address.domain)/\(address.device)"
    // A device that is let go stays in the store until its toolstack has seen it Closed.
    let isOnline = try client.read("\(base)/online") == "1"
    if address.kind == DaemonVifs.kind {
      return lookAtVif(address, state: (try? client.state("\(base)/state")) ?? nil, isOnline: isOnline)
    }
    guard !isStopping, let state = try? client.state("\(base)/state"), state != .closed || isOnline else {
      kernelWait.forget(address)
      return
    }
    let now = MonotonicClock.nowNanoseconds()
    guard state != .initialising || kernelWait.mayTake(address, atNanoseconds: now) else { return }
    let disk = Vbd(address, environment: self)
    disks[address] = disk
    tellComingOrGoing("found", of: address)
    disk.refresh()
  }

  /// Guests are served on while xenstored is away; when it is back, everything is looked at anew.
  private func reconnect() {
    logger.error("the connection to xenstored is lost; guests are served on, trying to reconnect")
    while !isStopping {
      do {
        client = try host.openStore()
        ownDomain = try client.ownDomain()
        try watchKinds()
        noteKinds()
        for disk in disks.values { disk.watchAgain() }
        for vif in vifs.devices.values { vif.watchAgain() }
        logger.notice("connected to xenstored again")
        return
      } catch {
        var poll = DescriptorPoll()
        poll.set([(signals.descriptor, false)])
        _ = try? poll.wait(timeoutMilliseconds: timeToService(atMostMilliseconds: 1000))
        takeSignals()
        tellService(atNanoseconds: MonotonicClock.nowNanoseconds())
      }
    }
  }

  // MARK: The disks' environment

  func frontendToken(of disk: DeviceAddress) -> String { directory.token(ofFrontendOf: disk) }

  var serverName: String? { ServerProcess.own?.description }

  func isServing(_ server: String) -> Bool { ServerProcess(server)?.isAlive ?? false }

  func isLettingGo(ofImage parameters: String, besides disk: DeviceAddress) -> Bool {
    disks.values.contains { $0.identity != disk && $0.isAboutToLetGo(of: parameters) }
  }

  func claimThread(count: Int) -> Int {
    defer { nextThread = (nextThread + count) % threads.count }
    return nextThread
  }

  func log(_ severity: DeviceSeverity, _ message: String, about disk: DeviceAddress) {
    let now = MonotonicClock.nowNanoseconds()
    guard let dropped = budgets[disk.domain, default: LogBudget()].allow(atNanoseconds: now) else { return }
    write(severity, message, about: disk, droppedBefore: dropped)
  }

  /// What only a toolstack brings about is always told: no guest can fill the log with it.
  func tellComingOrGoing(_ message: String, of disk: DeviceAddress) {
    let dropped = budgets[disk.domain]?.takeSuppressedCount() ?? 0
    write(.information, message, about: disk, droppedBefore: dropped)
  }

  private func write(
    _ severity: DeviceSeverity, _ message: String, about disk: DeviceAddress, droppedBefore dropped: Int
  ) {
    var metadata: Logger.Metadata = [disk.kind == DaemonVifs.kind ? "vif" : "disk": "\(disk)"]
    if dropped > 0 { metadata["dropped"] = "\(dropped) lines" }
    logger.log(level: Logger.Level(severity), "\(message)", metadata: metadata)
  }

  func forget(_ disk: DeviceAddress) {
    disks[disk] = nil
    noteGone()
    // Its toolstack may have made the device anew already.
    directory.note(disk)
    for other in Array(disks.values) { other.imageMayBeFree() }
    sharedStatistics?.forget(disk)
    tellComingOrGoing("gone", of: disk)
    dropBudget(of: disk.domain)
  }

  /// Has a device read again.
  func note(_ address: DeviceAddress) { directory.note(address) }

  /// A domain without devices needs no budget for its messages.
  func dropBudget(of domain: DomainID) {
    let devices = Array(disks.keys) + Array(vifs.devices.keys)
    if !devices.contains(where: { $0.domain == domain }) { budgets[domain] = nil }
  }

  private func takeSignals() {
    while let request = signals.next() {
      switch request {
      case .stop: beginStopping()
      case .reload: reload()
      }
    }
  }

  private func beginStopping() {
    guard !isStopping else { return }
    service.tell(.stopping)
    logger.notice(
      "stopping: finishing what is in flight of \(disks.count) disks and \(vifs.devices.count) interfaces")
    isStopping = true
    for vif in Array(vifs.devices.values) { vif.stop() }
    for disk in Array(disks.values) { disk.stop() }
  }
}

extension Logger.Level {
  /// How a disk's messages are logged.
  init(_ severity: DeviceSeverity) {
    self =
      switch severity {
      case .information: .info
      case .warning: .warning
      case .failure: .error
      }
  }
}
