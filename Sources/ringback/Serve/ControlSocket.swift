import Foundation
import RingKit

/// Names one asker of the control socket, for an answer that comes later. Never used again for another.
struct ControlTicket: Hashable {
  fileprivate let number: UInt64
}

/// The daemon's end of its control socket: one line asks, one JSON document answers, at once or later, and the
/// connection ends.
struct ControlSocket {
  /// Connections that ask, wait or are answered; more stay in the listener's queue until one ends.
  static let connectionLimit = 128
  /// Bytes of a question.
  static let questionLimit = 8192
  /// A connection that has not asked by then, or does not take its answer, is dropped.
  static let patienceNanoseconds: UInt64 = 10_000_000_000

  let listener: LocalSocket
  private var connections: [Int32: Connection] = [:]
  private var lastTicket: UInt64 = 0

  private struct Connection {
    enum Phase {
      /// Its question is not whole yet.
      case asking([UInt8])
      /// Its answer is not there yet.
      case waiting
      /// The same, and it has said that it will say no more.
      case waitingSilently
      /// What is left of its answer.
      case answering(ArraySlice<UInt8>)
      /// What is left of the last part of an answer that goes on until it is ended.
      case streaming(ArraySlice<UInt8>)
      /// The same, and the asker has said that it wants to hear the end.
      case ending(ArraySlice<UInt8>)
    }
    let socket: LocalSocket
    let ticket: ControlTicket
    var phase: Phase
    var deadline: UInt64
  }

  /// Listens at `path`.
  init(path: String) throws {
    try FileManager.default.createDirectory(
      atPath: (path as NSString).deletingLastPathComponent, withIntermediateDirectories: true,
      attributes: [.posixPermissions: 0o755])
    do {
      listener = try LocalSocket.listen(path: path)
    } catch {
      throw CommandError(
        "\(error)"
          + (error.errno == EADDRINUSE
            ? "; another daemon answers there: stop it, or choose another place with --control-socket" : ""))
    }
    listener.setNonBlocking()
  }

  /// What the control thread waits for on behalf of this socket.
  var descriptors: [(descriptor: Int32, writable: Bool)] {
    var wanted = connections.compactMap { descriptor, connection -> (descriptor: Int32, writable: Bool)? in
      switch connection.phase {
      case .asking, .waiting: (descriptor, false)
      case .answering: (descriptor, true)
      case .streaming(let rest): (descriptor, !rest.isEmpty)
      case .ending(let rest): rest.isEmpty ? nil : (descriptor, true)
      // Its end of stream would wake us for ever.
      case .waitingSilently: nil
      }
    }
    if connections.count < Self.connectionLimit { wanted.append((listener.descriptor, false)) }
    return wanted
  }

  /// True when somebody waits for an answer or has not taken all of it.
  var isOwed: Bool { connections.values.contains { if case .asking = $0.phase { false } else { true } } }

  /// Serves a ready descriptor, if it is one of ours. A whole question comes back with the ticket that
  /// ``answer(_:with:)`` takes.
  mutating func serve(_ descriptor: Int32, atNanoseconds now: UInt64) -> (
    question: String, ticket: ControlTicket
  )? {
    if descriptor == listener.descriptor {
      while connections.count < Self.connectionLimit, let socket = listener.accept() {
        lastTicket += 1
        connections[socket.descriptor] = Connection(
          socket: socket, ticket: ControlTicket(number: lastTicket), phase: .asking([]),
          deadline: now + Self.patienceNanoseconds)
      }
      return nil
    }
    guard let connection = connections[descriptor] else { return nil }
    do {
      switch connection.phase {
      case .asking(let before):
        guard let bytes = try connection.socket.read() else { return nil }
        return hear(bytes, after: before, from: connection)
      case .waiting:
        guard let bytes = try connection.socket.read() else { return nil }
        if connection.socket.isHungUp {
          connections[descriptor] = nil
        } else if bytes.isEmpty {
          connections[descriptor]?.phase = .waitingSilently
        }
      case .waitingSilently:
        break
      case .answering(let rest):
        send(rest, to: connection)
      case .streaming(let rest):
        let said = try connection.socket.read()
        if connection.socket.isHungUp {
          connections[descriptor] = nil
        } else {
          let left = rest.dropFirst(rest.isEmpty ? 0 : try connection.socket.write(rest))
          connections[descriptor]?.phase = said?.isEmpty == true ? .ending(left) : .streaming(left)
        }
      case .ending(let rest):
        let count = try connection.socket.write(rest)
        connections[descriptor]?.phase = .ending(rest.dropFirst(count))
      }
    } catch {
      // The asker went away; there is nobody to tell.
      connections[descriptor] = nil
    }
    return nil
  }

