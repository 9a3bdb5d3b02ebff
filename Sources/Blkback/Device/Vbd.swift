public import RingKit

/// One disk from the day its directory appears until it goes: reads its nodes, lets the handshake decide, and
/// does what it says. Runs on the control thread; the data path lives in its ``BlockConnection``.
public final class Vbd {
  /// Which disk.
  public let identity: DeviceAddress
  unowned let environment: any VbdEnvironment
  /// The daemon's offer when the disk was found, settled for its threads: what was announced is kept to.
  let offer: VbdOffer
  var handshake = BackendHandshake()
  /// The toolstack's description, once read.
  public internal(set) var configuration: VbdConfiguration?
  /// What the frontend is told of the disk, and what its requests are judged by; kept while paused.
  public internal(set) var properties: VbdProperties?
  /// True while the image is let go and requests stay in their rings: ``pause(done:)``.
  public internal(set) var isPaused = false
  var image: (any BlockStore)? { didSet { (claim, isLent) = (nil, false) } }
  /// True while the image is let go for others to use.
  public internal(set) var isLent = false
  /// What keeps others from having an image for themselves that a ring will need.
  var claim: StorageFile?
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
  /// What was told of things that last, by concern.
  var told: [String: String] = [:]
  /// What `params` said when it could not be followed.
  var refusedMedium: String?
  /// Why the disk cannot be served although it is in InitWait: its script is still to come, and reports it to
  /// libxl's user. The next try is made when the disk connects.
  public internal(set) var trouble: VbdError?
  /// How far the toolstack's script is.
  var hotplug = HotplugProgress.notNeeded
  /// What the handshake has asked for and is not done yet, in order.
  private var actions: [BackendAction] = []
  private var isActing = false
  /// What happened while actions were under way.
  private var mustRefresh = false
  /// The image is being closed for good; nothing is looked at or written before that is done.
  private(set) var isLettingGo = false
  /// The daemon stops.
  private var isStopping = false
  /// Another disk of this daemon is about to let go of the image.
  var waitsForImage = false
  /// Our state as last read or written, nil when nobody knows: what differs was written by somebody else.
  var lastSeen: XenbusState?
  /// Another backend serves the disk; nothing of it is touched.
  var rival: BackendRival?
  /// The directory went, or the daemon stops, while another backend served the disk.
  var hasGone = false
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
    // What of our writes has reached the store is not known.
    lastSeen = nil
    if let nodes { try? watchFrontend(nodes) }
    refresh()
  }

  // MARK: Events

  /// Reads all nodes that matter and acts on them. Called for every watch event: what changed does not
  /// matter.
  public func refresh() {
    guard !isActing, !isLettingGo else {
      mustRefresh = true
      return
    }
    do throws(VbdError) {
      let nodes = try findNodes()
      do throws(StoreError) {
        if try !leavesToRival(nodes) { try look(at: nodes) }
      } catch {
        throw VbdError(error)
      }
      removeIfAbandoned(nodes)
    } catch {
      environment.log(.failure, error.description, about: identity)
    }
  }

  private func look(at nodes: BackendNodes) throws(StoreError) {
    hotplug = try HotplugProgress(of: nodes, in: environment.store)
    followHotplug()
    var seen = try nodes.observe(in: environment.store, isHotplugReady: hotplug.isReady)
    if isForeign(seen.own) { return yield(to: BackendRival()) }
    lastSeen = seen.own
    // What could not be opened before the script ran is tried again when it is done.
    if trouble != nil, hotplug.isReady, seen.own == .initWait, seen.own == handshake.own {
      trouble = nil
      return publish(from: .initWait, thenState: .initWait)
    }
    seen.hasNewKeys = frontendHasNewKeys(seen.frontend, nodes)
    act(on: .observed(seen))
    tellOfWaiting(nodes)
    if handshake.own != nil, !handshake.isForgotten { try followNodes(nodes) }
  }

  /// The directory went: there is nobody left to shake hands with.
  public func vanish() {
    guard !isActing, !isLettingGo else {
      mustRefresh = true
      return
    }
    guard !leaveRival() else { return }
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
  public func stop() {
    guard !leaveRival() else { return }
    isStopping = true
    act(on: .stop)
  }

  func act(on event: BackendEvent) {
    actions += handshake.handle(event)
    proceed()
  }

  /// Does what is to be done, and then looks at what happened meanwhile.
  private func proceed() {
    guard !isActing, !isLettingGo else { return }
    isActing = true
    while let action = actions.first {
      if letsGo(before: action) {
        claim = nil
        if image != nil {
          isActing = false
          return letGoOfImage()
        }
      }
      actions.removeFirst()
      perform(action)
    }
    isActing = false
    if mustRefresh, !handshake.isForgotten {
      mustRefresh = false
      refresh()
    }
  }

  private func perform(_ action: BackendAction) {
    switch action {
    case .publishFeatures(let from, let state): publish(from: from, thenState: state)
    case .connect(let generation, _): connect(generation: generation)
    case .disconnect(let generation): disconnect(generation: generation)
    case .switchState(let from, let state): switchState(from: from, to: state)
    case .reportError(let message): report(message)
    // Frontends of blkif change nothing that way: the handshake was not told to follow it.
    case .reconfigure: break
    case .forget: forget()
    }
  }

  /// Whoever waits for Closed of a disk that goes for good may use the image at once: it is closed first.
  private func letsGo(before action: BackendAction) -> Bool {
    switch action {
    case .switchState(_, .closed): handshake.isLeaving
    case .forget: true
    default: false
    }
  }

  /// Closes the image; nothing else is done before that has ended.
  func letGoOfImage() {
    isLettingGo = true
    closeImage { [self] in
      isLettingGo = false
      proceed()
    }
  }

  /// True while an image that another disk wants is let go of, which nobody can hinder any more.
  public func isAboutToLetGo(of parameters: String) -> Bool {
    guard isLettingGo || (image != nil && (handshake.isForgotten || handshake.own == nil)),
      let ours = configuration.flatMap({ try? StoreTable.parse($0.image) }),
      let theirs = try? StoreTable.parse(parameters)
    else { return false }
    return ours.location == theirs.location
  }

  /// Another disk of this daemon has gone: an image that this one waits for may be free.
  public func imageMayBeFree() {
    guard waitsForImage else { return }
    waitsForImage = false
    refresh()
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

  // MARK: Actions

  /// Drops what was read of the device. Initialising is what a toolstack writes into a new one, and it may
  /// have put it into the place of an old one without our seeing the directory gone.
  func forgetDescription() {
    if let nodes { unwatchFrontend(nodes) }
    (nodes, configuration, properties, image) = (nil, nil, nil, nil)
    (isPaused, ejectIsWanted, refusedMedium, trouble) = (false, false, nil, nil)
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

  /// Writes nodes and our state in one transaction; false, and nothing written, when somebody else has
  /// written our state meanwhile.
  @discardableResult
  func write(
    _ features: [DeviceNode], from: XenbusState, to state: XenbusState
  ) throws(VbdError) -> Bool {
    let nodes = try findNodes()
    let isOurs: Bool
    do throws(StoreError) {
      isOurs = try nodes.publishFeatures(from: from, thenState: state, in: environment.store) {
        (tree, directory) throws(StoreError) in
        for feature in features { try feature.write(to: tree, directory) }
      }
      if isOurs { lastSeen = state }
      if state == .connected, from != state { clearReport() }
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
      try nodes?.tellScript(message, in: environment.store)
    } catch {
      environment.log(.warning, "the error node could not be written: \(error)", about: identity)
    }
  }

  /// What was told last is mended.
  func clearReport() {
    do throws(StoreError) {
      try nodes?.clearError(in: environment.store)
      try nodes?.clearScriptError(in: environment.store)
    } catch {
      environment.log(.warning, "the error node could not be removed: \(error)", about: identity)
    }
  }

  func forget() {
    cancelCommands()
    guard rival == nil || hasGone else { return }
    if let nodes {
      unwatchFrontend(nodes)
      if rival == nil {
        try? nodes.clearError(in: environment.store)
        signOff(nodes)
      }
    }
    environment.forget(identity)
  }

  /// The daemon stops: the next one need not look whether we are still there.
  private func signOff(_ nodes: BackendNodes) {
    guard isStopping, handshake.own != nil, let server = environment.serverName,
      (try? environment.store.read("\(nodes.directory)/\(BackendRival.node)")) == server
    else { return }
    try? writePrivate([DeviceNode(BackendRival.node, nil)])
  }

  /// A disk attached by `ringback attach` has no other toolstack: when its domain is gone, its nodes go with
  /// it.
  private func removeIfAbandoned(_ nodes: BackendNodes) {
    guard handshake.own == .closed, handshake.frontend == nil, case .idle = handshake.link, !isLettingGo
    else { return }
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
