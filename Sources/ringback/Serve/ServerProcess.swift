import Foundation

/// A process that serves disks, told from any other that has its number later: "PID START", where START is
/// when it began in the kernel's ticks since boot (proc_pid_stat(5), starttime).
struct ServerProcess: Equatable, CustomStringConvertible {
  let processID: Int32
  let start: UInt64

  /// This process; nil where /proc does not tell.
  static let own = ServerProcess(running: ProcessInfo.processInfo.processIdentifier)

  /// A process that runs now.
  init?(running processID: Int32) {
    guard let text = try? String(contentsOfFile: "/proc/\(processID)/stat", encoding: .utf8),
      // The name of the program, in parentheses, may hold anything.
      let end = text.lastIndex(of: ")")
    else { return nil }
    // The third field follows the name; the start is the 22nd.
    let fields = text[text.index(after: end)...].split(separator: " ")
    guard fields.count > 19, let start = UInt64(fields[19]) else { return nil }
    (self.processID, self.start) = (processID, start)
  }

  /// Understands ``description``.
  init?(_ text: String) {
    let parts = text.split(separator: " ", omittingEmptySubsequences: false)
    guard parts.count == 2, let processID = Int32(parts[0]), let start = UInt64(parts[1]) else { return nil }
    (self.processID, self.start) = (processID, start)
  }

  var description: String { "\(processID) \(start)" }

  /// Whether it still runs.
  var isAlive: Bool { ServerProcess(running: processID) == self }
}
