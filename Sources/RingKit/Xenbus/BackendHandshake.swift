/// The life of a backend device between toolstack, hotplug and frontend (xen/io/blkif.h and netif.h, state
/// diagrams; what Linux's backends and libxl make of them). Pure: events in, actions out, for any device.
///
/// It acts on what the nodes say now, not on the way they came there, because watches coalesce. Of the past
/// it keeps only what decides: whether a connection is up and which, whose wish a closing is, and from which
/// state the frontend has to move before it is served again.
public struct BackendHandshake: Hashable, Sendable {
  /// The connection to the frontend. At most one is alive; the next one waits for `drained`.
  public enum Link: Hashable, Sendable {
    /// Nothing is shared.
    case idle
    /// Asked for.
    case connecting(generation: UInt32)
    /// Up.
    case connected(generation: UInt32)
    /// Going down; requests may still be in flight.
    case draining(generation: UInt32)
  }

  /// What a frontend's state means to us.
  private enum Phase: Hashable {
    case neverSeen, gone, starting, ready, closing, closed
  }

  /// The connection.
  public internal(set) var link = Link.idle
  /// What our own node holds, as last read or written; nil when it is gone or was not read yet.
  public private(set) var own: XenbusState?
  /// The frontend's last state that made sense.
  public private(set) var frontend: XenbusState?
  /// True after ``BackendAction/forget``: nothing happens any more.
  public private(set) var isForgotten = false

  /// True when the device is not to be used again: a Closed that follows is its end.
  public var isLeaving: Bool { isStopping || isForgotten || own == nil || !isOnline }

  private var hasStarted = false
  private var isStopping = false
  private var isOnline = false
  private var isHotplugReady = false
  private var frontendWasSeen = false
  /// The newest connection's number.
  var generation: UInt32 = 0
  /// The state without sense that was reported last, so that reading it again reports nothing.
  private var reported: XenbusState?
  /// The toolstack has written Closing: from there the way leads to Closed only.
  private var closingIsRequested = false
  /// The frontend is not served before it leaves this phase: a connection failed, or the toolstack closed.
  private var hold: Phase?
  /// The frontend has begun anew, although the connection is still up.
  private var linkIsStale = false
  /// Our node says InitWait, but an earlier daemon's features may stand beside it.
  private var mustPublish = false
  /// An earlier daemon had a connection, and the frontend still counts on it.
  private var mayResume = false
  /// Frontends of this kind change things while connected, by way of Reconfiguring.
  private let followsReconfiguring: Bool
  /// The frontend waits for its change to be taken over.
  private var isReconfiguring = false

  /// A device of which nothing is known yet; the first observation starts it. `followsReconfiguring` is for
  /// kinds whose frontends change things while connected (netif's XDP headroom, Linux commit 1c9535c701a7).
  public init(followsReconfiguring: Bool = false) { self.followsReconfiguring = followsReconfiguring }

  /// Takes an event and says what to do.
  public mutating func handle(_ event: BackendEvent) -> [BackendAction] {
    guard !isForgotten else { return [] }
    var actions: [BackendAction] = []
    switch event {
    case .observed(let observation):
      if hasStarted {
        observeOwn(observation.own)
      } else {
        start(with: observation)
      }
      isOnline = observation.isOnline
      isHotplugReady = observation.isHotplugReady
      observeFrontend(observation.frontend, &actions)
      if observation.hasNewKeys { linkIsStale = true }
    case .connectSucceeded(let generation):
      guard link == .connecting(generation: generation) else { return [] }
      link = .connected(generation: generation)
    case .connectFailed(let generation, let message):
      guard link == .connecting(generation: generation) else { return [] }
      link = .idle
      fail(message, &actions)
    case .connectionFailed(let generation, let message):
      guard link == .connected(generation: generation) else { return [] }
      fail(message, &actions)
    case .drained(let generation):
      guard link == .draining(generation: generation) else { return [] }
      link = .idle
    case .reconfigured(let generation):
      guard link == .connected(generation: generation), isReconfiguring else { return [] }
      isReconfiguring = false
      // Linux's netfront waits for this state, and then says Connected again.
      if own == .connected { enter(.reconfigured, &actions) }
    case .stop:
      isStopping = true
    }
    settle(&actions)
    return actions
  }

