public import RingKit

/// One interface from the day its directory appears until it goes: reads its nodes, lets the handshake decide,
/// and does what it says. Runs on the control thread; the data path lives in its ``NetConnection``.
public final class Vif {
  /// Which interface.
  public let identity: DeviceAddress
  unowned let environment: any VifEnvironment
  /// The daemon's offer when the interface was found: what was announced is kept to.
  var offer = VifOffer()
  var handshake = BackendHandshake(followsReconfiguring: true)
  /// The toolstack's description, once read.
  public internal(set) var configuration: VifConfiguration?
  /// Where packets go; there from before InitWait until the directory goes.
  public internal(set) var link: (any VifLink)?
  var connection: NetConnection?
  var nodes: BackendNodes?
  private var openingGeneration: UInt32?
  private var drainsWhenOpened = false
  /// What the handshake has asked for and is not done yet, in order.
  private var actions: [BackendAction] = []
  private var isActing = false
  /// What happened while actions were under way.
  private var mustRefresh = false
  /// What was told of things that last, by concern.
  var told: [String: String] = [:]
  /// Why the interface cannot be served although it is in InitWait: its script is still to come, and reports it
  /// to libxl's user.
  public internal(set) var trouble: VifError?
  var hotplug = HotplugProgress.notNeeded
  /// Our state as last read or written, nil when nobody knows: what differs was written by somebody else.
  var lastSeen: XenbusState?
  /// Another backend serves the interface; nothing of it is touched.
  var rival: BackendRival?
  private var isStopping = false
  /// The frontend takes no packets, and its link is down therefore.
  public internal(set) var isStalled = false
  /// The toolstack wants the link to be up: node `carrier`.
  var isCarrierWanted = true
  /// The frontend's node is watched that changes while it is connected.
  var watchesMulticast = false
  /// Bytes a second, over all queues.
  let limiter = CreditRate.limiter(nil)
  /// Who watches the frames, over all queues and connections.
  var captures: [FrameCapture] = []
  /// Multicast addresses that the frontend listens to, over all queues.
  let multicast = MulticastList()

  /// An interface whose directory was found.
  public init(_ identity: DeviceAddress, environment: any VifEnvironment) {
    self.identity = identity
    self.environment = environment
  }

  /// Where the interface stands.
  public var state: XenbusState? { handshake.own }

  /// What the frontend has agreed to, while a connection exists.
  public var parameters: NetFrontendParameters? { connection?.parameters }

  /// The queues' numbers, while a connection exists.
  public var statistics: [NetStatistics] { connection?.statistics ?? [] }

  /// Arms the frontend's watch on a new connection to xenstore and looks at everything.
  public func watchAgain() {
    // What of our writes has reached the store is not known.
    lastSeen = nil
    watchesMulticast = false
    if let nodes { try? environment.store.watch(nodes.frontendState, token: frontendToken) }
    refresh()
  }

  // MARK: Events

  /// Reads all nodes that matter and acts on them. Called for every watch event: what changed does not
  /// matter.
  public func refresh() {
    guard !isActing else {
      mustRefresh = true
      return
    }
    do throws(VifError) {
      let nodes = try findNodes()
      do throws(StoreError) {
        try look(at: nodes)
      } catch {
        throw VifError(error)
      }
    } catch {
      environment.log(.failure, error.description, about: identity)
    }
  }

  private func look(at nodes: BackendNodes) throws(StoreError) {
    guard try !leavesToRival(nodes) else { return }
    hotplug = try HotplugProgress(of: nodes, in: environment.store)
    followHotplug()
    let seen = try nodes.observe(in: environment.store, isHotplugReady: hotplug.isReady)
    if handshake.isForgotten {
      // The link stays until the directory goes: the toolstack's script still works on it. A device that is
      // made anew in the same place begins anew.
      guard seen.own == .initialising, !isStopping else { return }
      beginAnew()
      return refresh()
    }
    if isForeign(seen.own) { return yield(to: BackendRival()) }
    lastSeen = seen.own
    // What could not be had before the script ran is tried again when it is done.
    if trouble != nil, hotplug.isReady, seen.own == .initWait, seen.own == handshake.own {
      trouble = nil
      return publish(from: .initWait, thenState: .initWait)
    }
    act(on: .observed(seen))
    if handshake.own != nil, !handshake.isForgotten { try followNodes(nodes) }
  }

  /// The directory went: there is nobody left to shake hands with.
  public func vanish() {
    guard !isActing else {
      mustRefresh = true
      return
    }
    if handshake.isForgotten { return finish() }
    act(on: .observed(BackendObservation(own: nil, frontend: nil, isOnline: false, isHotplugReady: false)))
  }

