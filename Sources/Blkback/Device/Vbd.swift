public import RingKit

/// One disk from the day its directory appears until it goes: reads its nodes, lets the handshake decide, and
/// does what it says. Runs on the control thread; the data path lives in its ``BlockConnection``.
public final class Vbd {
  /// Which disk.
  public let identity: DeviceAddress
  unowned let environment: any VbdEnvironment
  /// The daemon's offer when the disk was found, settled for its threads: what was announced is kept to.
  let offer: VbdOffer
  private(set) var handshake = BackendHandshake()
  /// The toolstack's description, once read.
  public internal(set) var configuration: VbdConfiguration?
  /// What the frontend is told of the disk, and what its requests are judged by; kept while paused.
  public internal(set) var properties: VbdProperties?
  /// True while the image is let go and requests stay in their rings: ``pause(done:)``.
  public internal(set) var isPaused = false
  var image: (any BlockStore)?
  /// Tells one opened image's losses from another's.
  var mediumNumber: UInt32 = 0
  var health = DiskHealth()
  var connection: BlockConnection?
  private var openingGeneration: UInt32?
  private var drainsWhenOpened = false
  private var isDraining = false
  /// Its nodes, once the toolstack's were found to be in order; the frontend's state is watched from then on.
  private(set) var nodes: BackendNodes?
  /// The commands that wait for their turn, and what the present one waits for.
  var commands = VbdCommands()
  /// In InitWait without an image, because a hotplug script is to tell what is wrong with it.
  private var lacksFeatures = false
  /// What was told of things that last, by concern.
  var told: [String: String] = [:]
  /// What `params` said when it could not be followed.
  var refusedMedium: String?
  /// The guest's wish to eject, as last read.
  var ejectIsWanted = false
  /// The eject node is watched.
  var watchesEject = false
  /// Holds the queues to the disk's limits, through all its connections.
  let limiter = RateLimiter()

  /// A disk whose directory was found.
  public init(_ identity: DeviceAddress, environment: any VbdEnvironment) {
    self.identity = identity
    self.environment = environment
    offer = environment.offer.settled(threadCount: environment.threads.count)
  }

  /// True while the image is open.
  public var hasImage: Bool { image != nil }

  /// Where the disk stands.
  public var state: XenbusState? { handshake.own }

  /// The queues' numbers and the slots of each ring, while a connection exists.
  public var connectionNumbers: (queues: [BlockStatistics], slotCount: Int)? {
    connection.map { ($0.statistics, $0.slotCount) }
  }

  /// Whether guest pages stay mapped in the present connection.
  public var usesPersistentGrants: Bool { connection?.usesPersistentGrants ?? false }

  /// Arms the frontend's watch on a new connection to xenstore and looks at everything.
  public func watchAgain() {
    if let nodes { try? watchFrontend(nodes) }
    refresh()
  }

  // MARK: Events

  /// Reads all nodes that matter and acts on them. Called for every watch event: what changed does not
  /// matter.
  public func refresh() {
    do throws(VbdError) {
      let nodes = try findNodes()
      do throws(StoreError) {
        let waits = try waitsForHotplug(nodes)
        let isReady = try waits ? nodes.isHotplugConnected(in: environment.store) : true
        if lacksFeatures, isReady {
          lacksFeatures = false
          publish(from: .initWait, thenState: .initWait)
        }
        act(on: .observed(try nodes.observe(in: environment.store, isHotplugReady: isReady)))
        if handshake.own != nil, !handshake.isForgotten { try followNodes(nodes) }
      } catch {
        throw VbdError(error)
      }
      removeIfAbandoned(nodes)
    } catch {
      environment.log(.failure, error.description, about: identity)
    }
  }

  /// The directory went: there is nobody left to shake hands with.
  public func vanish() {
    act(on: .observed(BackendObservation(own: nil, frontend: nil, isOnline: false, isHotplugReady: false)))
  }

