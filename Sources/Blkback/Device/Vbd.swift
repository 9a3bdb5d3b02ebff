public import RingKit

/// Names a disk among all that a daemon serves.
public struct VbdIdentity: Hashable, Sendable, CustomStringConvertible {
  /// The directory below `backend` in xenstore.
  public var kind: String
  /// The guest.
  public var domain: DomainID
  /// The disk's number in the guest.
  public var device: VirtualDevice

  /// Joins the three.
  public init(kind: String, domain: DomainID, device: VirtualDevice) {
    self.kind = kind
    self.domain = domain
    self.device = device
  }

  /// "vbd3-1-51712", as sysfs and logs name such devices.
  public var description: String { "\(kind)-\(domain)-\(device.number)" }
}

/// How much a message matters.
public enum VbdSeverity: Sendable {
  /// Ordinary life.
  case information
  /// Something works less well than it could.
  case warning
  /// A disk is not served, or no longer.
  case failure
}

/// What becomes of work that a disk has handed to data threads.
public enum VbdEvent: Sendable {
  /// The queues are up (nil), or could not be made and nothing is left of them.
  case opened(generation: UInt32, failure: VbdError?)
  /// Nothing is in flight or mapped any more.
  case drained(generation: UInt32)
  /// The frontend broke the rules of its ring.
  case faulted(generation: UInt32, VbdError)
}

/// What a disk needs of the daemon that serves it. Belongs to the control thread.
public protocol VbdEnvironment: AnyObject {
  /// The control thread's xenstore.
  var store: any StoreSession { get }
  /// The data threads; at least one.
  var threads: [DataThread<BlockQueue>] { get }
  /// The thread for the next queue, so that queues spread.
  func claimThread(count: Int) -> Int
  /// Bytes of buffers that one queue may hold.
  var bufferShareByteCount: Int { get }
  /// What is offered to frontends.
  var offer: VbdOffer { get }
  /// Delivers an event to ``Vbd/handle(_:)`` on the control thread; may be called from any thread.
  var post: @Sendable (VbdIdentity, VbdEvent) -> Void { get }
  /// Tells the administrator.
  func log(_ severity: VbdSeverity, _ message: String, about disk: VbdIdentity)
  /// The disk is no more ours.
  func forget(_ disk: VbdIdentity)
}

/// One disk from the day its directory appears until it goes: reads its nodes, lets the handshake decide, and does
/// what it says. Runs on the control thread; the data path lives in its ``BlockConnection``.
public final class Vbd {
  /// Which disk.
  public let identity: VbdIdentity
  /// Its directory in xenstore.
  public let directory: String
  private unowned let environment: any VbdEnvironment
  private var handshake = BackendHandshake()
  /// The toolstack's description, once read.
  public private(set) var configuration: VbdConfiguration?
  private var image: BlockStore?
  private let health = DiskHealth()
  private var connection: BlockConnection?
  private var openingGeneration: UInt32?
  private var drainsWhenOpened = false
  private var watchedFrontend: String?

