import RingKit
import Testing

/// What a new daemon finds, and what goes wrong.
@Suite struct XenbusTroubleTests {
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

  /// Linux's netfront changes its XDP headroom that way (commit 1c9535c701a7), and waits for Reconfigured.
  @Test func aChangeWhileConnectedIsTakenOverOnceForEachTime() {
    var world = connectedWorld(followsReconfiguring: true)
    for round in 0..<3 {
      world.frontend(.reconfiguring)
      world.frontend(.reconfiguring)
      #expect(world.reconfiguring == [1])
      #expect(world.own == (round == 0 ? .connected : .reconfigured), "not before the queues have it")
      world.finishReconfiguring()
      world.frontend(.connected)
      #expect(world.reconfiguring.isEmpty)
      expect(world, own: .reconfigured, written: [.initWait, .connected, .reconfigured], live: 1)
    }
    world.frontend(.closing)
    world.frontend(.closed)
    world.finishDraining()
    expect(
      world, own: .closed, written: [.initWait, .connected, .reconfigured, .closing, .closed])
  }

  @Test func aChangeSeenBeforeTheConnectionIsUpIsAnsweredByIt() {
    var world = XenbusWorld(own: .initialising, frontend: .initialising, followsReconfiguring: true)
    world.observe()
    world.frontend(.connected)
    world.frontend(.reconfiguring)
    world.finishConnecting()
    expect(world, own: .reconfigured, written: [.initWait, .reconfigured], live: 1)
    #expect(world.reconfiguring.isEmpty)
  }
}