  /// Takes what data threads report.
  public func handle(_ event: VbdEvent) {
    switch event {
    case .opened(let generation, let failure):
      guard generation == openingGeneration else { return }
      openingGeneration = nil
      if failure != nil { connection = nil }
      if drainsWhenOpened {
        drainsWhenOpened = false
        close(generation: generation)
      } else if let failure {
        act(on: .connectFailed(generation: generation, message: failure.description))
      } else {
        announceProcess()
        act(on: .connectSucceeded(generation: generation))
        // An earlier frontend's loss is this one's too.
        if health.lossErrno != 0 { reportLoss(errno: health.lossErrno) }
      }
    case .drained(let generation):
      connection = nil
      isDraining = false
      act(on: .drained(generation: generation))
    case .faulted(let generation, let error):
      act(on: .connectionFailed(generation: generation, message: error.description))
    case .answered(let question, let failure):
      commands.take(question)?(failure)
    case .lostData(let medium, let errno):
      if medium == mediumNumber { reportLoss(errno: errno) }
    case .told(let severity, let message):
      environment.log(severity, message, about: identity)
    }
    advanceCommands()
    if let nodes { removeIfAbandoned(nodes) }
  }

  /// The daemon stops: drains, and leaves the nodes for the next daemon.
  public func stop() { act(on: .stop) }

  private func act(on event: BackendEvent) {
    for action in handshake.handle(event) {
      switch action {
      case .publishFeatures(let from, let state): publish(from: from, thenState: state)
      case .connect(let generation, _): connect(generation: generation)
      case .disconnect(let generation): disconnect(generation: generation)
      case .switchState(let from, let state): switchState(from: from, to: state)
      case .reportError(let message): report(message)
      case .forget: forget()
      }
    }
  }

  /// True while queues are neither being made nor ended.
  var isConnectionStable: Bool { openingGeneration == nil && !isDraining }

  func findNodes() throws(VbdError) -> BackendNodes {
    if let nodes { return nodes }
    do throws(StoreError) {
      let found = try BackendNodes(identity, backend: environment.ownDomain, in: environment.store)
      try watchFrontend(found)
      nodes = found
      return found
    } catch {
      throw VbdError(error)
    }
  }

  /// libxl runs the hotplug script only after it has seen InitWait (libxl_device.c, device_hotplug), so the
  /// disk stays there until the script has said that it is done.
  func waitsForHotplug(_ nodes: BackendNodes) throws(StoreError) -> Bool {
    try environment.store.read("\(nodes.directory)/script").map { !$0.isEmpty } ?? false
  }

  // MARK: Actions

  /// Drops what was read of the device. Initialising is what a toolstack writes into a new one, and it may have put
  /// it into the place of an old one without our seeing the directory gone.
  private func forgetDescription() {
    if let nodes { unwatchFrontend(nodes) }
    (nodes, configuration, properties, image) = (nil, nil, nil, nil)
    (isPaused, ejectIsWanted, lacksFeatures, refusedMedium) = (false, false, false, nil)
  }

  private func publish(from: XenbusState, thenState state: XenbusState) {
    if from == .initialising { forgetDescription() }
    do throws(VbdError) {
      try write(featureNodes(), from: from, to: state)
      stepAside()
    } catch {
      report(error.description)
      if state == .initWait, awaitsScript {
        // libxl runs no script before InitWait and gives up after 10 s without a word; the script opens the image
        // too and says why it cannot be had.
        lacksFeatures = (try? write([], from: from, to: state)) ?? false
        return
      }
      // As after a connection that failed: Closing, which ends as Closed, with the reason in the error node.
      _ = try? write([], from: from, to: .closing)
      refresh()
    }
  }

  /// True for a device whose hotplug script has not come to its end.
  private var awaitsScript: Bool {
    guard let nodes else { return false }
    do throws(StoreError) {
      guard try waitsForHotplug(nodes) else { return false }
      return try !nodes.isHotplugConnected(in: environment.store)
    } catch {
      return false
    }
  }

  private func featureNodes() throws(VbdError) -> [VbdNode] {
    let process = environment.statisticsProcess.map { VbdNode("kthread-pid", String($0)) }
    return try offer.nodes(for: knownProperties()) + (process.map { [$0] } ?? [])
  }

  /// A daemon that takes over a connected disk does not publish its features anew.
  private func announceProcess() {
    guard let process = environment.statisticsProcess.map({ String($0) }), let nodes else { return }
    do {
      if try environment.store.read("\(nodes.directory)/kthread-pid") != process {
        try writePrivate([VbdNode("kthread-pid", process)])
      }
    } catch {
      environment.log(.warning, "xentop will not find its numbers: \(error)", about: identity)
    }
  }