  /// Takes what data threads report.
  public func handle(_ event: VifEvent) {
    switch event {
    case .opened(let generation, let failure):
      guard generation == openingGeneration else { return }
      openingGeneration = nil
      if drainsWhenOpened {
        drainsWhenOpened = false
        if failure != nil { connection = nil }
        close(generation: generation)
      } else if let failure {
        connection = nil
        link?.close()
        act(on: .connectFailed(generation: generation, message: failure.description))
      } else {
        isStalled = false
        applyCarrier()
        // Some may have begun meanwhile.
        if !captures.isEmpty { connection?.setCaptures(captures) }
        act(on: .connectSucceeded(generation: generation))
      }
    case .drained(let generation):
      connection = nil
      link?.close()
      act(on: .drained(generation: generation))
    case .faulted(let generation, let error):
      act(on: .connectionFailed(generation: generation, message: error.description))
    case .reconfigured(let generation):
      act(on: .reconfigured(generation: generation))
    case .stalled(let generation, let isStalled):
      guard connection != nil, case .connected(generation) = handshake.link else { return }
      self.isStalled = isStalled
      applyCarrier()
      environment.log(
        isStalled ? .warning : .information,
        isStalled
          ? "the frontend has taken no packets for a minute; its link is down until it does"
          : "the frontend takes packets again", about: identity)
    }
  }

  /// The link may have changed by another's hand.
  public func linkChanged() {
    guard let link, let news = link.refresh() else { return }
    environment.log(.information, news, about: identity)
    connection?.setFrameByteCount(link.frameByteCount)
  }

  /// The daemon stops: drains, and leaves nodes and link for the next daemon.
  public func stop() {
    isStopping = true
    if handshake.isForgotten { return finish() }
    act(on: .stop)
  }

