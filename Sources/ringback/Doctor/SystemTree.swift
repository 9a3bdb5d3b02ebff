import Foundation

/// A machine's files as one user may use them; below another root for tests.
struct SystemTree: Sendable {
  /// Put before each path; empty for the machine's own files.
  var root = ""
  var user: UInt32 = geteuid()
  var groups: Set<UInt32> = SystemTree.ownGroups

  /// The most that is read of a file.
  private static let textLimit = 65536

  private static var ownGroups: Set<UInt32> {
    var groups = [gid_t](repeating: 0, count: 1024)
    // Sound: the array is ours for the call and its count is the one passed.
    let count = unsafe getgroups(Int32(groups.count), &groups)
    return Set(groups.prefix(max(0, Int(count)))).union([getegid()])
  }

  private func place(_ path: String) -> String { root + path }

  /// A file's text without the white space around it; nil when it cannot be read.
  func text(_ path: String) -> String? {
    guard let handle = FileHandle(forReadingAtPath: place(path)) else { return nil }
    defer { try? handle.close() }
    // A directory opens, and cannot be read.
    guard let data = try? handle.read(upToCount: Self.textLimit) ?? Data() else { return nil }
    return String(decoding: data, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines)
  }

  /// The decimal number that a file holds.
  func number(_ path: String) -> UInt64? { text(path).flatMap { UInt64($0) } }

  /// Whether there is such a file, behind links.
  func exists(_ path: String) -> Bool { FileManager.default.fileExists(atPath: place(path)) }

  func isDirectory(_ path: String) -> Bool {
    attributes(path)?[.type] as? FileAttributeType == .typeDirectory
  }

  /// What a directory holds, in order; empty when it cannot be read.
  func names(in path: String) -> [String] {
    ((try? FileManager.default.contentsOfDirectory(atPath: place(path))) ?? []).sorted()
  }

  /// Where a symbolic link leads, as it stands in it.
  func link(_ path: String) -> String? {
    try? FileManager.default.destinationOfSymbolicLink(atPath: place(path))
  }

  /// A file's number on its file system, behind links.
  func identity(_ path: String) -> [NSNumber]? {
    guard let found = attributes(path), let system = found[.systemNumber] as? NSNumber,
      let file = found[.systemFileNumber] as? NSNumber
    else { return nil }
    return [system, file]
  }

  /// Whether there is a program that anybody can run.
  func isProgram(_ path: String) -> Bool {
    guard !isDirectory(path), let mode = mode(of: path)?.bits else { return false }
    return mode & 0o111 != 0
  }

  /// Whether the user may read and write the file, by its permissions; root always may.
  func mayUse(_ path: String) -> Bool {
    guard let (bits, owner, group) = mode(of: path) else { return false }
    if user == 0 { return true }
    let shift = owner == user ? 6 : groups.contains(group) ? 3 : 0
    return bits >> shift & 0o6 == 0o6
  }

  /// Whether the user may make files in a directory. Root may not where the file system is read-only.
  func mayMakeFiles(in path: String) -> Bool {
    isDirectory(path) && mayUse(path)
      && (user != geteuid() || FileManager.default.isWritableFile(atPath: place(path)))
  }

  private func mode(of path: String) -> (bits: Int, owner: UInt32, group: UInt32)? {
    guard let found = attributes(path), let bits = found[.posixPermissions] as? NSNumber,
      let owner = found[.ownerAccountID] as? NSNumber, let group = found[.groupOwnerAccountID] as? NSNumber
    else { return nil }
    return (bits.intValue, owner.uint32Value, group.uint32Value)
  }

  /// Of the file behind links.
  private func attributes(_ path: String) -> [FileAttributeKey: Any]? {
    let resolved = URL(filePath: place(path)).resolvingSymlinksInPath().path
    return try? FileManager.default.attributesOfItem(atPath: resolved)
  }

  // MARK: Processes

  /// Whether a process, or this one, has a capability of this number (linux/capability.h); nil when that cannot be
  /// read (proc(5), /proc/pid/status).
  func hasCapability(_ number: Int, process: Int32?) -> Bool? {
    let lines = text("/proc/\(process.map { "\($0)" } ?? "self")/status")?.split(separator: "\n") ?? []
    guard let line = lines.first(where: { $0.hasPrefix("CapEff:") }),
      let set = UInt64(line.dropFirst(7).trimmingPrefix { $0.isWhitespace }, radix: 16)
    else { return nil }
    return set & 1 << UInt64(number) != 0
  }

  /// A running program.
  struct RunningProgram: Equatable {
    var process: Int32
    /// Its command line.
    var words: [String]

    /// The program's name, without its directory.
    var name: String { words.first.map { String($0.split(separator: "/").last ?? "") } ?? "" }
  }

  /// What runs, by process number; kernel threads are left out.
  var programs: [RunningProgram] {
    names(in: "/proc").compactMap { Int32($0) }.sorted().compactMap { process in
      guard let line = text("/proc/\(process)/cmdline"), !line.isEmpty else { return nil }
      let words = line.split(separator: "\0", omittingEmptySubsequences: true).map(String.init)
      return RunningProgram(process: process, words: words)
    }
  }
}