  private func switchState(from: XenbusState, to state: XenbusState) {
    do throws(VbdError) {
      // Linux reads the disk's properties at Connected, so they are written again, for it and for a disk that
      // changed.
      let features = state == .connected ? try featureNodes() : []
      try write(features, from: from, to: state)
      environment.log(.information, "\(from) -> \(state)", about: identity)
    } catch {
      report(error.description)
    }
  }

  /// Writes nodes and our state in one transaction; false, and nothing written, when somebody else has written
  /// our state meanwhile.
  @discardableResult
  func write(
    _ features: [VbdNode], from: XenbusState, to state: XenbusState
  ) throws(VbdError) -> Bool {
    let nodes = try findNodes()
    let isOurs: Bool
    do throws(StoreError) {
      isOurs = try nodes.publishFeatures(from: from, thenState: state, in: environment.store) {
        (tree, directory) throws(StoreError) in
        for feature in features { try feature.write(to: tree, directory) }
      }
      if state == .connected, from != state { try nodes.clearError(in: environment.store) }
    } catch {
      throw VbdError(error)
    }
    if !isOurs { refresh() }
    return isOurs
  }

  private func connect(generation: UInt32) {
    do throws(VbdError) {
      let properties = try knownProperties()
      let parameters = try FrontendParameters.read(
        from: environment.store, frontendPath: findNodes().frontendDirectory, offer: offer, for: properties)
      var plan = BlockConnectionPlan(
        domain: identity.domain, parameters: parameters, limits: try offer.limits(for: properties),
        store: isPaused ? nil : image, health: health, limiter: limiter,
        bufferShareByteCount: environment.bufferShareByteCount)
      plan.persistentPageLimit = offer.persistentPageLimit
      plan.persistentIdleNanoseconds = UInt64(offer.persistentIdleMilliseconds) * 1_000_000
      let (identity, post) = (identity, environment.post)
      let connection = BlockConnection(plan: plan) { post(identity, .faulted(generation: generation, $0)) }
      self.connection = connection
      openingGeneration = generation
      environment.log(.information, "connecting: \(parameters)", about: identity)
      connection.open(
        on: environment.threads, firstThread: environment.claimThread(count: parameters.queues.count)
      ) {
        post(identity, .opened(generation: generation, failure: $0))
      }
    } catch {
      act(on: .connectFailed(generation: generation, message: error.description))
    }
  }

  private func disconnect(generation: UInt32) {
    if openingGeneration == generation {
      drainsWhenOpened = true
    } else {
      close(generation: generation)
    }
  }

  private func close(generation: UInt32) {
    let (identity, post) = (identity, environment.post)
    isDraining = true
    guard let connection else {
      post(identity, .drained(generation: generation))
      return
    }
    connection.close { post(identity, .drained(generation: generation)) }
  }

  /// Tells the log and the node that toolstacks look at (xenbus_client.c, xenbus_dev_error).
  func report(_ message: String) {
    environment.log(.failure, message, about: identity)
    do throws(StoreError) {
      try nodes?.reportError(message, in: environment.store)
    } catch {
      environment.log(.warning, "the error node could not be written: \(error)", about: identity)
    }
  }

  /// What was told last is mended.
  func clearReport() {
    do throws(StoreError) {
      try nodes?.clearError(in: environment.store)
    } catch {
      environment.log(.warning, "the error node could not be removed: \(error)", about: identity)
    }
  }

  private func forget() {
    if let nodes {
      unwatchFrontend(nodes)
      try? nodes.clearError(in: environment.store)
    }
    cancelCommands()
    // Let go at once, so that whoever waits for the image gets it.
    image = nil
    environment.forget(identity)
  }

  /// A disk attached by `ringback attach` has no other toolstack: when its domain is gone, its nodes go with
  /// it.
  private func removeIfAbandoned(_ nodes: BackendNodes) {
    guard handshake.own == .closed, handshake.frontend == nil, case .idle = handshake.link else { return }
    do throws(StoreError) {
      let store = environment.store
      guard try store.read("\(nodes.directory)/toolstack") == "ringback",
        try !store.exists("/local/domain/\(identity.domain)")
      else { return }
      try store.transaction { tree throws(StoreError) in
        try tree.remove(
          nodes.directory, pruningBelow: "/local/domain/\(environment.ownDomain)/backend/\(identity.kind)")
      }
    } catch {
      environment.log(
        .warning, "the nodes of a domain that is gone could not be removed: \(error)", about: identity)
    }
  }
}