  private mutating func hear(
    _ bytes: [UInt8], after before: [UInt8], from connection: Connection
  ) -> (question: String, ticket: ControlTicket)? {
    let heard = before + bytes
    let descriptor = connection.socket.descriptor
    if let end = heard.firstIndex(of: UInt8(ascii: "\n")), end <= Self.questionLimit {
      connections[descriptor]?.phase = .waiting
      return (String(decoding: heard[..<end], as: UTF8.self), connection.ticket)
    }
    if bytes.isEmpty {
      connections[descriptor] = nil
    } else if heard.count > Self.questionLimit {
      answer(
        connection.ticket, with: ControlReply.failure("a question has at most \(Self.questionLimit) bytes"))
    } else {
      connections[descriptor]?.phase = .asking(heard)
    }
    return nil
  }

  /// Answers; does nothing when the asker has gone away meanwhile.
  mutating func answer(_ ticket: ControlTicket, with text: String) {
    guard let connection = connections.values.first(where: { $0.ticket == ticket }) else { return }
    connections[connection.socket.descriptor]?.deadline =
      MonotonicClock.nowNanoseconds() + Self.patienceNanoseconds
    send(Array(text.utf8)[...], to: connection)
  }

  // MARK: Answers that go on

  /// How an asker stands to an answer that goes on.
  enum StreamState {
    /// It has taken all there was.
    case ready
    /// It has not yet.
    case busy
    /// It wants to hear the end.
    case wantsEnd
    /// It has gone away.
    case gone
  }

  /// From here on ``stream(_:to:)`` answers, until ``endStream(_:to:)`` gives the last part.
  mutating func beginStream(to ticket: ControlTicket) {
    guard let connection = connections.values.first(where: { $0.ticket == ticket }) else { return }
    connections[connection.socket.descriptor]?.phase = .streaming([])
  }

  /// How the asker stands.
  func streamState(of ticket: ControlTicket) -> StreamState {
    guard let connection = connections.values.first(where: { $0.ticket == ticket }),
      !connection.socket.isHungUp
    else { return .gone }
    return switch connection.phase {
    case .streaming(let rest): rest.isEmpty ? .ready : .busy
    case .ending: .wantsEnd
    case .asking, .waiting, .waitingSilently, .answering: .gone
    }
  }

  /// Gives a part of an answer to an asker that is ready.
  mutating func stream(_ bytes: [UInt8], to ticket: ControlTicket) {
    guard let connection = connections.values.first(where: { $0.ticket == ticket }),
      case .streaming(let rest) = connection.phase
    else { return }
    let all = rest + bytes
    let left = (try? connection.socket.write(all)).map { all.dropFirst($0) }
    connections[connection.socket.descriptor]?.phase = .streaming(left ?? all)
  }

  /// Gives the last part of an answer that went on.
  mutating func endStream(_ bytes: [UInt8], to ticket: ControlTicket) {
    guard let connection = connections.values.first(where: { $0.ticket == ticket }) else { return }
    connections[connection.socket.descriptor]?.deadline =
      MonotonicClock.nowNanoseconds() + Self.patienceNanoseconds
    switch connection.phase {
    case .streaming(let rest), .ending(let rest): send(rest + bytes, to: connection)
    case .asking, .waiting, .waitingSilently, .answering: break
    }
  }

  private mutating func send(_ bytes: ArraySlice<UInt8>, to connection: Connection) {
    let descriptor = connection.socket.descriptor
    let left = (try? connection.socket.write(bytes)).map { bytes.dropFirst($0) } ?? []
    if left.isEmpty {
      connections[descriptor] = nil
    } else {
      connections[descriptor]?.phase = .answering(left)
    }
  }

  /// Drops who does not ask, who does not take an answer, and who went away while waiting for one.
  mutating func dropIdle(atNanoseconds now: UInt64) {
    connections = connections.filter { _, connection in
      switch connection.phase {
      case .asking, .answering: connection.deadline > now
      case .waiting, .waitingSilently, .streaming, .ending: !connection.socket.isHungUp
      }
    }
  }

  /// Tells all who still wait that there will be no answer, and gives the rest of all answers a second to go.
  mutating func finish(saying text: String) {
    for connection in connections.values {
      switch connection.phase {
      case .waiting, .waitingSilently: answer(connection.ticket, with: text)
      case .asking, .answering, .streaming, .ending: break
      }
    }
    connections = connections.filter { if case .answering = $1.phase { true } else { false } }
    let deadline = MonotonicClock.nowNanoseconds() + 1_000_000_000
    var poll = DescriptorPoll()
    while !connections.isEmpty {
      let now = MonotonicClock.nowNanoseconds()
      guard now < deadline else { return }
      poll.set(connections.keys.map { ($0, true) })
      let ready = (try? poll.wait(timeoutMilliseconds: Int32((deadline - now) / 1_000_000) + 1)) ?? []
      for descriptor in ready { _ = serve(descriptor, atNanoseconds: now) }
    }
  }
}
