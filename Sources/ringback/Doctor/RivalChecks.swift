import Foundation

/// What else on the machine would serve the same disks.
struct RivalChecks {
  let tree: SystemTree
  /// The kinds of backend that are served.
  var kinds: [String]
  /// What runs.
  var programs: [SystemTree.RunningProgram]
  /// Words on the command line of every daemon of the same machine; empty on Xen.
  var machineWords: [String] = []

  var all: [Check] { [tapback, tapdisk, kernel, daemons].compactMap { $0 } }

  /// tapback watches backend/vbd3, or the kind that its option -n names.
  var tapback: Check? {
    let masters = programs.filter { $0.name == "tapback" }
    guard !masters.isEmpty else { return nil }
    let rivals = masters.filter { kinds.contains(Self.kind(ofTapback: $0.words)) }
    guard !rivals.isEmpty else {
      return .ok("tapback", "tapback runs (\(Self.list(masters))), and serves kinds that are not served here")
    }
    return .problem(
      "tapback",
      "tapback runs (\(Self.list(rivals))) and serves \(Self.kind(ofTapback: rivals[0].words)) too: both would"
        + " answer the same guests",
      mend:
        "end the guests that it serves, then: systemctl disable --now tapback, or kill \(rivals[0].process)")
  }

  private static func kind(ofTapback words: [String]) -> String {
    for (index, word) in words.enumerated() {
      if word == "-n" || word == "--name", index + 1 < words.count { return words[index + 1] }
      if word.hasPrefix("--name=") { return String(word.dropFirst(7)) }
      if word.hasPrefix("-n"), word.count > 2 { return String(word.dropFirst(2)) }
    }
    return "vbd3"
  }

  /// A tapdisk holds its image.
  var tapdisk: Check? {
    let found = programs.filter { ["tapdisk", "tapdisk2"].contains($0.name) }
    guard !found.isEmpty else { return nil }
    return .warning(
      "tapdisk", "blktap's tapdisk runs (\(Self.list(found))): images that it has open are used twice",
      mend: "end the guests that it serves, or take their disks away; it ends with its last image")
  }

  /// Linux' own backend knows the kind vbd alone.
  var kernel: Check {
    let isThere = tree.exists("/sys/module/xen_blkback") || tree.exists("/sys/bus/xen-backend/drivers/vbd")
    guard isThere else { return .ok("xen-blkback", "the kernel's own backend is not loaded") }
    guard kinds.contains("vbd") else {
      return .ok(
        "xen-blkback",
        "the kernel's own backend is loaded, and serves the kind vbd alone; here it is"
          + " \(kinds.joined(separator: ", "))")
    }
    return .problem(
      "xen-blkback", "the kernel's own backend is loaded and serves the kind vbd too",
      mend: "rmmod xen-blkback and blacklist it, or serve vbd3 (backendtype=tap) alone")
  }

  /// Daemons of this program that serve our kinds on the same machine.
  var ownDaemons: [SystemTree.RunningProgram] {
    programs.filter { program in
      program.name == "ringback" && program.words.dropFirst().first == "serve" && isOfThisMachine(program)
        && !Self.kinds(of: program.words).isDisjoint(with: kinds)
    }
  }

  /// More than one.
  var daemons: Check? {
    let sharing = ownDaemons
    guard sharing.count > 1 else { return nil }
    return .problem(
      "daemons", "\(sharing.count) daemons serve the same kind of disks (\(Self.list(sharing)))",
      mend: "stop all but one: both would answer the same guests")
  }

  private func isOfThisMachine(_ program: SystemTree.RunningProgram) -> Bool {
    machineWords.isEmpty
      ? !program.words.contains("loopback") : machineWords.allSatisfy(program.words.contains)
  }

  private static func kinds(of words: [String]) -> Set<String> {
    var kinds: Set<String> = []
    for (index, word) in words.enumerated() {
      if word == "--kind", index + 1 < words.count { kinds.insert(words[index + 1]) }
      if word.hasPrefix("--kind=") { kinds.insert(String(word.dropFirst(7))) }
    }
    return kinds.isEmpty ? [defaultKind] : kinds
  }

  private static func list(_ programs: [SystemTree.RunningProgram]) -> String {
    "pid " + programs.map { "\($0.process)" }.joined(separator: ", ")
  }
}
