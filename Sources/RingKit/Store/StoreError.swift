import Glibc

/// Why something about xenstore failed: which node, what is wrong with it, what was expected.
public enum StoreError: Error, Equatable, CustomStringConvertible {
  /// No xenstore daemon answers at `socket`.
  case cannotConnect(socket: String, errno: Int32)
  /// The daemon went away. The connection is of no more use; open a new one and arm its watches again.
  case connectionLost(operation: String)
  /// The daemon refused, with its error number (positive).
  case refused(operation: String, path: String, errno: Int32)
  /// A value or path is not UTF-8 text without NUL.
  case notText(path: String)
  /// A value is longer than the protocol carries (XENSTORE_PAYLOAD_MAX, 4096 bytes).
  case tooLong(path: String, byteCount: Int)
  /// A node that must be there is not.
  case missing(path: String)
  /// A node holds something else than it must. `value` is escaped and cut.
  case badValue(path: String, value: String, expected: String)
  /// Somebody who must not can write a node, or it names what it must not.
  case untrustworthy(path: String, reason: String)
  /// A transaction met a conflicting change in each of its attempts.
  case conflicts(attempts: Int)

  /// A ``badValue(path:value:expected:)`` whose value is fit for a log, whatever a guest wrote.
  public static func bad(_ path: String, _ value: String, expected: String) -> StoreError {
    .badValue(path: path, value: escaped(value), expected: expected)
  }

  /// True when we may not look. xenstored says so of a missing node too, where we may not see its parent.
  public var isForbidden: Bool {
    if case .refused(_, _, let number) = self { number == EACCES } else { false }
  }

  /// True when the node's owner is the cause: its value is nonsense, or it is closed to us. Such a node is no
  /// reason to doubt the store.
  public var isAboutTheNode: Bool {
    switch self {
    case .badValue, .notText, .tooLong: true
    case .refused(_, _, let number): number == EACCES
    case .cannotConnect, .connectionLost, .missing, .untrustworthy, .conflicts: false
    }
  }

  /// The failure in one line.
  public var description: String {
    switch self {
    case .cannotConnect(let socket, let errno):
      let reason = SystemError(call: "connect", errno: errno).description
      return "cannot connect to xenstored at \(socket): \(reason); is xenstored running?"
    case .connectionLost(let operation):
      return "xenstore: \(operation): the connection to xenstored is lost; reconnect"
    case .refused(let operation, let path, let errno):
      let call = path.isEmpty ? operation : "\(operation) \(Self.escaped(path))"
      return "xenstore: \(SystemError(call: call, errno: errno))"
    case .notText(let path):
      return "xenstore: \(Self.escaped(path)) is not text: UTF-8 without NUL is expected"
    case .tooLong(let path, let byteCount):
      return "xenstore: \(Self.escaped(path)) holds \(byteCount) bytes, more than the protocol's 4096"
    case .missing(let path):
      return "xenstore: \(Self.escaped(path)) is missing"
    case .badValue(let path, let value, let expected):
      return "xenstore: \(Self.escaped(path)) is \"\(value)\", expected \(expected)"
    case .untrustworthy(let path, let reason):
      return "xenstore: \(Self.escaped(path)) cannot be trusted: \(reason)"
    case .conflicts(let attempts):
      return "xenstore: the transaction conflicted \(attempts) times with other changes; giving up"
    }
  }

  /// `text` with everything but printable ASCII as \u{...}, cut after `limit` characters: what guests write
  /// goes into logs only in this form.
  public static func escaped(_ text: String, limit: Int = 128) -> String {
    var result = ""
    var count = 0
    for scalar in text.unicodeScalars {
      guard count < limit else { return result + "..." }
      result += scalar.escaped(asASCII: true)
      count += 1
    }
    return result
  }
}
