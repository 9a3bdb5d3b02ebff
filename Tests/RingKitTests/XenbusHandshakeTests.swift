import RingKit
import Testing

/// Each scenario by name, with everything our side writes.
@Suite struct XenbusHandshakeTests {
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

  /// A guest that resumes may be Connected again before anybody has read Initialised.
  @Test func newKeysReconnectWhateverTheStateSays() {
    for state in [XenbusState.initialised, .connected] {
      var world = connectedWorld()
      world.frontend = state
      world.observe(hasNewKeys: true)
      #expect(world.draining == [1])
      world.finishDraining()
      #expect(world.connecting == [2])
      world.observe()
      world.finishConnecting()
      expect(world, own: .connected, written: [.initWait, .connected, .initWait, .connected], live: 1)
    }
  }

  @Test func aClosedThatIsTheEndIsToldFromOneThatIsNot() {
    var world = connectedWorld()
    #expect(!world.handshake.isLeaving)
    world.frontend(.closed)
    world.finishDraining()
    #expect(world.own == .closed && !world.handshake.isLeaving)
    world = connectedWorld()
    world.toolstack(.closing, online: false)
    #expect(world.handshake.isLeaving)
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
    expect(
      world, own: .closed, written: [.initWait, .connected, .closing, .closed, .closed], forgotten: true)
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
}
