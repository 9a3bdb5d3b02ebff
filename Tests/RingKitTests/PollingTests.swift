import Glibc
import RingKit
import Synchronization
import Testing

/// One side of a ring in miniature: a producer's index, and the index whose passing asks for an event.
private final class PollRing: Sendable {
  let produced = Atomic<UInt64>(0)
  let event = Atomic<UInt64>(1)
  let consumed = Atomic<UInt64>(0)
  let runs = Atomic<UInt64>(0)
  let unarmedRuns = Atomic<UInt64>(0)
  let refuses = Atomic(false)

  /// Adds one; true when the other side has to be told.
  func push() -> Bool {
    let index = produced.add(1, ordering: .sequentiallyConsistent).newValue
    return event.load(ordering: .sequentiallyConsistent) == index
  }

  /// Waits until all that was pushed was consumed; false after ten seconds.
  func waitConsumed() -> Bool {
    let deadline = MonotonicClock.nowNanoseconds() + 10_000_000_000
    let target = produced.load(ordering: .relaxed)
    while consumed.load(ordering: .acquiring) < target {
      if MonotonicClock.nowNanoseconds() > deadline { return false }
      sched_yield()
    }
    return true
  }
}

/// A queue that takes what is in such a ring, a few at a time.
private final class PolledQueue: DataQueue {
  let ring: PollRing
  init(_ ring: PollRing) { self.ring = ring }

  static var canPoll: Bool { true }

  func hasWork() -> Bool {
    ring.produced.load(ordering: .acquiring) > ring.consumed.load(ordering: .relaxed)
  }

  func kicked() {}
  func completed(token: UInt32, result: Int32) {}
  func run(now: UInt64) -> QueueTurn { run(now: now, arms: true) }

  func run(now: UInt64, arms: Bool) -> QueueTurn {
    ring.runs.add(1, ordering: .relaxed)
    if !arms { ring.unarmedRuns.add(1, ordering: .relaxed) }
    if ring.refuses.load(ordering: .acquiring) { return .idle(unmaskAfterNanoseconds: 0) }
    let produced = ring.produced.load(ordering: .sequentiallyConsistent)
    let taken = min(produced, ring.consumed.load(ordering: .relaxed) + 4)
    ring.consumed.store(taken, ordering: .releasing)
    if taken < produced { return .again }
    guard arms else { return .idle(unmaskAfterNanoseconds: 0) }
    ring.event.store(taken + 1, ordering: .sequentiallyConsistent)
    return ring.produced.load(ordering: .sequentiallyConsistent) > taken
      ? .again : .idle(unmaskAfterNanoseconds: 0)
  }
}

/// A thread that looks for work before it sleeps.
@Suite(.serialized) struct PollingTests {
  private typealias Thread = DataThread<PolledQueue>
  let hypervisor = FakeHypervisor()

  /// A thread with `count` queues, each with a bound port, and their rings.
  private func start(
    _ engine: IOEngine, pollNanoseconds: UInt64, count: Int = 1
  ) throws -> (Thread, [PollRing]) {
    var configuration = DataThreadConfiguration()
    configuration.ringEntries = 16
    configuration.poolByteCount = 1 << 20
    configuration.engine = engine
    configuration.pollNanoseconds = pollNanoseconds
    let thread = try Thread(number: 1, hypervisor: hypervisor, configuration: configuration)
    let rings = (0..<count).map { _ in PollRing() }
    for (number, ring) in rings.enumerated() {
      let port = try thread.ask { loop -> Port? in
        guard let key = loop.add(PolledQueue(ring)) else { return nil }
        return try? loop.bind(
          key, domain: DomainID(rawValue: 1), remotePort: Port(rawValue: UInt32(number)))
      }
      #expect(port == .some(Port(rawValue: UInt32(number) + 40)))
    }
    return (thread, rings)
  }

  private func push(_ ring: PollRing, _ number: Int = 0) -> Int {
    guard ring.push() else { return 0 }
    hypervisor.ports.kick(Port(rawValue: UInt32(number) + 40))
    return 1
  }

