import CUring
import Glibc
import RingKit
import Synchronization
import Testing

@Suite struct DataThreadTests {
  typealias Thread = DataThread<ScriptedQueue>
  let hypervisor = FakeHypervisor()
  let journal = Journal()

  func start(_ engine: IOEngine, entries: UInt32 = 16, queues: Int = 8) throws -> Thread {
    var configuration = DataThreadConfiguration()
    configuration.ringEntries = entries
    configuration.poolByteCount = 1 << 20
    configuration.queueCapacity = queues
    configuration.engine = engine
    let thread = try Thread(number: 3, hypervisor: hypervisor, configuration: configuration)
    #expect(thread.engine == engine && thread.engineFallback == nil)
    return thread
  }

  /// Adds a queue on the thread and returns its key.
  func add(
    _ name: String, to thread: Thread, prepare: @escaping @Sendable (ScriptedQueue) -> Void = { _ in }
  ) throws -> QueueKey {
    let journal = journal
    let key = try thread.ask { loop -> QueueKey? in
      let queue = ScriptedQueue(name, journal, loop)
      queue.key = loop.add(queue)
      prepare(queue)
      return queue.key
    }
    return try #require(key ?? nil)
  }

  @Test(arguments: bothEngines) func messagesRunInOrderOnTheNamedThread(engine: IOEngine) throws {
    let thread = try start(engine)
    let journal = journal
    for number in 0..<200 { thread.perform { _ in journal.note("\(number)") } }
    let names = try thread.ask { loop -> [String] in
      journal.note("call")
      // From the thread itself: runs later, as any other.
      thread.perform { _ in journal.note("inner") }
      return ["\(loop.number)", Self.nameOfThisThread()]
    }
    #expect(names == ["3", "ringback-3"])
    let lines = try journal.wait(202)
    #expect(lines == (0..<200).map { "\($0)" } + ["call", "inner"])
    #expect(try thread.end() == nil)
  }

  static func nameOfThisThread() -> String {
    let descriptor = unsafe open("/proc/thread-self/comm", O_RDONLY)
    defer { close(descriptor) }
    var bytes = [UInt8](repeating: 0, count: 32)
    let count = unsafe bytes.withUnsafeMutableBytes { unsafe read(descriptor, $0.baseAddress, $0.count) }
    return String(decoding: bytes.prefix(max(count - 1, 0)), as: UTF8.self)
  }

  @Test(arguments: bothEngines) func whatWasAcceptedBeforeTheStopRunsAndNothingAfter(engine: IOEngine) throws
  {
    let thread = try start(engine)
    let journal = journal
    for number in 0..<50 { #expect(thread.perform { _ in journal.note("\(number)") }) }
    #expect(try thread.end() == nil)
    #expect(journal.all == (0..<50).map { "\($0)" })
    #expect(!thread.perform { _ in journal.note("late") })
    #expect(thread.call { _ in 1 } == nil)
    thread.stop()
    #expect(thread.join() == nil)
    #expect(journal.all.count == 50)
  }

  @Test func whatCannotBeOpenedIsThrownToTheStarter() {
    var hypervisor = FakeHypervisor()
    hypervisor.refusal = HostError("/dev/xen/evtchn: permission denied")
    #expect(throws: HostError("/dev/xen/evtchn: permission denied")) {
      try Thread(number: 0, hypervisor: hypervisor)
    }
  }

  @Test(arguments: bothEngines) func aKickReachesItsQueueAndTheNextOneToo(engine: IOEngine) throws {
    let thread = try start(engine)
    let first = try add("a", to: thread)
    let second = try add("b", to: thread)
    let port = try thread.ask { loop in
      try? loop.bind(first, domain: DomainID(rawValue: 1), remotePort: Port(rawValue: 7))
    }
    #expect(port == Port(rawValue: 47))
    // Bound is pending.
    #expect(try journal.wait(2) == ["a kicked", "a run"])
    hypervisor.ports.kick(Port(rawValue: 47))
    #expect(try journal.wait(4).suffix(2) == ["a kicked", "a run"])
    thread.perform { loop in
      _ = try? loop.bind(second, domain: DomainID(rawValue: 1), remotePort: Port(rawValue: 300))
    }
    #expect(try journal.wait(6).suffix(2) == ["b kicked", "b run"])
    thread.perform { $0.remove(first) }
    // The queue is let go in the same turn, before the thread can answer.
    #expect(try journal.wait(7).last == "a gone")
    #expect(hypervisor.ports.boundPorts == [340])
    #expect(try thread.end() == nil)
    #expect(journal.all.last == "b gone")
    #expect(hypervisor.ports.log == ["unbind 47", "unbind 340"])
  }

