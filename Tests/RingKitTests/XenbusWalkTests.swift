import RingKit
import Testing

/// Everything that can happen, in every state it can happen in, and long walks in which the nodes change
/// faster than they are read.
@Suite struct XenbusWalkTests {
  static let states: [XenbusState?] = [nil] + XenbusState.allCases.map { $0 }

  enum Step: Hashable {
    case own(XenbusState?), unplug, frontend(XenbusState?), online(Bool), hotplug(Bool)
    case connected, connectFails, breaks, drained, reconfigured, stop, observe, newKeys, staleAnswers

    static let all: [Step] =
      states.map { .own($0) } + states.map { .frontend($0) }
      + [
        .unplug, .online(true), .online(false), .hotplug(true), .hotplug(false), .connected, .connectFails,
        .breaks, .drained, .reconfigured, .stop, .observe, .newKeys, .staleAnswers,
      ]

    /// Does the step; the nodes are read at once unless `isLazy`.
    func apply(to world: inout XenbusWorld, isLazy: Bool = false) {
      switch self {
      case .own(let state): world.own = state
      case .unplug: (world.own, world.isOnline) = (.closing, false)
      case .frontend(let state): world.frontend = state
      case .online(let isOnline): world.isOnline = isOnline
      case .hotplug(let isReady): world.isHotplugReady = isReady
      case .connected: return world.finishConnecting()
      case .connectFails: return world.finishConnecting(failing: "no")
      case .breaks: return world.breakConnection()
      case .drained: return world.finishDraining()
      case .reconfigured: return world.finishReconfiguring()
      case .stop: return world.stop()
      case .observe: return world.observe()
      case .newKeys: return world.observe(hasNewKeys: true)
      case .staleAnswers:
        world.send(.connectSucceeded(generation: .max))
        world.send(.connectFailed(generation: .max, message: "stale"))
        world.send(.connectionFailed(generation: .max, message: "stale"))
        world.send(.drained(generation: .max))
        world.send(.reconfigured(generation: .max))
        return
      }
      if !isLazy { world.observe() }
    }
  }

  /// From here on everybody behaves: the frontend closes and starts anew. It must end connected, unless the
  /// device is gone or going.
  static func settleByReconnect(_ start: XenbusWorld) -> String? {
    var world = start
    world.isHotplugReady = true
    world.isOnline = true
    world.observe()
    world.answerAll()
    if world.isForgotten { return nil }
    world.frontend(.closing)
    world.answerAll()
    guard world.own == .closing || world.own == .closed else { return "no answer to Closing" }
    world.frontend(.closed)
    world.answerAll()
    guard world.own == .closed, world.live == 0 else { return "no answer to Closed" }
    world.frontend(.initialising)
    guard world.own == .initWait else { return "no InitWait for a new frontend: \(world.own, or: "gone")" }
    world.frontend(.initialised)
    world.answerAll()
    world.frontend(.connected)
    world.answerAll()
    if world.followsReconfiguring {
      world.frontend(.reconfiguring)
      world.answerAll()
      guard world.own == .reconfigured, world.live == 1 else { return "no answer to Reconfiguring" }
      world.frontend(.connected)
      guard world.own == .reconfigured, world.live == 1 else { return "Reconfigured did not stay" }
      return world.violations.first
    }
    guard world.own == .connected, world.live == 1 else { return "not connected: \(world.own, or: "gone")" }
    return world.violations.first
  }

  /// The toolstack unplugs and the frontend plays along: Closed, and forgotten.
  static func settleByUnplug(_ start: XenbusWorld) -> String? {
    var world = start
    let wasGone = world.own == nil || world.isForgotten
    world.toolstack(world.own == nil ? nil : .closing, online: false)
    world.answerAll()
    if world.frontend != nil { world.frontend(.closing) }
    world.answerAll()
    if world.frontend != nil { world.frontend(.closed) }
    world.answerAll()
    guard world.isForgotten, world.live == 0 else { return "unplug left the device" }
    guard wasGone || world.own == .closed else { return "unplug ended in \(world.own, or: "gone")" }
    return world.violations.first
  }

  /// Both directories vanish.
  static func settleByForce(_ start: XenbusWorld) -> String? {
    var world = start
    world.frontend = nil
    world.toolstack(nil)
    world.answerAll()
    guard world.isForgotten, world.live == 0 else { return "force left the device" }
    return world.violations.first
  }