  func act(on event: BackendEvent) {
    actions += handshake.handle(event)
    guard !isActing else { return }
    isActing = true
    while !actions.isEmpty { perform(actions.removeFirst()) }
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
    case .reconfigure(let generation): reconfigure(generation: generation)
    case .switchState(let from, let state): switchState(from: from, to: state)
    case .reportError(let message): report(message)
    case .forget: forget()
    }
  }

  var frontendToken: String { environment.frontendToken(of: identity) }

  private func findNodes() throws(VifError) -> BackendNodes {
    if let nodes { return nodes }
    do throws(StoreError) {
      let found = try BackendNodes(identity, backend: environment.ownDomain, in: environment.store)
      try environment.store.watch(found.frontendState, token: frontendToken)
      nodes = found
      return found
    } catch {
      throw VifError(error)
    }
  }

  // MARK: Actions

  private func publish(from: XenbusState, thenState state: XenbusState) {
    if from == .initialising { forgetDescription() }
    do throws(VifError) {
      do throws(VifError) {
        try prepare()
        if trouble != nil { clearReport() }
        trouble = nil
      } catch {
        // libxl runs the script only after InitWait, and only the script's words reach its user.
        guard !hotplug.isReady else { throw error }
        trouble = error
        report(error.description)
      }
      try write(offer.nodes + ownNodes, from: from, to: state)
    } catch {
      report(error.description)
      _ = try? write([], from: from, to: .closing)
      refresh()
    }
  }

  /// Reads the description and makes the link, where that was not done.
  private func prepare() throws(VifError) {
    if configuration == nil {
      offer = environment.vifOffer.settled(threadCount: try environment.netThreads().count)
      let read = try VifConfiguration.read(from: environment.store, directory: findNodes().directory)
      configuration = read
      limiter.set(read.rate?.limits ?? .unlimited, atNanoseconds: MonotonicClock.nowNanoseconds())
    }
    guard link == nil, let configuration else { return }
    let opened = try environment.openLink(configuration, of: identity)
    link = opened
    environment.log(.information, "\(opened.name) is there", about: identity)
  }

  /// What tells others who serves.
  private var ownNodes: [DeviceNode] {
    environment.serverName.map { [DeviceNode(BackendRival.node, $0)] } ?? []
  }

  private func switchState(from: XenbusState, to state: XenbusState) {
    do throws(VifError) {
      // A daemon that takes over a connected frontend has published nothing.
      try write(state == .connected ? ownNodes : [], from: from, to: state)
      environment.log(.information, "\(from) -> \(state)", about: identity)
    } catch {
      report(error.description)
    }
  }

  /// Writes nodes and our state in one transaction; nothing is written when somebody else has written our
  /// state meanwhile.
  private func write(
    _ features: [DeviceNode], from: XenbusState, to state: XenbusState
  ) throws(VifError) {
    let nodes = try findNodes()
    let isOurs: Bool
    do throws(StoreError) {
      isOurs = try nodes.publishFeatures(from: from, thenState: state, in: environment.store) {
        (tree, directory) throws(StoreError) in
        for feature in features { try feature.write(to: tree, directory) }
      }
    } catch {
      throw VifError(error)
    }
    if isOurs { lastSeen = state } else { refresh() }
    if isOurs, state == .connected, from != state { clearReport() }
  }

  private func connect(generation: UInt32) {
    do throws(VifError) {
      try prepare()
      guard let link else { throw VifError("the interface has no link") }
      let parameters = try NetFrontendParameters.read(
        from: environment.store, frontendPath: findNodes().frontendDirectory, offer: offer)
      let threads = try environment.netThreads()
      multicast.reset(isActive: parameters.controlsMulticast)
      let queues = try link.open(queueCount: parameters.queues.count, offloads: parameters.offloads)
      let thread = link.commonThread { environment.claimNetThread(count: 1) }
      let plan = NetConnectionPlan(
        domain: identity.domain, parameters: parameters, links: queues,
        frameByteCount: link.frameByteCount, limiter: limiter, multicast: multicast,
        bufferShareByteCount: environment.netBufferShareByteCount, captures: captures,
        isOnOneThread: thread != nil)
      let (identity, post) = (identity, environment.postVif)
      let connection = NetConnection(plan: plan) { news in
        switch news {
        case .fault(let error): post(identity, .faulted(generation: generation, error))
        case .stalled(let isStalled): post(identity, .stalled(generation: generation, isStalled))
        }
      }
      self.connection = connection
      openingGeneration = generation
      environment.log(.information, "connecting: \(parameters)", about: identity)
      connection.open(
        on: threads, firstThread: thread ?? environment.claimNetThread(count: connection.threadCount)
      ) {
        post(identity, .opened(generation: generation, failure: $0))
      }
    } catch {
      link?.close()
      act(on: .connectFailed(generation: generation, message: error.description))
    }
  }

  private func disconnect(generation: UInt32) {
    // Nobody is to send what nobody will take.
    link?.setCarrier(false)
    if openingGeneration == generation {
      drainsWhenOpened = true
    } else {
      close(generation: generation)
    }
  }

  private func close(generation: UInt32) {
    let (identity, post) = (identity, environment.postVif)
    guard let connection else {
      post(identity, .drained(generation: generation))
      return
    }
    connection.close { post(identity, .drained(generation: generation)) }
  }

  private func reconfigure(generation: UInt32) {
    do throws(StoreError) {
      guard let nodes, let connection else { return }
      let headroom = try NetFrontendParameters.headroom(in: environment.store, nodes.frontendDirectory)
      let (identity, post) = (identity, environment.postVif)
      connection.setHeadroom(headroom) { post(identity, .reconfigured(generation: generation)) }
      environment.log(.information, "received data begins at byte \(headroom) of its pages", about: identity)
    } catch {
      // Linux goes on with the old value too, and the frontend waits for the answer.
      report("the change was not taken over: \(error)")
      environment.postVif(identity, .reconfigured(generation: generation))
    }
  }

  /// Drops what was read of the device. Initialising is what a toolstack writes into a new one, and it may
  /// have put it into the place of an old one without our seeing the directory gone.
  private func forgetDescription() {
    unwatchFrontend()
    (nodes, configuration, trouble) = (nil, nil, nil)
    isCarrierWanted = true
  }

  func beginAnew() {
    environment.log(.information, "made anew", about: identity)
    forgetDescription()
    handshake = BackendHandshake(followsReconfiguring: true)
    (lastSeen, rival) = (nil, nil)
    told.removeAll()
  }

  private func forget() {
    if let nodes, rival == nil { try? nodes.clearError(in: environment.store) }
    if rival != nil {
      // The other one may have taken it over.
      link?.leave()
      link = nil
    }
    // Kept until the directory goes, which the toolstack takes away when its script has ended.
    if isStopping || handshake.own == nil { finish() }
  }

  /// Nothing of the interface is left with us.
  func finish() {
    unwatchFrontend()
    if isStopping { link?.leave() } else { link?.remove() }
    link = nil
    if let nodes, rival == nil, isStopping { signOff(nodes) }
    environment.forgetVif(identity)
  }

  /// The daemon stops: the next one need not look whether we are still there.
  private func signOff(_ nodes: BackendNodes) {
    guard handshake.own != nil, let server = environment.serverName,
      (try? environment.store.read("\(nodes.directory)/\(BackendRival.node)")) == server
    else { return }
    try? environment.store.remove("\(nodes.directory)/\(BackendRival.node)")
  }
}