  /// A disk that was found in `directory`.
  public init(_ identity: VbdIdentity, directory: String, environment: any VbdEnvironment) {
    self.identity = identity
    self.directory = directory
    self.environment = environment
  }

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
    if let watchedFrontend {
      try? environment.store.watch("\(watchedFrontend)/state", token: identity.description)
    }
    refresh()
  }

  // MARK: Events

  /// Reads all nodes that matter and acts on them. Called for every watch event: what changed does not matter.
  public func refresh() {
    do {
      let store = environment.store
      let own = try store.exists("\(directory)/state") ? try state(of: "\(directory)/state") : nil
      if own != nil && configuration == nil { configure() }
      let frontendPath = watchedFrontend ?? configuration?.frontendPath
      let frontend = try frontendPath.flatMap { try state(of: "\($0)/state") }
      let waitsForHotplug = configuration?.waitsForHotplug ?? false
      let isHotplugReady = try !waitsForHotplug || store.read("\(directory)/hotplug-status") == "connected"
      let isOnline = (try? store.flag("\(directory)/online", default: false)) ?? false
      act(
        on: .observed(
          BackendObservation(own: own, frontend: frontend, isOnline: isOnline, isHotplugReady: isHotplugReady)))
      removeIfAbandoned()
    } catch {
      environment.log(.failure, "\(error)", about: identity)
    }
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
        act(on: .connectSucceeded(generation: generation))
      }
    case .drained(let generation):
      connection = nil
      act(on: .drained(generation: generation))
    case .faulted(let generation, let error):
      act(on: .connectionFailed(generation: generation, message: error.description))
    }
    removeIfAbandoned()
  }

  /// The daemon stops: drains, and leaves the nodes for the next daemon.
  public func stop() { act(on: .stop) }

  private func act(on event: BackendEvent) {
    for action in handshake.handle(event) {
      switch action {
      case .publishFeatures(let from, let state): publish(from: from, thenState: state)
      case .connect(let generation, let resume): connect(generation: generation, resume: resume)
      case .disconnect(let generation): disconnect(generation: generation)
      case .switchState(let from, let state): switchState(from: from, to: state)
      case .reportError(let message): report(message)
      case .forget: forget()
      }
    }
  }

  /// A node's state; `.unknown` for what is none, nil when there is no such node.
  private func state(of path: String) throws(StoreError) -> XenbusState? {
    do throws(StoreError) {
      return try environment.store.state(path)
    } catch .badValue, .notText, .tooLong {
      return .unknown
    }
  }

  // MARK: Actions

  private func configure() {
    do throws(VbdError) {
      let read = try VbdConfiguration.read(
        from: environment.store, directory: directory, domain: identity.domain, device: identity.device)
      configuration = read
      if watchedFrontend == nil {
        do throws(StoreError) {
          try environment.store.watch("\(read.frontendPath)/state", token: identity.description)
          watchedFrontend = read.frontendPath
        } catch {
          throw VbdError(error)
        }
      }
    } catch {
      // Told when the features are due, together with an image that cannot be opened.
    }
  }

  /// Opens what can fail before any feature is announced, so that a bad image is told at once.
  private func openImage() throws(VbdError) -> BlockStore {
    if let image { return image }
    let configuration = try VbdConfiguration.read(
      from: environment.store, directory: directory, domain: identity.domain, device: identity.device)
    self.configuration = configuration
    let opened = try BlockStore.open(configuration)
    if case .file(let file) = opened, let warning = file.directFallback {
      environment.log(.warning, warning, about: identity)
    }
    image = opened
    return opened
  }

  private func properties(of image: BlockStore) -> VbdProperties {
    VbdProperties(
      sectorCount: image.byteCount / 512, physicalSectorByteCount: image.physicalBlockByteCount,
      isReadOnly: !(configuration?.isWritable ?? false), isCDROM: configuration?.isCDROM ?? false,
      isRemovable: configuration?.isRemovable ?? false)
  }

  private func publish(from: XenbusState, thenState state: XenbusState) {
    do throws(VbdError) {
      let image = try openImage()
      try write(environment.offer.nodes(for: properties(of: image)), from: from, to: state)
    } catch {
      report(error.description)
      // As after a connection that failed: Closing, which ends as Closed, with the reason in the error node.
      try? write([], from: from, to: .closing)
      refresh()
    }
  }

  private func switchState(from: XenbusState, to state: XenbusState) {
    do throws(VbdError) {
      // Linux reads the disk's properties at Connected, so they are written again, for it and for a disk that changed.
      let nodes = state == .connected ? try environment.offer.nodes(for: properties(of: openImage())) : []
      try write(nodes, from: from, to: state)
      environment.log(.information, "\(from) -> \(state)", about: identity)
    } catch {
      report(error.description)
    }
  }

  /// Writes nodes and our state in one transaction, unless somebody else has written our state meanwhile.
  private func write(
    _ nodes: [(name: String, value: String)], from: XenbusState, to state: XenbusState
  ) throws(VbdError) {
    let directory = directory
    do throws(StoreError) {
      let isOurs = try environment.store.transaction { tree throws(StoreError) -> Bool in
        guard try tree.read("\(directory)/state") == from.text else { return false }
        for node in nodes { try tree.write("\(directory)/\(node.name)", node.value) }
        try tree.write("\(directory)/state", state.text)
        return true
      }
      if !isOurs { refresh() }
    } catch {
      throw VbdError(error)
    }
  }

  private func connect(generation: UInt32, resume: Bool) {
    do throws(VbdError) {
      guard let configuration else { throw VbdError("\(directory) cannot be read") }
      let image = try openImage()
      let parameters = try FrontendParameters.read(
        from: environment.store, frontendPath: configuration.frontendPath, offer: environment.offer)
      let limits: BlockLimits
      do throws(BlockLimitsError) {
        limits = try BlockLimits(
          sectorCount: image.byteCount / 512, readOnly: !configuration.isWritable, offered: [.flush])
      } catch {
        throw VbdError(error)
      }
      let plan = BlockConnectionPlan(
        domain: identity.domain, parameters: parameters, limits: limits, store: image, health: health,
        resumes: resume, bufferShareByteCount: environment.bufferShareByteCount)
      let (identity, post) = (identity, environment.post)
      let connection = BlockConnection(plan: plan) { post(identity, .faulted(generation: generation, $0)) }
      self.connection = connection
      openingGeneration = generation
      environment.log(.information, "connecting: \(parameters)", about: identity)
      connection.open(on: environment.threads, firstThread: environment.claimThread(count: parameters.queues.count)) {
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
    guard let connection else {
      post(identity, .drained(generation: generation))
      return
    }
    connection.close { post(identity, .drained(generation: generation)) }
  }

  /// Tells the log and the node that toolstacks look at (xenbus_client.c, xenbus_dev_error).
  private func report(_ message: String) {
    environment.log(.failure, message, about: identity)
    let path = "error/backend/\(identity.kind)/\(identity.domain)/\(identity.device.number)/error"
    do throws(StoreError) {
      try environment.store.write(path, String(message.prefix(1024)))
    } catch {
      environment.log(.warning, "the error node could not be written: \(error)", about: identity)
    }
  }

  private func forget() {
    if let watchedFrontend {
      try? environment.store.unwatch("\(watchedFrontend)/state", token: identity.description)
    }
    try? environment.store.remove(
      "error/backend/\(identity.kind)/\(identity.domain)/\(identity.device.number)", pruningBelow: "error")
    environment.forget(identity)
  }

  /// A disk attached by `ringback attach` has no other toolstack: when its domain is gone, its nodes go with it.
  private func removeIfAbandoned() {
    guard handshake.own == .closed, handshake.frontend == nil, case .idle = handshake.link else { return }
    do throws(StoreError) {
      let store = environment.store
      guard try store.read("\(directory)/toolstack") == "ringback",
        try !store.exists("/local/domain/\(identity.domain)")
      else { return }
      let kindDirectory = directory.dropLast("/\(identity.domain)/\(identity.device.number)".count)
      try store.transaction { tree throws(StoreError) in
        try tree.remove(directory, pruningBelow: String(kindDirectory))
      }
    } catch {
      environment.log(.warning, "the nodes of a domain that is gone could not be removed: \(error)", about: identity)
    }
  }
}
