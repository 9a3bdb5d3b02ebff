import Glibc

/// A program inside a ``NetworkNamespace`` that did not do what it was started for.
public struct ToolFailure: Error, CustomStringConvertible {
  /// The program and its arguments.
  public let command: String
  /// How it ended; nil when that is not known.
  public let end: ChildProcess.End?
  /// What it said on standard error.
  public let words: String

  /// "command: how it ended: what it said".
  public var description: String {
    "\(command): \(end.map { "\($0)" } ?? "its end is unknown")\(words.isEmpty ? "" : ": \(words)")"
  }
}

/// Programs inside the namespace, and what iproute2's `ip` does there.
extension NetworkNamespace {
  /// Where programs are looked for, in this order.
  private static let folders = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"]

  /// The path of a program; nil when it is not installed.
  public static func path(of program: String) -> String? {
    folders.map { "\($0)/\(program)" }.first { unsafe access($0, X_OK) == 0 }
  }

  /// Starts a program inside.
  public func start(_ program: String, _ arguments: [String]) throws -> ChildProcess {
    guard let path = Self.path(of: program) else {
      throw SystemError(call: "start \(program)", errno: ENOENT)
    }
    let environment = ["PATH=" + Self.folders.joined(separator: ":"), "LC_ALL=C"]
    return try run { try ChildProcess(path: path, arguments: arguments, environment: environment) }
  }

  /// Runs a program inside to its end; throws ``ToolFailure`` unless that is success.
  public func execute(_ program: String, _ arguments: [String]) throws {
    let process = try start(program, arguments)
    var words: [UInt8] = []
    var poll = DescriptorPoll()
    poll.set([(process.errorDescriptor, false)])
    while true {
      _ = try poll.wait(timeoutMilliseconds: nil)
      guard let said = process.readErrors() else { continue }
      if said.isEmpty { break }
      // Nobody reads more than that.
      if words.count < 65536 { words += said }
    }
    let end = process.waitForEnd()
    guard end == .exited(status: 0) else {
      throw ToolFailure(
        command: ([program] + arguments).joined(separator: " "), end: end,
        words: String(decoding: words, as: UTF8.self))
    }
  }

  /// Runs `ip` (Debian's package iproute2) with these words.
  public func ip(_ words: String) throws {
    try execute("ip", words.split(separator: " ").map(String.init))
  }

  /// Sets an interface up.
  public func setUp(_ link: String) throws { try ip("link set dev \(link) up") }

  /// Gives an interface an address with the length of its prefix ("10.0.0.1/24", "fd00::1/64"), usable at once.
  public func addAddress(_ address: String, to link: String) throws {
    // Nobody else can have it: the kernel would keep an IPv6 address back for a second to ask.
    try ip("address add \(address) dev \(link)" + (address.contains(":") ? " nodad" : ""))
  }

  /// Makes a bridge that is up and forwards at once, with these interfaces as its ports.
  public func addBridge(_ name: String, ports: [String] = []) throws {
    try ip("link add name \(name) type bridge forward_delay 0")
    for port in ports { try ip("link set dev \(port) master \(name)") }
    try setUp(name)
  }
}