  @Test(arguments: bothEngines) func bindingRefusesWhatCannotBe(engine: IOEngine) throws {
    let thread = try start(engine)
    let key = try add("a", to: thread)
    let errors = try thread.ask { loop -> [Int32] in
      [(1, 1 << 20), (500, 1), (1, 1), (1, 2), (1, 3)].map { (domain, port) in
        do throws(EventChannelError) {
          _ = try loop.bind(
            key, domain: DomainID(rawValue: UInt16(domain)), remotePort: Port(rawValue: UInt32(port)))
          return 0
        } catch { return error.errno }
      }
    }
    #expect(errors == [ERANGE, ENOENT, 0, 0, EINVAL])
    #expect(hypervisor.ports.log == ["unbind \(1 << 20)"])
    #expect(hypervisor.ports.boundPorts == [41, 42])
    #expect(try thread.end() == nil)
  }

  /// A network frontend may have an event channel for each direction (netif.h, split event channels).
  @Test(arguments: bothEngines) func bothPortsOfAQueueKickItTimeAndAgain(engine: IOEngine) throws {
    let thread = try start(engine)
    let key = try add("a", to: thread)
    for (index, port) in [UInt32(7), 9].enumerated() {
      thread.perform { loop in
        _ = try? loop.bind(key, domain: DomainID(rawValue: 1), remotePort: Port(rawValue: port))
      }
      // Bound is pending.
      #expect(try journal.wait(2 + index * 2).suffix(2) == ["a kicked", "a run"])
    }
    for (index, port) in [UInt32(47), 49, 49, 47, 47, 49].enumerated() {
      hypervisor.ports.kick(Port(rawValue: port))
      #expect(try journal.wait(6 + index * 2).suffix(2) == ["a kicked", "a run"])
    }
    thread.perform { $0.remove(key) }
    #expect(try thread.end() == nil)
    #expect(Set(hypervisor.ports.log) == ["unbind 47", "unbind 49"])
    #expect(hypervisor.ports.boundPorts == [])
  }

  @Test(arguments: bothEngines) func aHeldPortStaysMaskedForThatLong(engine: IOEngine) throws {
    let thread = try start(engine)
    let journal = journal
    let hold: UInt64 = 3_000_000
    let times = Times()
    let key = try add("a", to: thread) { queue in
      queue.onRun = { queue, now in
        times.note(now)
        return .idle(unmaskAfterNanoseconds: times.all.count == 1 ? hold : 0)
      }
    }
    let ports = hypervisor.ports
    thread.perform { loop in
      _ = try? loop.bind(key, domain: DomainID(rawValue: 1), remotePort: Port(rawValue: 1))
    }
    _ = try journal.wait(2)
    ports.kick(Port(rawValue: 41))
    #expect(try journal.wait(4) == ["a kicked", "a run", "a kicked", "a run"])
    #expect(try thread.end() == nil)
    try #require(times.all.count == 2)
    #expect(times.all[1] >= times.all[0] + hold)
  }

