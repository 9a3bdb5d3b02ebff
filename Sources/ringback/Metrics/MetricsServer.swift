import Foundation
import RingKit

/// Where metrics are told of.
enum MetricsAddress: Equatable {
  /// A unix socket that only our own user and root can connect to.
  case local(path: String)
  /// A port of this machine that other machines cannot reach.
  case loopback(port: UInt16)

  /// Understands `unix:/path`, `127.0.0.1:9400` and `localhost:9400`.
  init?(_ text: String) {
    if text.hasPrefix("unix:") {
      let path = String(text.dropFirst(5))
      guard path.hasPrefix("/"), path.utf8.count < 108 else { return nil }
      self = .local(path: path)
      return
    }
    for host in ["127.0.0.1:", "localhost:"] where text.hasPrefix(host) {
      let digits = text.dropFirst(host.count)
      guard digits.allSatisfy({ $0.isASCII && $0.isNumber }), let port = UInt16(digits) else { return nil }
      self = .loopback(port: port)
      return
    }
    return nil
  }
}

/// Answers `GET /metrics` over HTTP/1.1, one request a connection, on the control thread.
///
/// Not a web server: a request is read up to 4 KiB within five seconds, its head only, and every other one is
/// refused. A library's would bring threads and tasks of its own to numbers that belong to this thread.
struct MetricsServer {
  /// Connections at once; more wait.
  static let connectionLimit = 16
  /// Bytes of a request's head.
  static let headLimit = 4096
  static let patienceNanoseconds: UInt64 = 5_000_000_000

  let listener: LocalSocket
  private var connections: [Int32: Connection] = [:]

  private struct Connection {
    let socket: LocalSocket
    let deadline: UInt64
    var head: [UInt8] = []
    var answer: ArraySlice<UInt8>?
  }

  /// Listens.
  init(_ address: MetricsAddress) throws {
    do {
      switch address {
      case .local(let path): listener = try LocalSocket.listen(path: path)
      case .loopback(let port): listener = try LocalSocket.listen(loopbackPort: port)
      }
    } catch {
      throw CommandError("the metrics cannot be told: \(error); choose another place with --metrics-listen")
    }
    listener.setNonBlocking()
  }

  /// What the control thread waits for on behalf of this server.
  var descriptors: [(descriptor: Int32, writable: Bool)] {
    connections.map { ($0.key, $0.value.answer != nil) }
      + (connections.count < Self.connectionLimit ? [(listener.descriptor, false)] : [])
  }

  /// Serves a ready descriptor, if it is one of ours; `metrics` makes the text.
  mutating func serve(_ descriptor: Int32, atNanoseconds now: UInt64, metrics: () -> String) {
    if descriptor == listener.descriptor {
      while connections.count < Self.connectionLimit, let socket = listener.accept() {
        connections[socket.descriptor] = Connection(socket: socket, deadline: now + Self.patienceNanoseconds)
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
        connection.head += bytes.prefix(Self.headLimit + 1)
        guard let answer = Self.answer(to: connection.head, metrics: metrics) else {
          // Nothing more will come of a request that ended before its head did.
          if !bytes.isEmpty { connections[descriptor] = connection }
          return
        }
        connection.answer = Array(answer.utf8)[...]
      }
      let written = try connection.socket.write(connection.answer ?? [])
      connection.answer = connection.answer?.dropFirst(written)
      if connection.answer?.isEmpty == false { connections[descriptor] = connection }
    } catch {
      // The asker went away.
    }
  }

  /// Drops who does not ask, or does not take the answer, in time.
  mutating func dropIdle(atNanoseconds now: UInt64) { connections = connections.filter { $1.deadline > now } }

  /// The answer to a request's head; nil while it is not whole.
  static func answer(to head: [UInt8], metrics: () -> String) -> String? {
    let text = String(decoding: head.prefix(headLimit), as: UTF8.self)
    guard let end = text.range(of: "\r\n\r\n") ?? text.range(of: "\n\n") else {
      return head.count > headLimit
        ? response("431 Request Header Fields Too Large", "the request is too long\n") : nil
    }
    let line = text[..<end.lowerBound].prefix { !$0.isNewline }
    let words = line.split(separator: " ", omittingEmptySubsequences: false)
    guard words.count == 3, words[2] == "HTTP/1.1" || words[2] == "HTTP/1.0" else {
      return response("400 Bad Request", "this is not HTTP/1.1\n")
    }
    let path = words[1].prefix { $0 != "?" }
    guard path == "/metrics" else { return response("404 Not Found", "the metrics are at /metrics\n") }
    switch words[0] {
    case "GET": return response("200 OK", metrics(), type: MetricsText.contentType)
    case "HEAD": return response("200 OK", metrics(), type: MetricsText.contentType, withBody: false)
    default: return response("405 Method Not Allowed", "only GET is answered\n", more: "Allow: GET, HEAD\r\n")
    }
  }

  private static func response(
    _ status: String, _ body: String, type: String = "text/plain; charset=utf-8", more: String = "",
    withBody: Bool = true
  ) -> String {
    "HTTP/1.1 \(status)\r\nContent-Type: \(type)\r\nContent-Length: \(body.utf8.count)\r\n\(more)"
      + "Connection: close\r\n\r\n\(withBody ? body : "")"
  }
}
