import Foundation
import RingKit

/// The daemon's end of its control socket: one line asks, one JSON document answers, and the connection ends.
struct ControlSocket {
  /// Connections that wait to ask or to be answered; more are refused, so that nobody fills the table.
  static let connectionLimit = 32
  /// Bytes of a question.
  static let questionLimit = 4096

  let listener: LocalSocket
  private var connections: [Int32: Connection] = [:]

  private struct Connection {
    let socket: LocalSocket
    var question: [UInt8] = []
    var answer: ArraySlice<UInt8>?
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
    [(listener.descriptor, false)] + connections.map { ($0.key, $0.value.answer != nil) }
  }

  /// Serves a ready descriptor; `answer` turns a question into bytes.
  mutating func serve(_ descriptor: Int32, answer: (String) -> String) {
    if descriptor == listener.descriptor {
      while let socket = listener.accept() {
        guard connections.count < Self.connectionLimit else { continue }
        connections[socket.descriptor] = Connection(socket: socket)
      }
      return
    }
    guard var connection = connections.removeValue(forKey: descriptor) else { return }
    do {
      if connection.answer == nil {
        guard let bytes = try connection.socket.read() else {
          connections[descriptor] = connection
          return
        }
        connection.question += bytes
        guard let end = connection.question.firstIndex(of: UInt8(ascii: "\n")) else {
          if !bytes.isEmpty && connection.question.count <= Self.questionLimit {
            connections[descriptor] = connection
          }
          return
        }
        let text = answer(String(decoding: connection.question[..<end], as: UTF8.self))
        connection.answer = Array(text.utf8)[...]
      }
      let written = try connection.socket.write(connection.answer ?? [])
      connection.answer = connection.answer?.dropFirst(written)
      if connection.answer?.isEmpty == false { connections[descriptor] = connection }
    } catch {
      // The asker went away; there is nobody to tell.
    }
  }

  /// Asks the daemon that listens at `path`.
  static func ask(_ question: String, path: String) throws -> String {
    let socket = try LocalSocket.connect(path: path)
    var left = Array("\(question)\n".utf8)[...]
    while !left.isEmpty { left = left.dropFirst(try socket.write(left)) }
    var reply: [UInt8] = []
    while let bytes = try socket.read(), !bytes.isEmpty { reply += bytes }
    return String(decoding: reply, as: UTF8.self)
  }
}