  // MARK: Taking in

  private mutating func start(with observation: BackendObservation) {
    hasStarted = true
    own = observation.own
    switch (own, observation.frontend) {
    case (.initWait, .initialised), (.initialised, .initialised), (.connected, .initialised),
      (.closing, .initialised), (.initWait, .connected), (.initialised, .connected), (.connected, .connected),
      (.closing, .connected):
      mayResume = true
    case (.reconfigured, .connected), (.reconfigured, .reconfiguring), (.connected, .reconfiguring):
      mayResume = followsReconfiguring
    default:
      break
    }
    mustPublish = own == .initWait
    // With Initialising or InitWait the frontend's directory may be about to come; otherwise it was there.
    frontendWasSeen = observation.frontend == nil && own != .initialising && own != .initWait
  }

  /// A value that we did not write is the toolstack's wish.
  private mutating func observeOwn(_ new: XenbusState?) {
    guard new != own else { return }
    own = new
    closingIsRequested = new == .closing
    switch new {
    case .closed: hold = phase
    case .initialising: hold = nil
    default: break
    }
  }

  private mutating func observeFrontend(_ new: XenbusState?, _ actions: inout [BackendAction]) {
    switch new {
    case nil, .initialising, .initialised, .connected, .closing, .closed:
      reported = nil
    case .reconfiguring where followsReconfiguring:
      reported = nil
    case .unknown, .initWait, .reconfiguring, .reconfigured:
      // No frontend of ours has business there. Linux closes the device; like QEMU we wait for a better
      // state.
      if let new, new != reported {
        actions.append(.reportError("the frontend's state is \(new) (\(new.text)), ignored"))
      }
      reported = new
      return
    }
    let before = phase
    let (wasConnected, wasReconfiguring) = (frontend == .connected, frontend == .reconfiguring)
    frontend = new
    frontendWasSeen = frontendWasSeen || new != nil
    if phase != before {
      hold = nil
      mayResume = mayResume && before == .neverSeen
    }
    // Initialised after Connected means new rings, as does being ready again after anything else.
    if phase == .ready, before != .ready || (wasConnected && new == .initialised) { linkIsStale = true }
    isReconfiguring = new == .reconfiguring && (isReconfiguring || !wasReconfiguring)
    if isReconfiguring, !wasReconfiguring, !linkIsStale, case .connected(let generation) = link {
      actions.append(.reconfigure(generation: generation))
    }
  }

  /// As Linux's xenbus_dev_fatal: the error is told, and Closing asks the frontend to let go.
  private mutating func fail(_ message: String, _ actions: inout [BackendAction]) {
    actions.append(.reportError(message))
    hold = phase
    if own != .closing, own != .closed { enter(.closing, &actions) }
  }

  // MARK: Acting

  private mutating func settle(_ actions: inout [BackendAction]) {
    guard hasStarted || isStopping else { return }
    let ending = own == nil || isStopping
    switch link {
    case .idle:
      linkIsStale = false
      // Three steps are the most (publish, close, forget); the bound is for the reader.
      for _ in 0..<8 {
        guard case .idle = link, !isForgotten else { return }
        if ending { return forget(&actions) }
        guard step(&actions) else { return }
      }
    case .connecting(let generation), .connected(let generation):
      if ending || mustDrain {
        link = .draining(generation: generation)
        actions.append(.disconnect(generation: generation))
        if !ending { followClosing(&actions) }
      } else if phase == .closing {
        followClosing(&actions)
      } else if case .connected = link, own != .connected, own != .closing, !isStillReconfigured {
        // A toolstack's Closing is never written over. What the frontend changes was read when it connected.
        enter(isReconfiguring ? .reconfigured : .connected, &actions)
        isReconfiguring = false
      }
    case .draining:
      if !ending { followClosing(&actions) }
    }
  }

