import CUring
import Dispatch
import Glibc
import RingKit
import Synchronization
import Testing

/// Event channels made of one eventfd: ports are pending, masked, or neither.
final class FakePorts: Sendable {
  private struct State {
    var pending: [UInt32] = []
    var masked: Set<UInt32> = []
    var bound: Set<UInt32> = []
    var log: [String] = []
  }

  private let state = Mutex(State())
  let descriptor = eventfd(0, Int32(EFD_CLOEXEC | EFD_NONBLOCK))

  deinit { close(descriptor) }

  /// What the frontend's notify does.
  func kick(_ port: Port) {
    let signals = state.withLock { state in
      guard state.bound.contains(port.rawValue) else { return false }
      if !state.pending.contains(port.rawValue) { state.pending.append(port.rawValue) }
      return !state.masked.contains(port.rawValue)
    }
    if signals { eventfd_write(descriptor, 1) }
  }

  var boundPorts: Set<UInt32> { state.withLock { $0.bound } }
  var log: [String] { state.withLock { $0.log } }

  func bind(_ port: Port) {
    state.withLock { _ = $0.bound.insert(port.rawValue) }
    kick(port)
  }

  func unbind(_ port: Port) {
    state.withLock { state in
      state.bound.remove(port.rawValue)
      state.masked.remove(port.rawValue)
      state.pending.removeAll { $0 == port.rawValue }
      state.log.append("unbind \(port.rawValue)")
    }
  }

  func next() -> Port? {
    var count: eventfd_t = 0
    // Emptied before looking: a kick that comes after the look signals again.
    unsafe eventfd_read(descriptor, &count)
    return state.withLock { state in
      guard let index = state.pending.firstIndex(where: { !state.masked.contains($0) }) else { return nil }
      let port = state.pending.remove(at: index)
      state.masked.insert(port)
      return Port(rawValue: port)
    }
  }

  func unmask(_ port: Port) {
    let signals = state.withLock { state in
      state.masked.remove(port.rawValue)
      return state.pending.contains(port.rawValue)
    }
    if signals { eventfd_write(descriptor, 1) }
  }
}

final class FakeEvents: EventChannels {
  let ports: FakePorts
  init(_ ports: FakePorts) { self.ports = ports }
  var descriptor: Int32 { ports.descriptor }

  func bind(domain: DomainID, remotePort: Port) throws(EventChannelError) -> Port {
    // Above the FIFO ABI's limit, to see that refused.
    if remotePort.rawValue == 1 << 20 { return remotePort }
    guard domain.rawValue < 100 else { throw EventChannelError(operation: "bind", errno: ENOENT) }
    let port = Port(rawValue: remotePort.rawValue + 40)
    ports.bind(port)
    return port
  }

  func allocateUnbound(for domain: DomainID) throws(EventChannelError) -> Port {
    throw EventChannelError(operation: "allocate", errno: ENOSYS)
  }

  func unbind(_ port: Port) { ports.unbind(port) }
  func notify(_ port: Port) throws(EventChannelError) {}
  func nextPending() -> Port? { ports.next() }
  func unmask(_ port: Port) { ports.unmask(port) }
}

final class FakeGrants: GrantTable {
  func map(
    _ references: [GrantReference], of domain: DomainID, access: GrantAccess
  ) throws(GrantError) -> MappedPages { throw GrantError(operation: "map", errno: ENOSYS) }
  func copy(_ batch: inout GrantCopyBatch) {}
}

struct FakeHypervisor: Hypervisor {
  let ports = FakePorts()
  var refusal: HostError?
  var name: String { "fake" }

  func openGrantTable() throws(HostError) -> any GrantTable { FakeGrants() }
  func openGrantSharing() throws(HostError) -> any GrantSharing { throw HostError("no sharing") }
  func openEventChannels() throws(HostError) -> any EventChannels {
    if let refusal { throw refusal }
    return FakeEvents(ports)
  }
  func openStore() throws(HostError) -> StoreClient { throw HostError("no store") }
}

/// What happened, in order, told from one thread and awaited by another.
final class Journal: Sendable {
  private let lines = Mutex<[String]>([])
  private let grown = DispatchSemaphore(value: 0)

  func note(_ line: String) {
    lines.withLock { $0.append(line) }
    grown.signal()
  }

  var all: [String] { lines.withLock { $0 } }

  /// Waits until `count` lines are there; fails after ten seconds.
  func wait(_ count: Int, sourceLocation: SourceLocation = #_sourceLocation) throws -> [String] {
    while all.count < count {
      try #require(
        grown.wait(timeout: .now() + 10) == .success, "only \(all) came", sourceLocation: sourceLocation)
    }
    return all
  }
}

/// A queue whose behaviour is written in the test.
final class ScriptedQueue: DataQueue {
  typealias Loop = DataLoop<ScriptedQueue>
  let name: String
  let journal: Journal
  unowned let loop: Loop
  var key: QueueKey?
  var onCompleted: ((ScriptedQueue, UInt32, Int32) -> Void)?
  var onRun: ((ScriptedQueue, UInt64) -> QueueTurn)?

  init(_ name: String, _ journal: Journal, _ loop: Loop) {
    self.name = name
    self.journal = journal
    self.loop = loop
  }

  deinit { journal.note("\(name) gone") }

  func kicked() { journal.note("\(name) kicked") }

  func completed(token: UInt32, result: Int32) {
    journal.note("\(name) completed \(token): \(result)")
    onCompleted?(self, token, result)
  }

  func run(now: UInt64) -> QueueTurn {
    journal.note("\(name) run")
    return onRun?(self, now) ?? .idle(unmaskAfterNanoseconds: 0)
  }
}

extension DataThread {
  /// Calls the thread from another one, so that an answer that does not come ends the test after ten seconds.
  func ask<Value: Sendable>(
    sourceLocation: SourceLocation = #_sourceLocation,
    _ body: @escaping @Sendable (DataLoop<Queue>) -> Value
  ) throws -> Value? {
    let answered = DispatchSemaphore(value: 0)
    let answer = Answer<Value>()
    DispatchQueue.global().async {
      answer.value.withLock { $0 = self.call(body) }
      answered.signal()
    }
    try #require(
      answered.wait(timeout: .now() + 10) == .success, "the thread does not answer",
      sourceLocation: sourceLocation)
    return answer.value.withLock { $0 }
  }

  /// Stops the thread and waits for its end; fails after ten seconds.
  func end(sourceLocation: SourceLocation = #_sourceLocation) throws -> SystemError? {
    stop()
    let ended = DispatchSemaphore(value: 0)
    let result = Answer<SystemError>()
    DispatchQueue.global().async {
      result.value.withLock { $0 = self.join() }
      ended.signal()
    }
    try #require(
      ended.wait(timeout: .now() + 10) == .success, "the thread does not end", sourceLocation: sourceLocation)
    return result.value.withLock { $0 }
  }
}

private final class Answer<Value: Sendable>: Sendable {
  let value = Mutex<Value?>(nil)
}
