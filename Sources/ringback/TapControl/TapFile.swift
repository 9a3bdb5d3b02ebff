import Foundation

/// Where the taps are kept, so that they outlive the daemon: nodes of guests name them.
struct TapFile {
  let path: String

  /// What was kept. A file that cannot be understood is moved aside, and `warning` says so.
  func read() -> (table: TapTable, warning: String?) {
    guard FileManager.default.fileExists(atPath: path) else { return (TapTable(), nil) }
    do {
      let data = try Data(contentsOf: URL(filePath: path))
      return (try JSONDecoder().decode(TapTable.self, from: data), nil)
    } catch {
      let aside = "\(path).broken"
      try? FileManager.default.removeItem(atPath: aside)
      let kept = (try? FileManager.default.moveItem(atPath: path, toPath: aside)) != nil
      return (
        TapTable(),
        "\(path) cannot be understood, so that no tap is known"
          + (kept ? "; it is kept as \(aside)" : "") + " (\(error))"
      )
    }
  }

  /// Puts the new file in the old one's place as a whole; only the daemon's user may read it.
  func write(_ table: TapTable) throws(TapError) {
    do {
      try FileManager.default.createDirectory(
        atPath: (path as NSString).deletingLastPathComponent, withIntermediateDirectories: true,
        attributes: [.posixPermissions: 0o755])
      let new = "\(path).new"
      try? FileManager.default.removeItem(atPath: new)
      guard
        FileManager.default.createFile(
          atPath: new, contents: Data("\(try table.json())\n".utf8), attributes: [.posixPermissions: 0o600])
      else { throw CocoaError(.fileWriteUnknown) }
      // Sound: rename only reads the strings for the call.
      guard unsafe rename(new, path) == 0 else { throw CocoaError(.fileWriteUnknown) }
    } catch {
      throw TapError(EIO, "\(path) cannot be written, so that nothing was done (\(error))")
    }
  }
}