  /// While the toolstack or the frontend only wants to close, requests are still served: a guest flushes its
  /// caches before it lets go. They end when the frontend has closed, has gone, or begins anew.
  private var mustDrain: Bool {
    if linkIsStale || own == .closed || own == .initialising { return true }
    switch phase {
    case .neverSeen, .ready, .closing: return false
    case .gone, .starting, .closed: return true
    }
  }

  /// One step without a connection; false when there is nothing to do but wait.
  private mutating func step(_ actions: inout [BackendAction]) -> Bool {
    guard let own else { return false }
    let isEnding = own == .closing && (closingIsRequested || !isOnline)
    if mayResume, phase == .ready, own != .closed, own != .initialising {
      if isHotplugReady {
        connect(resume: true, &actions)
        return true
      }
      if !isEnding { return false }
    }
    if isEnding {
      // Nothing is shared, so there is nothing to wait for.
      hold = phase
      closingIsRequested = false
      enter(.closed, &actions)
      return true
    }
    if own == .closed, !isOnline {
      forget(&actions)
      return true
    }
    if own == .closing || own == .closed, hold == phase { return false }
    if isUnpublished(own) {
      publish(&actions)
      return true
    }
    switch phase {
    case .neverSeen:
      return false
    case .gone, .closed:
      guard own != .closed else { return false }
      enter(.closed, &actions)
      return true
    case .closing:
      guard own != .closing else { return false }
      enter(.closing, &actions)
      return true
    case .starting:
      guard own != .initWait else { return false }
      publish(&actions)
      return true
    case .ready:
      if own != .initWait {
        publish(&actions)
        return true
      }
      // libxl runs the hotplug script only after it has seen InitWait, and fails when it misses it.
      guard isHotplugReady else { return false }
      connect(resume: false, &actions)
      return true
    }
  }

  /// True for a device that is new to us, and for one whose features another daemon wrote, as long as the
  /// frontend has not used them.
  private func isUnpublished(_ own: XenbusState) -> Bool {
    switch own {
    case .reconfigured where followsReconfiguring: false
    case .unknown, .initialising, .reconfiguring, .reconfigured: true
    case .initWait: mustPublish && phase != .ready
    case .initialised, .connected, .closing, .closed: false
    }
  }

  /// Answers the frontend's Closing, while a connection is or was up; but a device made anew starts anew.
  private mutating func followClosing(_ actions: inout [BackendAction]) {
    guard phase == .closing, own != .closing, own != .closed, own != .initialising else { return }
    enter(.closing, &actions)
  }

  private mutating func enter(_ state: XenbusState, _ actions: inout [BackendAction]) {
    guard let own else { return }
    actions.append(.switchState(from: own, to: state))
    self.own = state
  }

  private mutating func publish(_ actions: inout [BackendAction]) {
    guard let own else { return }
    actions.append(.publishFeatures(from: own, thenState: .initWait))
    self.own = .initWait
    mustPublish = false
    mayResume = false
    hold = nil
  }

  private mutating func connect(resume: Bool, _ actions: inout [BackendAction]) {
    generation &+= 1
    link = .connecting(generation: generation)
    mayResume = false
    mustPublish = false
    actions.append(.connect(generation: generation, resume: resume))
  }

  private mutating func forget(_ actions: inout [BackendAction]) {
    isForgotten = true
    actions.append(.forget)
  }

  /// Reconfigured counts as connected, and nobody expects us to leave it (xenbus.c of Linux's netback).
  private var isStillReconfigured: Bool { followsReconfiguring && own == .reconfigured }

  private var phase: Phase {
    switch frontend {
    case .initialising: .starting
    case .initialised, .connected: .ready
    case .reconfiguring where followsReconfiguring: .ready
    case .closing: .closing
    case .closed: .closed
    case nil, .unknown, .initWait, .reconfiguring, .reconfigured: frontendWasSeen ? .gone : .neverSeen
    }
  }
}
