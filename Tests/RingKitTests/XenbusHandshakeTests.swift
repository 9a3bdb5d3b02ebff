import RingKit
import Testing

/// Each scenario by name, with everything our side writes.
@Suite struct XenbusHandshakeTests {
  /// A device that is connected in the ordinary way.
  private func connectedWorld() -> XenbusWorld {
    var world = XenbusWorld(own: .initialising, frontend: .initialising)
    world.observe()
    world.frontend(.initialised)
    world.finishConnecting()
    world.frontend(.connected)
    return world
  }

  private func expect(
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

  @Test func ordinaryLife() {
    var world = connectedWorld()
    expect(world, own: .connected, written: [.initWait, .connected], live: 1)
    world.frontend(.closing)
    expect(world, own: .closing, written: [.initWait, .connected, .closing], live: 1)
    world.frontend(.closed)
    // Closed waits for the last request.
    expect(world, own: .closing, written: [.initWait, .connected, .closing], live: 1)
    world.finishDraining()
    expect(world, own: .closed, written: [.initWait, .connected, .closing, .closed])
    world.frontend(.initialising)
    expect(world, own: .initWait, written: [.initWait, .connected, .closing, .closed, .initWait])
    world.frontend(.initialised)
    world.finishConnecting()
    expect(
      world, own: .connected, written: [.initWait, .connected, .closing, .closed, .initWait, .connected],
      live: 1)
    #expect(world.resumed == [false, false])
    #expect(world.errors.isEmpty)
  }

  @Test func featuresComeBeforeInitWaitAndAgainAtReconnect() {
    var handshake = BackendHandshake()
    func see(_ own: XenbusState?, _ frontend: XenbusState?) -> [BackendAction] {
      handshake.handle(
        .observed(BackendObservation(own: own, frontend: frontend, isOnline: true, isHotplugReady: true)))
    }
    #expect(
      see(.initialising, .initialising) == [.publishFeatures(from: .initialising, thenState: .initWait)])
    #expect(see(.initWait, .initialised) == [.connect(generation: 1, resume: false)])
    #expect(
      handshake.handle(.connectSucceeded(generation: 1)) == [.switchState(from: .initWait, to: .connected)])
    #expect(see(.connected, .closed) == [.disconnect(generation: 1)])
    #expect(handshake.handle(.drained(generation: 1)) == [.switchState(from: .connected, to: .closed)])
    #expect(see(.closed, .initialising) == [.publishFeatures(from: .closed, thenState: .initWait)])
  }

  @Test func staysInInitWaitUntilHotplugIsReady() {
    var world = XenbusWorld(own: .initialising, frontend: .initialising, isHotplugReady: false)
    world.observe()
    world.frontend(.initialised)
    world.frontend(.connected)
    expect(world, own: .initWait, written: [.initWait])
    world.isHotplugReady = true
    world.observe()
    world.finishConnecting()
    expect(world, own: .connected, written: [.initWait, .connected], live: 1)
  }

  @Test func watchesThatCoalesceConnectFromConnected() {
    var world = XenbusWorld(own: .initialising, frontend: .connected)
    world.observe()
    world.finishConnecting()
    expect(world, own: .connected, written: [.initWait, .connected], live: 1)
    #expect(world.resumed == [false])
  }

  @Test func duplicatesAndOwnEchoesDoNothing() {
    var world = connectedWorld()
    let trace = world.written
    for _ in 0..<100 { world.observe() }
    expect(world, own: .connected, written: trace, live: 1)
    world.frontend(.closing)
    for _ in 0..<100 { world.observe() }
    world.frontend(.closed)
    for _ in 0..<100 { world.observe() }
    world.finishDraining()
    for _ in 0..<100 { world.observe() }
    expect(world, own: .closed, written: trace + [.closing, .closed])
  }

  @Test func initialisedAgainReconnectsOneAfterTheOther() {
    var world = connectedWorld()
    world.frontend(.initialised)
    // The old connection drains first, then features, then the new one.
    expect(world, own: .connected, written: [.initWait, .connected], live: 1)
    #expect(world.draining == [1])
    world.finishDraining()
    #expect(world.connecting == [2])
    world.finishConnecting()
    expect(world, own: .connected, written: [.initWait, .connected, .initWait, .connected], live: 1)
  }

  @Test func stillInitialisedIsNoReconnect() {
    var world = XenbusWorld(own: .initialising, frontend: .initialising)
    world.observe()
    world.frontend(.initialised)
    world.finishConnecting()
    world.observe()
    world.observe()
    expect(world, own: .connected, written: [.initWait, .connected], live: 1)
    #expect(world.draining.isEmpty)
  }

  @Test func kexecDrives561AndGetsInitWait() {
    var world = connectedWorld()
    world.frontend(.closing)
    #expect(world.own == .closing)
    world.frontend(.closed)
    world.finishDraining()
    #expect(world.own == .closed)
    world.frontend(.initialising)
    #expect(world.own == .initWait)
    world.frontend(.initialised)
    world.finishConnecting()
    expect(
      world, own: .connected, written: [.initWait, .connected, .closing, .closed, .initWait, .connected],
      live: 1)
  }

  @Test func theWholeDanceSeenAtOnceGoesBackToInitWait() {
    for state in [XenbusState.initialising, .initialised, .connected] {
      var world = connectedWorld()
      world.frontend(.closing)
      world.frontend(state)
      world.finishDraining()
      world.frontend(.initialised)
      world.answerAll()
      world.frontend(.connected)
      expect(
        world, own: .connected, written: [.initWait, .connected, .closing, .initWait, .connected], live: 1)
    }
    var world = connectedWorld()
    world.frontend(.initialising)
    #expect(world.draining == [1])
    world.finishDraining()
    expect(world, own: .initWait, written: [.initWait, .connected, .initWait])
  }

  @Test func windowsWaitsForClosingThenForClosed() {
    // It writes Closing until it reads Closing, then Closed until it reads Closed, also when nothing is up.
    var world = XenbusWorld(own: .initialising, frontend: .initialising)
    world.observe()
    for _ in 0..<3 {
      world.frontend(.closing)
      world.frontend(.closing)
      #expect(world.own == .closing)
      world.frontend(.closed)
      world.answerAll()
      #expect(world.own == .closed)
      world.frontend(.closing)
      #expect(world.own == .closing)
      world.frontend(.closed)
      #expect(world.own == .closed)
      world.frontend(.initialising)
      #expect(world.own == .initWait)
      world.frontend(.initialised)
      world.finishConnecting()
      #expect(world.own == .connected)
      world.frontend(.connected)
    }
    #expect(world.violations.isEmpty, Comment(rawValue: world.story))
    #expect(world.live == 1)
  }

  @Test func unplugServesUntilTheFrontendLetsGo() {
    var world = connectedWorld()
    world.toolstack(.closing, online: false)
    world.observe()
    // The guest writes its caches out first.
    expect(world, own: .closing, written: [.initWait, .connected], live: 1)
    #expect(world.draining.isEmpty)
    world.frontend(.closing)
    #expect(world.draining.isEmpty)
    world.frontend(.closed)
    world.finishDraining()
    expect(world, own: .closed, written: [.initWait, .connected, .closed], forgotten: true)
  }

  @Test func unplugOfWhatNobodyUsesIsImmediate() {
    for frontend in [XenbusState?.none, .initialising, .initialised, .closing, .closed] {
      var world = XenbusWorld(own: .initialising, frontend: .initialising, isHotplugReady: false)
      world.observe()
      world.frontend = frontend
      world.toolstack(.closing, online: false)
      #expect(world.own == .closed)
      #expect(world.isForgotten)
      #expect(world.violations.isEmpty, Comment(rawValue: world.story))
    }
  }

  @Test func unplugAfterTheGuestHasClosed() {
    var world = connectedWorld()
    world.frontend(.closing)
    world.frontend(.closed)
    world.finishDraining()
    world.toolstack(.closing, online: false)
    expect(world, own: .closed, written: [.initWait, .connected, .closing, .closed, .closed], forgotten: true)
  }

  @Test func unplugThenTheGuestRestarts() {
    var world = connectedWorld()
    world.toolstack(.closing, online: false)
    world.frontend(.initialising)
    world.finishDraining()
    expect(world, own: .closed, written: [.initWait, .connected, .closed], forgotten: true)
  }

  @Test func aToolstacksClosingIsNeverWrittenOver() {
    for online in [true, false] {
      var world = XenbusWorld(own: .initialising, frontend: .initialising)
      world.observe()
      world.frontend(.initialised)
      // It comes while the connection is being made.
      world.toolstack(.closing, online: online)
      world.finishConnecting()
      expect(world, own: .closing, written: [.initWait], live: 1)
      // And between our read and our write.
      var racing = XenbusWorld(own: .initialising, frontend: .initialising)
      racing.observe()
      racing.frontend(.initialised)
      racing.own = .closing
      racing.isOnline = online
      racing.finishConnecting()
      expect(racing, own: .closing, written: [.initWait], live: 1)
      // Not even when the frontend plays with its state.
      for state in [XenbusState.connected, .closing, .initialised, .connected] { world.frontend(state) }
      world.answerAll()
      #expect(!world.written.contains(.connected))
      #expect(world.own == .closed)
      #expect(world.isForgotten == !online)
      #expect(world.violations.isEmpty, Comment(rawValue: world.story))
    }
  }

  @Test func forcedRemovalTakesBothDirectories() {
    for frontendGoesFirst in [true, false] {
      var world = connectedWorld()
      world.toolstack(.closing, online: false)
      if frontendGoesFirst {
        world.frontend(nil)
        #expect(world.draining == [1])
        world.toolstack(nil)
      } else {
        world.toolstack(nil)
        world.frontend(nil)
      }
      world.finishDraining()
      expect(world, own: nil, written: [.initWait, .connected], forgotten: true)
    }
  }

  @Test func forcedClosedDrainsAndWritesNothing() {
    for online in [true, false] {
      var world = connectedWorld()
      world.toolstack(.closed, online: online)
      #expect(world.draining == [1])
      world.finishDraining()
      expect(world, own: .closed, written: [.initWait, .connected], forgotten: !online)
      // A frontend that has not noticed is not served; one that starts anew is, if the device stays.
      world.observe()
      world.frontend(.initialised)
      world.answerAll()
      expect(world, own: .closed, written: [.initWait, .connected], forgotten: !online)
      world.frontend(.initialising)
      #expect(world.own == (online ? .initWait : .closed))
    }
  }

  @Test func theGuestDies() {
    for online in [true, false] {
      var world = connectedWorld()
      world.isOnline = online
      world.frontend(nil)
      #expect(world.draining == [1])
      world.finishDraining()
      expect(world, own: .closed, written: [.initWait, .connected, .closed], forgotten: !online)
    }
  }

  @Test func aFrontendDirectoryThatComesLateIsAwaited() {
    var world = XenbusWorld(own: .initialising, frontend: nil)
    world.observe()
    world.observe()
    expect(world, own: .initWait, written: [.initWait])
    world.frontend(.initialising)
    world.frontend(.initialised)
    world.finishConnecting()
    expect(world, own: .connected, written: [.initWait, .connected], live: 1)
  }

  @Test func closedOfflineDeviceIsForgottenAtSight() {
    var world = XenbusWorld(own: .closed, frontend: .initialising, isOnline: false)
    world.observe()
    expect(world, own: .closed, written: [], forgotten: true)
    var gone = XenbusWorld(own: nil, frontend: nil)
    gone.observe()
    expect(gone, own: nil, written: [], forgotten: true)
  }

  @Test func aDirectoryMadeAnewStartsAnew() {
    var world = connectedWorld()
    world.frontend = .initialising
    world.toolstack(.initialising)
    #expect(world.draining == [1])
    world.finishDraining()
    world.frontend(.initialised)
    world.finishConnecting()
    expect(world, own: .connected, written: [.initWait, .connected, .initWait, .connected], live: 1)
  }

  // MARK: Restart

  @Test func aNewDaemonTakesTheConnectionOver() {
    let cases: [(XenbusState, XenbusState, [XenbusState])] = [
      (.connected, .connected, []), (.connected, .initialised, []), (.initialised, .connected, [.connected]),
      (.initWait, .connected, [.connected]), (.initWait, .initialised, [.connected]),
      (.closing, .connected, []),
    ]
    for (own, frontend, written) in cases {
      var world = XenbusWorld(own: own, frontend: frontend, isHotplugReady: false)
      world.observe()
      // The storage may open late: until then nothing regresses.
      expect(world, own: own, written: [])
      world.isHotplugReady = true
      world.observe()
      world.finishConnecting()
      #expect(world.resumed == [true])
      expect(world, own: written.last ?? own, written: written, live: 1)
    }
    // Only the first connection is a resumed one.
    var world = XenbusWorld(own: .connected, frontend: .connected)
    world.observe()
    world.finishConnecting()
    world.frontend(.initialised)
    world.answerAll()
    #expect(world.resumed == [true, false])
    expect(world, own: .connected, written: [.initWait, .connected], live: 1)
  }

  @Test func aFrontendThatMovedMeanwhileIsNotResumed() {
    var world = XenbusWorld(own: .connected, frontend: .connected, isHotplugReady: false)
    world.observe()
    world.frontend(.closing)
    world.isHotplugReady = true
    world.frontend(.connected)
    world.finishConnecting()
    #expect(world.resumed == [false])
    expect(world, own: .connected, written: [.closing, .initWait, .connected], live: 1)
  }

  @Test func aNewDaemonLetsAnUnpluggedGuestFlush() {
    var world = XenbusWorld(own: .closing, frontend: .connected, isOnline: false)
    world.observe()
    world.finishConnecting()
    #expect(world.resumed == [true])
    expect(world, own: .closing, written: [], live: 1)
    world.frontend(.closed)
    world.finishDraining()
    expect(world, own: .closed, written: [.closed], forgotten: true)
  }

  @Test func aNewDaemonFindsWhatHappenedMeanwhile() {
    let cases: [(XenbusState, XenbusState?, XenbusState)] = [
      (.connected, nil, .closed), (.connected, .closed, .closed), (.connected, .closing, .closing),
      (.connected, .initialising, .initWait), (.initWait, .initialising, .initWait),
      (.closing, .closed, .closed), (.closing, .closing, .closing), (.closing, .initialising, .initWait),
      (.closed, .closed, .closed), (.closed, .initialising, .initWait), (.initWait, nil, .initWait),
    ]
    for (own, frontend, result) in cases {
      var world = XenbusWorld(own: own, frontend: frontend)
      world.observe()
      #expect(world.own == result, "\(own), \(String(describing: frontend))")
      #expect(world.violations.isEmpty, Comment(rawValue: world.story))
    }
    // Features of the earlier daemon are written anew, once.
    var world = XenbusWorld(own: .initWait, frontend: .initialising)
    world.observe()
    world.observe()
    expect(world, own: .initWait, written: [.initWait])
  }

  @Test func stopDrainsAndLeavesTheNodes() {
    var world = connectedWorld()
    world.stop()
    world.frontend(.closing)
    world.observe()
    #expect(!world.isForgotten)
    world.finishDraining()
    expect(world, own: .connected, written: [.initWait, .connected], forgotten: true)
    var idle = XenbusWorld(own: .initialising, frontend: .initialising)
    idle.observe()
    idle.stop()
    expect(idle, own: .initWait, written: [.initWait], forgotten: true)
    var unseen = XenbusWorld(own: .initialising, frontend: .initialising)
    unseen.stop()
    expect(unseen, own: .initialising, written: [], forgotten: true)
  }

  // MARK: Trouble

  @Test func aFailedConnectionIsToldAndNotTriedAgainAtOnce() {
    var world = XenbusWorld(own: .initialising, frontend: .initialising)
    world.observe()
    world.frontend(.initialised)
    world.finishConnecting(failing: "ring-ref is missing")
    #expect(world.errors == ["ring-ref is missing"])
    expect(world, own: .closing, written: [.initWait, .closing])
    for state in [XenbusState.initialised, .connected, .initialised] { world.frontend(state) }
    expect(world, own: .closing, written: [.initWait, .closing])
    world.frontend(.closing)
    world.frontend(.closed)
    world.frontend(.initialising)
    world.frontend(.initialised)
    world.finishConnecting()
    expect(
      world, own: .connected, written: [.initWait, .closing, .closed, .initWait, .connected], live: 1)
  }

  @Test func aBrokenConnectionStaysUntilTheFrontendCloses() {
    var world = connectedWorld()
    world.breakConnection("ring broken")
    #expect(world.errors == ["ring broken"])
    expect(world, own: .closing, written: [.initWait, .connected, .closing], live: 1)
    world.frontend(.closing)
    world.frontend(.closed)
    world.finishDraining()
    expect(world, own: .closed, written: [.initWait, .connected, .closing, .closed])
  }

  @Test func answersOfOtherGenerationsAreIgnored() {
    var world = connectedWorld()
    for generation in [UInt32(0), 2, .max] {
      world.send(.connectSucceeded(generation: generation))
      world.send(.connectFailed(generation: generation, message: "late"))
      world.send(.connectionFailed(generation: generation, message: "late"))
      world.send(.drained(generation: generation))
    }
    world.send(.connectSucceeded(generation: 1))
    world.send(.connectFailed(generation: 1, message: "late"))
    world.send(.drained(generation: 1))
    expect(world, own: .connected, written: [.initWait, .connected], live: 1)
    #expect(world.errors.isEmpty)
    world.frontend(.closed)
    world.send(.connectSucceeded(generation: 1))
    world.send(.connectFailed(generation: 1, message: "late"))
    world.send(.connectionFailed(generation: 1, message: "late"))
    expect(world, own: .connected, written: [.initWait, .connected], live: 1)
    world.finishDraining()
    world.send(.drained(generation: 1))
    expect(world, own: .closed, written: [.initWait, .connected, .closed])
  }

  @Test func closingWhileConnectingIsAnswered() {
    var world = XenbusWorld(own: .initialising, frontend: .initialising)
    world.observe()
    world.frontend(.initialised)
    world.frontend(.closing)
    #expect(world.own == .closing)
    world.finishConnecting()
    expect(world, own: .closing, written: [.initWait, .closing], live: 1)
    world.frontend(.closed)
    world.finishDraining()
    expect(world, own: .closed, written: [.initWait, .closing, .closed])
    // Or the frontend is gone before the connection is up: it is drained all the same.
    var second = XenbusWorld(own: .initialising, frontend: .initialised)
    second.observe()
    second.frontend(.closed)
    #expect(second.draining == [1])
    second.finishDraining()
    expect(second, own: .closed, written: [.initWait, .closed])
  }

  @Test func statesWithoutSenseAreToldOnceAndIgnored() {
    for state in [XenbusState.unknown, .initWait, .reconfiguring, .reconfigured] {
      var world = connectedWorld()
      for _ in 0..<10 { world.frontend(state) }
      #expect(world.errors.count == 1)
      world.frontend(.connected)
      world.frontend(state)
      #expect(world.errors.count == 2)
      expect(world, own: .connected, written: [.initWait, .connected], live: 1)
      var fresh = XenbusWorld(own: .initialising, frontend: state)
      fresh.observe()
      expect(fresh, own: .initWait, written: [.initWait])
    }
  }

  @Test func togglingNeverHasTwoConnections() {
    var world = XenbusWorld(own: .initialising, frontend: .initialising)
    world.observe()
    for round in 0..<1000 {
      for state in [XenbusState.initialised, .connected, .closed, .initialising, .connected, .initialised] {
        world.frontend(state)
      }
      if round % 3 == 0 { world.finishConnecting() }
      if round % 2 == 0 { world.finishDraining() }
    }
    #expect(world.violations.isEmpty, Comment(rawValue: world.story))
    world.frontend(.closed)
    world.answerAll()
    #expect(world.own == .closed)
    #expect(world.live == 0)
  }
}
