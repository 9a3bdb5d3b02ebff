import ArgumentParser
import Foundation
import RingKit

/// Where a daemon is asked.
struct DaemonOptions: ParsableArguments {
  @Option(help: ArgumentHelp("The daemon's control socket.", valueName: "path"))
  var controlSocket: String?
}

/// Asks a daemon.
struct DaemonClient {
  let path: String
  /// The longest wait for an answer; nil for commands that take as long as the disk does.
  var patienceMilliseconds: Int32?

  /// The whole answer, as text. Throws when nobody answers, or when the daemon answers with an error.
  func ask(_ question: ControlQuestion) throws -> Data {
    let reply: Data
    do {
      reply = try exchange(question)
    } catch let error as SystemError {
      throw CommandError(
        "no daemon answers at \(path) (\(error)); is `ringback serve` running? "
          + "Its --control-socket has to be the same, and only its own user and root may ask")
    }
    if let failure = try? JSONDecoder().decode(ControlFailure.self, from: reply) {
      throw CommandError(failure.error)
    }
    return reply
  }

  /// What the daemon says to a question, be it an error. Throws a ``SystemError`` when nobody is there.
  func exchange(_ question: ControlQuestion) throws -> Data {
    let socket = try LocalSocket.connect(path: path)
    var left = Array("\(try question.line)\n".utf8)[...]
    while !left.isEmpty { left = left.dropFirst(try socket.write(left)) }
    var reply = Data()
    var poll = DescriptorPoll()
    poll.set([(socket.descriptor, false)])
    while true {
      if let patienceMilliseconds, try poll.wait(timeoutMilliseconds: patienceMilliseconds).isEmpty {
        throw CommandError("the daemon at \(path) does not answer; its log may say why")
      }
      guard let bytes = try socket.read() else { continue }
      if bytes.isEmpty { break }
      reply += bytes
    }
    guard !reply.isEmpty else {
      throw CommandError("the daemon at \(path) ended without an answer; its log says why")
    }
    return reply
  }

  /// The answer as a value.
  func ask<Answer: Decodable>(_ question: ControlQuestion, for type: Answer.Type) throws -> Answer {
    let reply = try ask(question)
    do {
      return try JSONDecoder().decode(type, from: reply)
    } catch {
      throw CommandError(
        "the daemon at \(path) answered something else than expected; is it of another version? (\(error))")
    }
  }
}

extension HostOptions {
  /// Where the daemon listens for questions.
  var controlSocketPath: String {
    hypervisor == .loopback ? "\(loopbackDirectory)/control" : "/run/ringback/control"
  }

  /// Where the sockets of taps are.
  var tapDirectory: String {
    hypervisor == .loopback ? "\(loopbackDirectory)/blktap-control" : "/run/blktap-control"
  }

  /// The daemon that commands ask.
  func daemon(_ options: DaemonOptions) -> DaemonClient {
    DaemonClient(path: options.controlSocket ?? controlSocketPath)
  }
}