  @Test(arguments: bothEngines, [0, 50_000, 300_000, 10_000_000])
  func noWakeUpIsLost(engine: IOEngine, pollNanoseconds: UInt64) throws {
    let (thread, rings) = try start(engine, pollNanoseconds: pollNanoseconds, count: 3)
    var random = SeededGenerator(state: 0x9011 ^ pollNanoseconds)
    var (pushes, kicks) = (0, 0)
    for round in 0..<3000 {
      // Think times around the window: within it, at its end, and past it.
      let think = UInt64.random(in: 0...min(pollNanoseconds, 150_000) * 2, using: &random)
      let until = MonotonicClock.nowNanoseconds() + (round % 3 == 0 ? think : 0)
      while MonotonicClock.nowNanoseconds() < until {}
      let number = Int.random(in: 0..<3, using: &random)
      for _ in 0..<Int.random(in: 1...6, using: &random) {
        kicks += push(rings[number], number)
        pushes += 1
      }
      if round % 2 == 0 {
        try #require(rings[number].waitConsumed(), "round \(round): a request waits for ever")
      }
    }
    for ring in rings { try #require(ring.waitConsumed(), "a request waits for ever") }
    let found = try thread.ask { $0.pollFindingCount } ?? 0
    let unarmed = rings.map { $0.unarmedRuns.load(ordering: .relaxed) }.reduce(0, +)
    if pollNanoseconds == 0 {
      #expect(found == 0 && unarmed == 0)
    } else {
      // What was found by looking needed no event.
      #expect(found > 0 && unarmed > 0 && kicks < pushes)
    }
    #expect(try thread.end() == nil)
  }

  /// Whoever is looked for when that ends has to ask for events then.
  @Test(arguments: bothEngines) func noWakeUpIsLostWhenTheBoundChanges(engine: IOEngine) throws {
    let (thread, rings) = try start(engine, pollNanoseconds: 10_000_000, count: 3)
    var random = SeededGenerator(state: 0xB0117D)
    for round in 0..<600 {
      let bound: UInt64 = [0, 10_000_000, 0, 50_000].randomElement(using: &random) ?? 0
      if round % 4 == 0 { thread.perform { $0.setPolling(nanoseconds: bound) } }
      for number in rings.indices { _ = push(rings[number], number) }
      for ring in rings { try #require(ring.waitConsumed(), "round \(round): a request waits for ever") }
    }
    let unarmed = rings.map { $0.unarmedRuns.load(ordering: .relaxed) }.reduce(0, +)
    #expect(unarmed > 0, "nothing was looked for")
    thread.perform { $0.setPolling(nanoseconds: 0) }
    #expect(try thread.ask { $0.pollWindowNanoseconds } == 0)
    #expect(try thread.end() == nil)
  }

  @Test(arguments: bothEngines) func eventsWithoutACauseAreNoWork(engine: IOEngine) throws {
    let (thread, rings) = try start(engine, pollNanoseconds: 10_000_000)
    for count in 1...50 as ClosedRange<UInt64> {
      hypervisor.ports.kick(Port(rawValue: 40))
      while rings[0].runs.load(ordering: .acquiring) < count {
        try #require(try thread.ask { _ in true } == true)
      }
    }
    // Looking for work would be what such a guest wants.
    #expect(try thread.ask { $0.pollWindowNanoseconds } == 0)
    #expect(rings[0].unarmedRuns.load(ordering: .relaxed) == 0)
    #expect(try thread.end() == nil)
  }

  @Test(arguments: bothEngines) func aQueueThatMayNotTakeItsWorkIsLeftAlone(engine: IOEngine) throws {
    let (thread, rings) = try start(engine, pollNanoseconds: 10_000_000)
    var window: UInt64 = 0
    for _ in 0..<2000 where window == 0 {
      _ = push(rings[0])
      try #require(rings[0].waitConsumed())
      window = try thread.ask { $0.pollWindowNanoseconds } ?? 0
    }
    try #require(window > 0, "the window does not open")
    rings[0].refuses.store(true, ordering: .releasing)
    _ = push(rings[0])
    let before = rings[0].runs.load(ordering: .acquiring)
    for _ in 0..<200 { try #require(try thread.ask { _ in true } == true) }
    // A loop that kept finding the same work would have run it in every turn.
    #expect(rings[0].runs.load(ordering: .acquiring) - before < 50)
    #expect(try thread.end() == nil)
  }

  @Test(arguments: bothEngines) func aBusyGuestKeepsNoMailAndNoTimerOut(engine: IOEngine) throws {
    let (thread, rings) = try start(engine, pollNanoseconds: 10_000_000)
    let isDone = Atomic(false)
    let guest = OSGuest { [hypervisor, ring = rings[0]] in
      while !isDone.load(ordering: .acquiring) {
        if ring.push() { hypervisor.ports.kick(Port(rawValue: 40)) }
      }
    }
    for _ in 0..<300 { try #require(try thread.ask { _ in true } == true) }
    isDone.store(true, ordering: .releasing)
    guest.join()
    #expect(rings[0].waitConsumed())
    #expect(try thread.end() == nil)
  }

  @Test func theWindowStaysWithinItsBound() throws {
    let (thread, rings) = try start(.uring, pollNanoseconds: .max)
    for _ in 0..<500 {
      _ = push(rings[0])
      try #require(rings[0].waitConsumed())
      let window = try thread.ask { $0.pollWindowNanoseconds } ?? .max
      #expect(window <= DataThreadConfiguration.longestPollNanoseconds)
    }
    #expect(try thread.end() == nil)
  }
}

/// A thread that plays the guest.
private final class OSGuest {
  private let body: @Sendable () -> Void
  private var thread = pthread_t()

  init(_ body: @escaping @Sendable () -> Void) {
    self.body = body
    let box = unsafe Unmanaged.passRetained(self)
    // Sound: the box is retained for the new thread, which takes it over.
    unsafe pthread_create(
      &thread, nil,
      { argument in
        guard let argument = unsafe argument else { return nil }
        unsafe Unmanaged<OSGuest>.fromOpaque(argument).takeRetainedValue().body()
        return nil
      }, box.toOpaque())
  }

  func join() { pthread_join(thread, nil) }
}
