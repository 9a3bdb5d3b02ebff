import Testing

@testable import RingKit

/// The other side of a handshake: the nodes, a device which connects and drains when it is told to, and the
/// rules that hold whatever happens. It does what a daemon's control thread does with the actions.
struct XenbusWorld {
  var handshake: BackendHandshake
  /// Frontends of this kind may say Reconfiguring while connected.
  let followsReconfiguring: Bool
  var own: XenbusState?
  var frontend: XenbusState?
  var isOnline = true
  var isHotplugReady = true

  /// Connections asked for and not answered.
  private(set) var connecting: [UInt32] = []
  private(set) var connected: [UInt32] = []
  private(set) var draining: [UInt32] = []
  /// Changes to be taken over and not answered.
  private(set) var reconfiguring: [UInt32] = []
  private(set) var trace: [String] = []
  private(set) var violations: [String] = []
  private(set) var isForgotten = false
  /// Our own writes, in order.
  private(set) var written: [XenbusState] = []
  private(set) var resumed: [Bool] = []
  private(set) var errors: [String] = []
  private var lastGeneration: UInt32 = 0
  private var isHotplugObserved = false
  private(set) var isStopping = false
  /// Writing the trace costs most of the time: walks over everything do without.
  var isTracing = true

  init(
    own: XenbusState?, frontend: XenbusState?, isOnline: Bool = true, isHotplugReady: Bool = true,
    followsReconfiguring: Bool = false
  ) {
    handshake = BackendHandshake(followsReconfiguring: followsReconfiguring)
    self.followsReconfiguring = followsReconfiguring
    self.own = own
    self.frontend = frontend
    self.isOnline = isOnline
    self.isHotplugReady = isHotplugReady
  }

  var live: Int { connecting.count + connected.count + draining.count }

  /// What our node may change to by our own hand.
  static let legal: [XenbusState: Set<XenbusState>] = [
    .unknown: [.initWait, .connected, .closing, .closed], .initialising: [.initWait],
    .initWait: [.initWait, .connected, .closing, .closed],
    .initialised: [.initWait, .connected, .closing, .closed], .connected: [.initWait, .closing, .closed],
    .closing: [.initWait, .closed], .closed: [.initWait, .closing],
    .reconfiguring: [.initWait, .connected, .closing, .closed],
    .reconfigured: [.initWait, .connected, .closing, .closed],
  ]

  mutating func observe(hasNewKeys: Bool = false) {
    isHotplugObserved = isHotplugReady
    var seen = BackendObservation(
      own: own, frontend: frontend, isOnline: isOnline, isHotplugReady: isHotplugReady)
    seen.hasNewKeys = hasNewKeys
    send(.observed(seen))
  }

  mutating func toolstack(_ state: XenbusState?, online: Bool? = nil) {
    own = state
    if let online { isOnline = online }
    observe()
  }

  mutating func frontend(_ state: XenbusState?) {
    frontend = state
    observe()
  }

  /// Answers the oldest open request to connect.
  mutating func finishConnecting(failing message: String? = nil) {
    guard let generation = connecting.first else { return }
    connecting.removeFirst()
    if let message {
      send(.connectFailed(generation: generation, message: message))
    } else {
      connected.append(generation)
      send(.connectSucceeded(generation: generation))
    }
  }

  mutating func breakConnection(_ message: String = "ring broken") {
    guard let generation = connected.first else { return }
    send(.connectionFailed(generation: generation, message: message))
  }

  mutating func finishDraining() {
    guard let generation = draining.first else { return }
    draining.removeFirst()
    send(.drained(generation: generation))
  }

  /// Answers the oldest change.
  mutating func finishReconfiguring() {
    guard let generation = reconfiguring.first else { return }
    reconfiguring.removeFirst()
    send(.reconfigured(generation: generation))
  }

  /// Answers everything that is open.
  mutating func answerAll() {
    while !reconfiguring.isEmpty { finishReconfiguring() }
    while !connecting.isEmpty || !draining.isEmpty {
      if draining.isEmpty { finishConnecting() } else { finishDraining() }
    }
  }

  mutating func stop() {
    isStopping = true
    send(.stop)
  }

