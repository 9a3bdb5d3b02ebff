import Foundation

/// A file of metrics that is replaced as a whole every so often, for node_exporter's textfile collector.
struct MetricsFile {
  let path: String
  let intervalNanoseconds: UInt64
  private var due: UInt64 = 0
  /// True while writing fails, so that the log tells it once.
  private(set) var isFailing = false

  init(path: String, intervalSeconds: Int) {
    self.path = path
    intervalNanoseconds = UInt64(intervalSeconds) * 1_000_000_000
  }

  /// When it is to be written next, by the clock of ``writeIfDue(atNanoseconds:_:)``.
  var nextNanoseconds: UInt64 { due }

  /// Writes when it is time. Throws the first of several failures in a row.
  mutating func writeIfDue(atNanoseconds now: UInt64, _ metrics: () -> String) throws {
    guard now >= due else { return }
    due = now + intervalNanoseconds
    do {
      try write(metrics())
      isFailing = false
    } catch {
      defer { isFailing = true }
      if !isFailing {
        throw CommandError("the metrics could not be written to \(path): \(error.localizedDescription)")
      }
    }
  }

  /// A reader sees the old text or the new one, never a part: written beside it and renamed over it.
  func write(_ text: String) throws {
    let url = URL(filePath: path)
    try Data(text.utf8).write(to: url, options: .atomic)
    // The collector runs as a user of its own.
    try FileManager.default.setAttributes([.posixPermissions: 0o644], ofItemAtPath: path)
  }

  /// Takes the file away: what it says is no longer so.
  func remove() { try? FileManager.default.removeItem(atPath: path) }
}