  static func settleByStop(_ start: XenbusWorld) -> String? {
    var world = start
    world.stop()
    world.answerAll()
    guard world.isForgotten, world.live == 0 else { return "stop left the device" }
    return world.violations.first
  }

  /// Every state that any sequence of steps reaches, from every way a device can be found.
  @Test(arguments: [false, true])
  func everyReachableStateKeepsTheRulesAndSettles(followsReconfiguring: Bool) {
    struct Visit {
      var world: XenbusWorld
      var parent: Int
      var step: String
    }
    var visits: [Visit] = []
    var known: Set<XenbusWorld.Key> = []
    func story(_ index: Int) -> Comment {
      var lines: [String] = []
      var at = index
      while at >= 0 {
        lines.append(visits[at].step)
        at = visits[at].parent
      }
      return Comment(rawValue: lines.reversed().joined(separator: " > "))
    }
    for own in Self.states {
      for frontend in Self.states {
        for bits in 0..<4 {
          var world = XenbusWorld(
            own: own, frontend: frontend, isOnline: bits & 1 != 0, isHotplugReady: bits & 2 != 0,
            followsReconfiguring: followsReconfiguring)
          world.isTracing = false
          world.observe()
          guard known.insert(world.key).inserted else { continue }
          visits.append(
            Visit(world: world, parent: -1, step: "found \(own, or: "gone") \(frontend, or: "gone") \(bits)"))
        }
      }
    }
    var next = 0
    var failures = 0
    while next < visits.count, failures < 5 {
      let world = visits[next].world
      // A daemon that stops answers nobody any more; it only drains.
      let ends =
        world.isStopping
        ? [Self.settleByForce, Self.settleByStop]
        : [Self.settleByReconnect, Self.settleByUnplug, Self.settleByForce, Self.settleByStop]
      for settle in ends {
        guard let failure = settle(world) else { continue }
        failures += 1
        Issue.record("\(failure): \(story(next))")
      }
      for step in Step.all where !world.isForgotten {
        var reached = world
        step.apply(to: &reached)
        let isNew = known.insert(reached.key).inserted
        if isNew { visits.append(Visit(world: reached, parent: next, step: "\(step)")) }
        if !reached.violations.isEmpty {
          failures += 1
          Issue.record("\(reached.violations): \(story(next)) > \(step)")
        }
      }
      next += 1
    }
    #expect(visits.count > 3000, "the walk is cut off: \(visits.count) states")
  }

  @Test(arguments: 0..<200) func walksWithLateReadingsKeepTheRulesAndSettle(seed: UInt64) {
    var random = SplitMix(state: seed)
    for _ in 0..<20 {
      var world = XenbusWorld(
        own: random.pick(Self.states), frontend: random.pick(Self.states), isOnline: random.chance(2),
        isHotplugReady: random.chance(2), followsReconfiguring: random.chance(2))
      world.observe()
      for _ in 0..<random.below(60) {
        // A stop ends most walks too early to be of interest.
        let step = random.pick(Step.all)
        if step == .stop, !random.chance(20) { continue }
        step.apply(to: &world, isLazy: random.chance(2))
      }
      if !world.isStopping {
        // Of a walk that is still under way, each end must be reachable.
        for settle in [Self.settleByReconnect, Self.settleByUnplug, Self.settleByForce] {
          if let failure = settle(world) { Issue.record("seed \(seed): \(failure)\n\(world.story)") }
        }
      }
      if let failure = Self.settleByStop(world) { Issue.record("seed \(seed): \(failure)\n\(world.story)") }
      guard world.violations.isEmpty else {
        // One story is enough.
        Issue.record("seed \(seed)\n\(world.story)")
        return
      }
    }
  }
}

extension DefaultStringInterpolation {
  mutating func appendInterpolation(_ state: XenbusState?, or absent: String) {
    appendInterpolation(state?.description ?? absent)
  }
}

/// A small generator, so that a seed is a walk.
struct SplitMix: RandomNumberGenerator {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var mixed = state
    mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
    return mixed ^ (mixed >> 31)
  }

  mutating func below(_ bound: Int) -> Int { Int(next() % UInt64(bound)) }
  mutating func chance(_ oneIn: Int) -> Bool { below(oneIn) == 0 }
  mutating func pick<Element>(_ elements: [Element]) -> Element { elements[below(elements.count)] }
}