  mutating func send(_ event: BackendEvent) {
    if isTracing { trace.append("\(event)") }
    let wasForgotten = handshake.isForgotten
    let actions = handshake.handle(event)
    if wasForgotten, !actions.isEmpty { violate("acts after forget") }
    if actions.count > 5 { violate("\(actions.count) actions for one event") }
    var mustObserve = false
    for action in actions {
      if isTracing { trace.append("  \(action)") }
      if !perform(action) { mustObserve = true }
    }
    if handshake.isForgotten != isForgotten { violate("isForgotten differs from what was said") }
    if mustObserve { observe() }
  }

  private mutating func perform(_ action: BackendAction) -> Bool {
    switch action {
    case .publishFeatures(let from, let state):
      if state != .initWait { violate("features with \(state)") }
      if live > 0 { violate("features while a connection is alive") }
      return write(from: from, to: state)
    case .switchState(let from, let to):
      return write(from: from, to: to)
    case .connect(let generation, let resume):
      if live > 0 { violate("a second connection") }
      if !isHotplugObserved { violate("connects before hotplug") }
      if generation == lastGeneration { violate("generation used twice") }
      lastGeneration = generation
      connecting.append(generation)
      resumed.append(resume)
    case .disconnect(let generation):
      guard connecting.contains(generation) || connected.contains(generation) else {
        violate("disconnects what is not there")
        return true
      }
      connecting.removeAll { $0 == generation }
      connected.removeAll { $0 == generation }
      draining.append(generation)
    case .reconfigure(let generation):
      if !followsReconfiguring { violate("takes over a change of a kind that has none") }
      if !connected.contains(generation) { violate("takes over a change without a connection") }
      reconfiguring = [generation]
    case .reportError(let message):
      errors.append(message)
    case .forget:
      if live > 0 { violate("forgets a live connection") }
      isForgotten = true
    }
    return true
  }

  private mutating func write(from: XenbusState, to: XenbusState) -> Bool {
    if isStopping { violate("writes a state while stopping") }
    let isReconfigured = followsReconfiguring && to == .reconfigured && !connected.isEmpty
    if Self.legal[from]?.contains(to) != true, !isReconfigured {
      violate("illegal transition \(from) to \(to)")
    }
    if to == .closed, live > 0 { violate("Closed with a live connection") }
    if to == .connected, connected.isEmpty { violate("Connected without a connection") }
    guard own == from else { return false }
    if from == to, to != .initWait { violate("writes \(to) over itself") }
    own = to
    written.append(to)
    return true
  }

  private mutating func violate(_ what: String) { violations.append(what) }

  /// What decides about the future, without the numbers of connections.
  struct Key: Hashable {
    var handshake: BackendHandshake
    var own: XenbusState?
    var frontend: XenbusState?
    var isOnline: Bool
    var isHotplugReady: Bool
    var isReconfiguring: Bool
  }

  var key: Key {
    var normal = handshake
    normal.generation = 0
    switch handshake.link {
    case .idle: break
    case .connecting: normal.link = .connecting(generation: 0)
    case .connected: normal.link = .connected(generation: 0)
    case .draining: normal.link = .draining(generation: 0)
    }
    return Key(
      handshake: normal, own: own, frontend: frontend, isOnline: isOnline, isHotplugReady: isHotplugReady,
      isReconfiguring: !reconfiguring.isEmpty)
  }

  /// The last lines of the trace, for messages.
  var story: String { (violations + trace.suffix(40)).joined(separator: "\n") }
}

/// A device that is connected in the ordinary way.
func connectedWorld(followsReconfiguring: Bool = false) -> XenbusWorld {
  var world = XenbusWorld(
    own: .initialising, frontend: .initialising, followsReconfiguring: followsReconfiguring)
  world.observe()
  world.frontend(.initialised)
  world.finishConnecting()
  world.frontend(.connected)
  return world
}

/// Compares everything our side has done so far.
func expect(
  _ world: XenbusWorld, own: XenbusState?, written: [XenbusState], live: Int = 0, forgotten: Bool = false,
  _ location: SourceLocation = #_sourceLocation
) {
  let story = Comment(rawValue: world.story)
  #expect(world.violations.isEmpty, story, sourceLocation: location)
  #expect(world.own == own, story, sourceLocation: location)
  #expect(world.written == written, story, sourceLocation: location)
  #expect(world.live == live, story, sourceLocation: location)
  #expect(world.isForgotten == forgotten, story, sourceLocation: location)
}
