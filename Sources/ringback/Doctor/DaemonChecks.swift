import Foundation
import RingKit

/// Whether a daemon answers on the control socket.
struct DaemonChecks {
  /// What came of asking it for its disks.
  enum Probe: Sendable, Equatable {
    case answers(diskCount: Int)
    /// Nobody listens at the socket, or it is closed to this user.
    case absent(errno: Int32)
    /// Somebody listens who does not answer as a daemon does.
    case unwell(String)

    /// Asks, for `patienceMilliseconds` at most between two parts of the answer.
    init(path: String, patienceMilliseconds: Int32 = 2000) {
      let client = DaemonClient(path: path, patienceMilliseconds: patienceMilliseconds)
      do {
        _ = try LocalSocket.connect(path: path)
        self = .answers(diskCount: try client.ask(ControlQuestion(.list), for: [DeviceReport].self).count)
      } catch let error as SystemError {
        self = .absent(errno: error.errno)
      } catch {
        self = .unwell("\(error)")
      }
    }
  }

  let probe: Probe
  let path: String
  /// Daemons that run here, by their process numbers.
  var processes: [Int32]

  var hasDaemon: Bool { if case .answers = probe { true } else { false } }

  var daemon: Check {
    let running = processes.map { "\($0)" }.joined(separator: ", ")
    switch probe {
    case .answers(let count):
      return .ok("daemon", "the daemon answers at \(path); it has \(count) disk\(count == 1 ? "" : "s")")
    case .unwell(let reason):
      return .problem("daemon", reason, mend: "look at its log; if it hangs, restart it")
    case .absent(EACCES), .absent(EPERM):
      return .warning(
        "daemon", "the daemon's socket \(path) is closed to this user",
        mend: "ask as root, or as the daemon's user")
    case .absent where !processes.isEmpty:
      return .warning(
        "daemon", "no daemon answers at \(path), though one runs (pid \(running))",
        mend: "say where it listens with --control-socket")
    case .absent:
      return .warning(
        "daemon", "no daemon answers at \(path)",
        mend: "start it: systemctl enable --now ringback, or ringback serve")
    }
  }
}
