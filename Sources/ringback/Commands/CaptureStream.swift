import Foundation
import RingKit

/// The daemon's answer to the question for a capture: a pcapng file that goes on, or an error.
final class CaptureStream {
  /// The numbers at the end of the file.
  struct Ending: Equatable {
    var kept: UInt64
    var dropped: UInt64
  }

  private let socket: LocalSocket
  private let path: String
  private var first: [UInt8] = []
  private var tail: [UInt8] = []
  private var poll = DescriptorPoll()

  /// Asks, and waits for the beginning of the answer.
  init(_ daemon: DaemonClient, _ question: ControlQuestion) throws {
    path = daemon.path
    do {
      socket = try LocalSocket.connect(path: daemon.path)
      var left = Array("\(try question.line)\n".utf8)[...]
      while !left.isEmpty { left = left.dropFirst(try socket.write(left)) }
    } catch let error as SystemError {
      throw CommandError(
        "no daemon answers at \(daemon.path) (\(error)); is `ringback serve` running? "
          + "Its --control-socket has to be the same, and only its own user and root may ask")
    }
    socket.setNonBlocking()
    poll.set([(socket.descriptor, false)])
    while first.isEmpty {
      guard try !poll.wait(timeoutMilliseconds: 10_000).isEmpty else {
        throw CommandError("the daemon at \(path) does not answer; its log may say why")
      }
      guard let bytes = try socket.read() else { continue }
      guard !bytes.isEmpty else {
        throw CommandError("the daemon at \(path) ended without an answer; its log says why")
      }
      first = bytes
    }
    guard first.first == UInt8(ascii: "{") else { return }
    // An error, which is short; its end may still be on the way.
    var reply = first
    while let bytes = try socket.read(), !bytes.isEmpty { reply += bytes }
    let failure = try? JSONDecoder().decode(ControlFailure.self, from: Data(reply))
    throw CommandError(failure?.error ?? "the daemon at \(path) does not know captures; is it an older one?")
  }

  /// Copies all to the end; a signal asks for the end.
  func copy(to file: CaptureFile, until signals: TerminationSignals) throws {
    guard try write(first, to: file) else { return }
    poll.set([(socket.descriptor, false), (signals.descriptor, false)])
    while true {
      _ = try poll.wait(timeoutMilliseconds: nil)
      if signals.next() == .stop { socket.endWriting() }
      guard let bytes = try socket.read() else { continue }
      guard !bytes.isEmpty else { break }
      guard try write(bytes, to: file) else { return }
    }
    guard ending != nil else {
      throw CommandError(
        "the daemon at \(path) ended, and the capture with it; the file has what came before")
    }
  }

  private func write(_ bytes: [UInt8], to file: CaptureFile) throws -> Bool {
    tail = (tail + bytes).suffix(64)
    return try file.write(bytes)
  }

  /// What the last block tells, once it has come: an interface statistics block of 52 bytes with two options.
  var ending: Ending? {
    let length = 52
    guard tail.count >= length else { return nil }
    let block = Array(tail.suffix(length))
    func number(_ offset: Int, _ count: Int) -> UInt64 {
      (0..<count).reversed().reduce(0) { $0 << 8 | UInt64(block[offset + $1]) }
    }
    guard number(0, 4) == 5, number(4, 4) == UInt64(length), number(length - 4, 4) == UInt64(length) else {
      return nil
    }
    let (seen, dropped) = (number(24, 8), number(36, 8))
    return Ending(kept: seen - min(seen, dropped), dropped: dropped)
  }
}
