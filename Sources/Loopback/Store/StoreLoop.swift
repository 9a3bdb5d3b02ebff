import Glibc
import Synchronization

/// The thread behind `StoreServer`: one poll(2) over all sockets, everything else in `StoreCore`.
///
/// Only this thread closes descriptors while it runs, so that none is closed (and its number used again)
/// while poll waits for it; other threads mark and wake.
final class StoreLoop: Sendable {
  struct Listener {
    let socket: StoreSocket
    let path: String
    let domain: UInt16
    var isDoomed = false
  }

  struct Client {
    let socket: StoreSocket
    let id: Int
  }

  struct State {
    var core: StoreCore
    /// Where sockets of introduced domains are made; nil when the owner names each socket itself.
    let directory: String?
    var listeners: [Listener] = []
    var clients: [Client] = []
    var isStopping = false
    /// Set when a connection could not be accepted for want of descriptors: listeners rest for a moment.
    var isExhausted = false
  }

  private let state: Mutex<State>
  /// Bytes sent on the first end wake the thread, which polls the second.
  private let wakeup: (sender: StoreSocket, receiver: StoreSocket)

  init(core: StoreCore, directory: String?) throws(StoreServerError) {
    wakeup = try StoreSocket.pair()
    state = Mutex(State(core: core, directory: directory))
  }

  deinit {
    state.withLock { $0.closeAll() }
    wakeup.sender.close()
    wakeup.receiver.close()
  }

  /// Works on the state from any thread; the loop then delivers what that caused.
  func withState<Result: Sendable, Failure: Error>(
    _ body: (inout State) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    // A full socket means that the loop has not slept since the last call.
    defer { _ = wakeup.sender.send([1]) }
    return try state.withLock { state throws(Failure) in try body(&state) }
  }

  /// Serves until `isStopping` is set.
  func run() {
    var buffer = [UInt8](repeating: 0, count: 16 << 10)
    var descriptors: [pollfd] = []
    while true {
      let plan: (stop: Bool, rest: Bool) = state.withLock { state in
        state.tidy()
        descriptors.removeAll(keepingCapacity: true)
        descriptors.append(pollfd(fd: wakeup.receiver.descriptor, events: Int16(POLLIN), revents: 0))
        state.describe(into: &descriptors)
        return (state.isStopping, state.isExhausted)
      }
      if plan.stop { break }
      StoreSocket.wait(&descriptors, milliseconds: plan.rest ? 100 : -1)
      if descriptors[0].revents != 0 { _ = wakeup.receiver.receive(into: &buffer) }
      state.withLock { state in
        state.isExhausted = false
        for ready in descriptors.dropFirst() where ready.revents != 0 { state.handle(ready, &buffer) }
        // A domain introduced in this turn has its socket before the reply says so.
        state.tidy()
        state.flush()
      }
    }
    state.withLock { $0.closeAll() }
  }
}

extension StoreLoop.State {
  /// Opens a listening socket for a domain.
  mutating func listen(at path: String, domain: UInt16) throws(StoreServerError) {
    listeners.append(
      StoreLoop.Listener(socket: try StoreSocket.listening(at: path), path: path, domain: domain))
  }

  /// The socket of an introduced domain, when the server has a directory for them.
  mutating func listenInDirectory(domain: UInt16) throws(StoreServerError) {
    guard let directory, !listeners.contains(where: { $0.domain == domain && !$0.isDoomed }) else { return }
    try listen(at: StoreServer.socketPath(in: directory, domain: domain), domain: domain)
  }

  /// Nobody finds the sockets of released domains any more; the loop closes them.
  mutating func dropReleased() {
    for domain in core.takeReleased() {
      for index in listeners.indices where listeners[index].domain == domain && !listeners[index].isDoomed {
        StoreSocket.unlinkSocket(listeners[index].path)
        listeners[index].isDoomed = true
      }
    }
  }

  /// Brings the sockets in line with what happened in the core since the last turn.
  fileprivate mutating func tidy() {
    dropReleased()
    // Domains introduced over the wire; a socket that cannot be made has nobody to report to.
    for domain in core.introduced.sorted() where domain != 0 { try? listenInDirectory(domain: domain) }
    for listener in listeners where listener.isDoomed { listener.socket.close() }
    listeners.removeAll(where: \.isDoomed)
    for client in clients where !core.isOpen(client.id) {
      client.socket.close()
      core.disconnect(client.id)
    }
    let open = Set(core.clients())
    clients.removeAll { !open.contains($0.id) }
  }

  fileprivate func describe(into descriptors: inout [pollfd]) {
    if !isExhausted {
      for listener in listeners {
        descriptors.append(pollfd(fd: listener.socket.descriptor, events: Int16(POLLIN), revents: 0))
      }
    }
    for client in clients {
      var events: Int16 = 0
      if core.wantsInput(client.id) { events |= Int16(POLLIN) }
      if !core.output(for: client.id).isEmpty { events |= Int16(POLLOUT) }
      descriptors.append(pollfd(fd: client.socket.descriptor, events: events, revents: 0))
    }
  }

  fileprivate mutating func handle(_ ready: pollfd, _ buffer: inout [UInt8]) {
    if let listener = listeners.first(where: { $0.socket.descriptor == ready.fd }) {
      if !listener.isDoomed { accept(listener) }
    } else if let client = clients.first(where: { $0.socket.descriptor == ready.fd }) {
      let isHungUp = ready.revents & Int16(POLLHUP | POLLERR | POLLNVAL) != 0
      if core.wantsInput(client.id) {
        if ready.revents & Int16(POLLIN) != 0 || isHungUp { receive(client, &buffer) }
      } else if isHungUp {
        // It reads no replies any more, so nothing will ever make room for its requests.
        core.close(client.id)
      }
    }
  }

  private mutating func accept(_ listener: StoreLoop.Listener) {
    switch listener.socket.accept() {
    case .client(let socket):
      clients.append(StoreLoop.Client(socket: socket, id: core.connect(domain: listener.domain)))
    case .nothingYet: break
    case .exhausted: isExhausted = true
    }
  }

  private mutating func receive(_ client: StoreLoop.Client, _ buffer: inout [UInt8]) {
    switch client.socket.receive(into: &buffer) {
    case .bytes(let count): core.receive(buffer[..<count], from: client.id)
    case .nothingYet: break
    case .gone: core.close(client.id)
    }
  }

  /// Sends what the sockets take.
  fileprivate mutating func flush() {
    for client in clients {
      while case let bytes = core.output(for: client.id), !bytes.isEmpty {
        guard let count = client.socket.send(bytes) else {
          core.close(client.id)
          break
        }
        if count == 0 { break }
        core.didSend(count, to: client.id)
      }
    }
  }

  fileprivate mutating func closeAll() {
    for client in clients {
      client.socket.close()
      core.disconnect(client.id)
    }
    for listener in listeners {
      if !listener.isDoomed { StoreSocket.unlinkSocket(listener.path) }
      listener.socket.close()
    }
    clients = []
    listeners = []
  }
}
