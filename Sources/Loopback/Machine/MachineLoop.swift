import CUring
import Glibc
import RingKit
import Synchronization

/// The machine's thread: takes requests from sockets, one at a time, and answers them.
final class MachineLoop: Sendable {
  private let resources = Mutex(MachineResources())
  private let listener: PacketSocket
  private let wake: Descriptor
  private let epoll: Descriptor
  private let domainGone: @Sendable (DomainID) -> Void

  /// Connections at a time.
  private static var maximumConnectionCount: Int { 1024 }

  /// Prepares to serve `listener`; `domainGone` is called on the machine's thread.
  init(
    listener: PacketSocket, domainGone: @escaping @Sendable (DomainID) -> Void
  ) throws(SystemError) {
    self.listener = listener
    self.domainGone = domainGone
    wake = try .event()
    let raw = epoll_create1(Int32(EPOLL_CLOEXEC))
    guard raw >= 0 else { throw SystemError(call: "epoll_create1", errno: errno) }
    epoll = Descriptor(owning: raw)
    try watch(listener.descriptor)
    try watch(wake)
  }

  /// Makes ``run()`` return.
  func stop() { wake.signal() }

  /// Looks at the state; safe on any thread.
  func inspect<Value: Sendable>(_ body: (MachineState) -> Value) -> Value {
    resources.withLock { body($0.state) }
  }

  private func watch(_ descriptor: Descriptor) throws(SystemError) {
    var event = unsafe epoll_event(
      events: EPOLLIN.rawValue, data: epoll_data_t(fd: descriptor.raw))
    guard unsafe epoll_ctl(epoll.raw, EPOLL_CTL_ADD, descriptor.raw, &event) == 0 else {
      throw SystemError(call: "epoll_ctl", errno: errno)
    }
  }

  /// A domain's connection.
  private struct Client {
    let socket: PacketSocket
    let connection: MachineState.Connection
  }

  /// Serves until ``stop()``.
  func run() {
    var clients: [Int32: Client] = [:]
    var lastConnection: UInt64 = 0
    // Without descriptors a connection cannot be accepted, and would be reported again at once, for ever:
    // then the listener is left alone until something else happened or a moment passed.
    var isListening = true
    while true {
      var event = unsafe epoll_event()
      let count = unsafe epoll_wait(epoll.raw, &event, 1, isListening ? -1 : 100)
      if count < 0 && errno != EINTR { break }
      if !isListening { isListening = (try? watch(listener.descriptor)) != nil }
      guard count == 1 else { continue }
      let raw = unsafe event.data.fd
      if raw == wake.raw { break }
      if raw == listener.descriptor.raw {
        guard let socket = try? listener.accept() else {
          var unused = unsafe epoll_event()
          _ = unsafe epoll_ctl(epoll.raw, EPOLL_CTL_DEL, raw, &unused)
          isListening = false
          continue
        }
        guard clients.count < Self.maximumConnectionCount, (try? watch(socket.descriptor)) != nil else {
          continue
        }
        lastConnection += 1
        clients[socket.descriptor.raw] = Client(
          socket: socket, connection: MachineState.Connection(number: lastConnection))
      } else if let connection = clients[raw]?.connection, !serve(clients[raw]) {
        // The socket closes first, so that whoever is told finds nothing of the domain left.
        clients[raw] = nil
        leave(connection)
      }
    }
    // Stopping is the end of every domain, but nobody is left to be told.
    for client in clients.values {
      _ = resources.withLock { $0.disconnect(client.connection) }
    }
  }

  /// Answers one request; false when the connection is over.
  private func serve(_ client: Client?) -> Bool {
    guard let client else { return false }
    do {
      guard let packet = try client.socket.receive(descriptorsUpTo: 0, waiting: false) else {
        return false
      }
      let reply = resources.withLock { $0.answer(packet.words, from: client.connection) }
      try client.socket.send(reply.words, reply.descriptors, waiting: false)
      return true
    } catch {
      // A client that sends no messages of ours or does not read its answers.
      return error.errno == EAGAIN && error.call == "recvmsg"
    }
  }

  private func leave(_ connection: MachineState.Connection) {
    if let domain = resources.withLock({ $0.disconnect(connection) }) { domainGone(domain) }
  }
}