  @Test(arguments: bothEngines) func deadlinesAreKeptMovedAndForgotten(engine: IOEngine) throws {
    let thread = try start(engine)
    let times = Times()
    let start = MonotonicClock.nowNanoseconds()
    let late = start + 3_600_000_000_000
    let first = try add("a", to: thread) { queue in
      queue.onRun = { _, now in
        times.note(now)
        return .idle(unmaskAfterNanoseconds: 0)
      }
    }
    let second = try add("b", to: thread)
    thread.perform { loop in
      loop.schedule(second, atNanoseconds: late)
      loop.schedule(first, atNanoseconds: late)
    }
    // Each deadline before the former: one timeout is moved, none is added.
    for step in 1...20 {
      _ = try thread.ask { $0.schedule(first, atNanoseconds: late - UInt64(step)) }
    }
    let inFlight = try thread.ask { $0.ring.inFlightCount } ?? 0
    #expect(inFlight <= 3, "poll, timeout and the timeout's last move, but there are \(inFlight)")
    // Armed for an hour by now; each of the next comes before.
    for step in 1...3 {
      thread.perform { $0.schedule(first, atNanoseconds: start + UInt64(step) * 1_000_000) }
      #expect(try journal.wait(step) == Array(repeating: "a run", count: step))
      // Answered after the turn, when the time has been noted.
      #expect(try thread.ask { _ in times.all.count } == step)
      #expect((times.all.last ?? 0) >= start + UInt64(step) * 1_000_000)
    }
    // Forgotten before it is due: the marker behind it comes alone.
    let soon = MonotonicClock.nowNanoseconds() + 1_000_000
    thread.perform { loop in
      loop.schedule(first, atNanoseconds: soon)
      loop.schedule(first, atNanoseconds: nil)
      loop.schedule(second, atNanoseconds: soon + 1_000_000)
    }
    #expect(try journal.wait(4).last == "b run")
    #expect(try thread.end() == nil)
  }

  @Test(arguments: bothEngines) func queuesWithEndlessWorkTakeTurns(engine: IOEngine) throws {
    let thread = try start(engine)
    let journal = journal
    thread.perform { loop in
      for name in ["a", "b", "c"] {
        let queue = ScriptedQueue(name, journal, loop)
        var turns = 0
        queue.onRun = { _, _ in
          turns += 1
          return turns < 4 ? .again : .idle(unmaskAfterNanoseconds: 0)
        }
        if let key = loop.add(queue) {
          loop.wake(key)
          loop.wake(key)
        }
      }
    }
    let expected = Array(repeating: ["a run", "b run", "c run"], count: 4).flatMap { $0 }
    #expect(try journal.wait(12) == expected)
    #expect(try thread.end() == nil)
  }

  @Test(arguments: bothEngines) func endlessWorkDoesNotKeepCompletionsAndMailOut(engine: IOEngine) throws {
    let thread = try start(engine)
    let isDone = Flag()
    let busy = try add("busy", to: thread) { queue in
      queue.onRun = { queue, _ in
        isDone.isSet ? .idle(unmaskAfterNanoseconds: 0) : .again
      }
    }
    let other = try add("other", to: thread) { queue in
      queue.onCompleted = { _, _, _ in isDone.set() }
    }
    thread.perform { loop in
      loop.wake(busy)
      loop.ring.timeout(atNanoseconds: loop.now + 1_000_000, token: other.token(9))
    }
    while !isDone.isSet {
      // Answered although the queue is never idle.
      #expect(try thread.ask { _ in true } == true)
    }
    #expect(try thread.end() == nil)
    #expect(journal.all.contains("other completed 9: \(-ETIME)"))
  }

  @Test(arguments: bothEngines) func completionsOfARemovedQueueReachNobody(engine: IOEngine) throws {
    let thread = try start(engine, queues: 1)
    let old = try add("old", to: thread)
    let journal = journal
    let next = try thread.ask { loop -> QueueKey? in
      loop.ring.nop(token: old.token(1))
      loop.remove(old)
      let queue = ScriptedQueue("new", journal, loop)
      queue.key = loop.add(queue)
      if let key = queue.key { loop.ring.nop(token: key.token(2)) }
      return queue.key
    }
    let key = try #require(next ?? nil)
    #expect(key != old)
    #expect(try journal.wait(3) == ["old gone", "new completed 2: 0", "new run"])
    // The old key means nothing any more.
    thread.perform { loop in
      loop.wake(old)
      loop.schedule(old, atNanoseconds: 0)
      loop.remove(old)
      loop.wake(key)
    }
    #expect(try journal.wait(4).last == "new run")
    #expect(try thread.end() == nil)
    #expect(journal.all == ["old gone", "new completed 2: 0", "new run", "new run", "new gone"])
  }

  @Test(arguments: bothEngines) func generationsComeRoundWithoutConfusion(engine: IOEngine) throws {
    let thread = try start(engine, queues: 1)
    let journal = Journal()
    let keys = try thread.ask { loop -> Set<QueueKey> in
      var keys: Set<QueueKey> = []
      for _ in 0..<4095 {
        guard let key = loop.add(ScriptedQueue("a", journal, loop)) else { break }
        keys.insert(key)
        loop.remove(key)
      }
      return keys
    }
    #expect(keys?.count == 4095)
    let key = try add("b", to: thread)
    #expect(keys?.contains(key) == false)
    thread.perform { $0.ring.nop(token: key.token(.max)) }
    #expect(try self.journal.wait(2) == ["b completed \(UInt32.max): 0", "b run"])
    #expect(try thread.end() == nil)
  }

