import Foundation
import Glibc
import RingKit

/// What systemd is told of the daemon (sd_notify(3)): datagrams to the socket that NOTIFY_SOCKET names. Nothing
/// at all where it names none.
struct ServiceNotices {
  /// What there is to tell.
  enum Notice: Equatable {
    /// Starting goes on, and takes longer.
    case starting
    /// Everything is open, and the disks that were there are looked at; or the configuration is read again.
    case ready
    /// The configuration is being read again since then, in nanoseconds of CLOCK_MONOTONIC.
    case reloading(sinceNanoseconds: UInt64)
    case stopping
    /// All is well.
    case alive
    case status(String)

    /// The text of the datagram.
    var text: String {
      switch self {
      case .starting: "EXTEND_TIMEOUT_USEC=\(ServiceNotices.startMicroseconds)"
      case .ready: "READY=1"
      case .reloading(let since): "RELOADING=1\nMONOTONIC_USEC=\(since / 1000)"
      case .stopping: "STOPPING=1"
      case .alive: "WATCHDOG=1"
      case .status(let status): "STATUS=\(status)"
      }
    }
  }

  /// How long looking at one disk may take at the start: its image may lie on a server that does not answer.
  static let startMicroseconds = 30_000_000
  /// How soon a notice is sent again that the receiver had no room for.
  static let retryNanoseconds: UInt64 = 100_000_000

  /// How long systemd waits for ``Notice/alive`` before it acts; nil when it does not.
  private(set) var watchdogNanoseconds: UInt64?
  /// Why nobody is told although somebody wants to be.
  private(set) var trouble: String?
  private let socket: NoticeSocket?
  private var unsent: [Notice] = []
  private var status = ""

  /// Whether systemd is told.
  var isHeard: Bool { socket != nil }

  /// Takes its variables out of this process' environment: what it starts is not what systemd watches. Before
  /// any other thread starts, since they might read the environment.
  static func takeFromEnvironment() -> ServiceNotices {
    let notices = ServiceNotices(
      ProcessInfo.processInfo.environment, processID: ProcessInfo.processInfo.processIdentifier)
    // Sound: no other thread runs yet.
    for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] { unsafe unsetenv(name) }
    return notices
  }

  init(_ environment: [String: String], processID: Int32) {
    guard let address = environment["NOTIFY_SOCKET"], !address.isEmpty else {
      socket = nil
      return
    }
    do {
      socket = try NoticeSocket(address: address)
      if socket == nil { trouble = "NOTIFY_SOCKET is neither a path nor @ and a name: \(address)" }
    } catch {
      socket = nil
      trouble = "NOTIFY_SOCKET: \(error)"
    }
    // The variables may have been meant for the process that started this one (sd_watchdog_enabled(3)).
    guard socket != nil, environment["WATCHDOG_PID"].map({ $0 == "\(processID)" }) ?? true,
      let microseconds = environment["WATCHDOG_USEC"].flatMap({ UInt64($0) }),
      microseconds > 0, microseconds < UInt64.max / 1000
    else { return }
    watchdogNanoseconds = microseconds * 1000
  }

  /// When ``sendAgain()`` is due.
  func nextNanoseconds(after now: UInt64) -> UInt64? { unsent.isEmpty ? nil : now + Self.retryNanoseconds }

  /// Tells; a status only when it is another one than before. Notices arrive in this order.
  mutating func tell(_ notice: Notice) {
    guard socket != nil else { return }
    if case .status(let text) = notice {
      guard text != status else { return }
      status = text
      unsent.removeAll { if case .status = $0 { true } else { false } }
    }
    if notice == .alive, unsent.contains(.alive) { return }
    unsent.append(notice)
    sendAgain()
  }

  /// Sends what could not be sent before.
  mutating func sendAgain() {
    do {
      while let notice = unsent.first {
        guard try socket?.send(notice.text) ?? true else { return }
        unsent.removeFirst()
      }
    } catch {
      // Nobody listens there (any more): waiting does not help.
      unsent = []
      trouble = "systemd is not told of the daemon: \(error)"
    }
  }

  /// What is not to be told again.
  mutating func takeTrouble() -> String? {
    defer { trouble = nil }
    return trouble
  }
}
