import Foundation
import Glibc
import Logging

/// Writes log lines to standard error: with syslog priorities when systemd's journal reads them
/// (sd-daemon(3)), with time and level when a person does.
struct StandardErrorLogHandler: LogHandler {
  var metadata: Logger.Metadata = [:]
  var metadataProvider: Logger.MetadataProvider?
  var logLevel: Logger.Level
  private let isJournal: Bool

  init(level: Logger.Level) {
    logLevel = level
    isJournal = Self.isJournal(ProcessInfo.processInfo.environment["JOURNAL_STREAM"])
  }

  /// Whether standard error is the stream to the journal, whose device and inode JOURNAL_STREAM tells
  /// (systemd.exec(5)): the variable outlives a redirection.
  static func isJournal(_ stream: String?, descriptor: Int32 = STDERR_FILENO) -> Bool {
    let words = stream?.split(separator: ":", omittingEmptySubsequences: false).map { UInt64($0) } ?? []
    var facts = stat()
    // Sound: the call fills the local structure.
    guard words.count == 2, unsafe fstat(descriptor, &facts) == 0 else { return false }
    return words == [UInt64(facts.st_dev), UInt64(facts.st_ino)]
  }

  subscript(metadataKey key: String) -> Logger.Metadata.Value? {
    get { metadata[key] }
    set { metadata[key] = newValue }
  }

  func log(event: LogEvent) {
    let all = metadata.merging(event.metadata ?? [:]) { _, new in new }
    // Guest-made strings end up here: one event is one line, whatever they hold.
    let fields = all.sorted { $0.key < $1.key }.map { " \($0.key)=\($0.value)" }.joined()
    let text = Self.escaped("\(event.message)\(fields)")
    let line =
      isJournal
      ? "<\(Self.priority(event.level))>\(text)\n"
      : "\(Date.now.formatted(.iso8601)) \(event.level.rawValue.uppercased()) \(text)\n"
    try? FileHandle.standardError.write(contentsOf: Data(line.utf8))
  }

  private static func escaped(_ text: String) -> String {
    guard text.unicodeScalars.contains(where: { $0.properties.generalCategory == .control }) else {
      return text
    }
    return text.unicodeScalars.map {
      $0.properties.generalCategory == .control ? "\\u{\(String($0.value, radix: 16))}" : String($0)
    }.joined()
  }

  private static func priority(_ level: Logger.Level) -> Int {
    switch level {
    case .critical: 2
    case .error: 3
    case .warning: 4
    case .notice: 5
    case .info: 6
    case .debug, .trace: 7
    }
  }
}