  @Test(arguments: bothEngines) func aQueueMayRemoveItselfAnywhere(engine: IOEngine) throws {
    let thread = try start(engine)
    let first = try add("a", to: thread) { queue in
      queue.onRun = { queue, _ in
        if let key = queue.key { queue.loop.remove(key) }
        queue.journal.note("still here")
        return .again
      }
    }
    thread.perform { $0.wake(first) }
    #expect(try journal.wait(3) == ["a run", "still here", "a gone"])
    let second = try add("b", to: thread) { queue in
      queue.onCompleted = { queue, _, _ in
        if let key = queue.key { queue.loop.remove(key) }
      }
    }
    thread.perform { loop in
      loop.ring.nop(token: second.token(1))
      loop.ring.nop(token: second.token(2))
    }
    #expect(try journal.wait(5).suffix(2) == ["b completed 1: 0", "b gone"])
    #expect(try thread.end() == nil)
  }

  @Test(arguments: bothEngines) func aFullTableRefusesAQueue(engine: IOEngine) throws {
    let thread = try start(engine, queues: 2)
    _ = try add("a", to: thread)
    _ = try add("b", to: thread)
    let journal = journal
    #expect(try thread.ask { loop in loop.add(ScriptedQueue("c", journal, loop)) == nil } == true)
    #expect(try thread.end() == nil)
  }

  @Test(arguments: bothEngines) func stoppingEndsRequestsThatWouldWaitForEver(engine: IOEngine) throws {
    let thread = try start(engine)
    let key = try add("a", to: thread)
    let silent = eventfd(0, Int32(EFD_CLOEXEC))
    defer { close(silent) }
    let inFlight = try thread.ask { loop -> UInt64 in
      for token in 0..<40 as Range<UInt32> {
        loop.ring.pollReadable(IOFile(descriptor: silent), token: key.token(token))
      }
      loop.schedule(key, atNanoseconds: loop.now + 3_600_000_000_000)
      if let buffer = loop.pool.allocate(byteCount: 4096) {
        loop.readPooled(
          IOFile(descriptor: silent), at: 0, into: buffer.segment.slice(offset: 0, count: 8),
          token: key.token(99))
      }
      return loop.ring.inFlightCount
    }
    #expect((inFlight ?? 0) > 40)
    #expect(try thread.end() == nil)
    // libaio does not wait for what is no file (ESPIPE), so that one request may have ended before.
    #expect(journal.all.last == "a gone")
    #expect(!journal.all.contains { $0.hasPrefix("a completed") && !$0.hasSuffix("99: \(-ESPIPE)") })
  }

  @Test(arguments: bothEngines) func aTurnEntersTheKernelOnce(engine: IOEngine) throws {
    let thread = try start(engine, entries: 64)
    let key = try add("a", to: thread) { queue in
      var rounds = 0
      queue.onCompleted = { queue, token, _ in
        guard token == 0, rounds < 50, let key = queue.key else { return }
        rounds += 1
        for token in 0..<20 as Range<UInt32> { queue.loop.ring.nop(token: key.token(token)) }
      }
    }
    thread.perform { $0.ring.nop(token: key.token(0)) }
    _ = try journal.wait(1 + 50 * 20 + 51)
    let counts = try thread.ask { [$0.ring.enterCount, $0.turnCount] } ?? []
    #expect(counts.count == 2 && counts[0] <= counts[1] + 1, "\(counts)")
    #expect(try thread.end() == nil)
  }
}

/// Times told from a thread.
private final class Times: Sendable {
  private let times = Mutex<[UInt64]>([])
  func note(_ time: UInt64) { times.withLock { $0.append(time) } }
  var all: [UInt64] { times.withLock { $0 } }
}

private final class Flag: Sendable {
  private let value = Atomic(false)
  func set() { value.store(true, ordering: .releasing) }
  var isSet: Bool { value.load(ordering: .acquiring) }
}
