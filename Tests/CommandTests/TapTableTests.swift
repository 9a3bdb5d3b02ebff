import Foundation
import Testing

@testable import ringback

/// The taps' state machine, every step from every phase.
@Suite struct TapTableTests {
  /// The steps with one minor, by the names of tap-ctl's commands.
  private enum Step: CaseIterable {
    case free, attach, detach, open, close, pause, unpause, rename
  }

  private func take(_ step: Step, _ minor: Int, in table: inout TapTable) throws(TapError) {
    switch step {
    case .free: try table.free(minor)
    case .attach: try table.attach(minor, process: 7)
    case .detach: try table.detach(minor)
    case .open: try table.open(minor, TapImage(name: "aio:/disk"))
    case .close: try table.close(minor)
    case .pause: try table.pause(minor)
    case .unpause: try table.unpause(minor, name: nil)
    case .rename: try table.rename(minor, to: "aio:/other")
    }
  }

  /// A table with minor 0 in a phase; nil for none at all.
  private func table(_ phase: Tap.Phase?) throws -> TapTable {
    var table = TapTable()
    guard let phase else { return table }
    #expect(try table.allocate() == 0)
    if phase == .allocated { return table }
    try table.attach(0, process: 7)
    if phase == .attached { return table }
    try table.open(0, TapImage(name: "aio:/disk"))
    if phase == .paused { try table.pause(0) }
    return table
  }

  private enum Expected: Equatable {
    case phase(Tap.Phase?)
    case errno(Int32)
  }

  /// What the original's processes and files answer (tapdisk-control.c, tap-ctl-free.c).
  private func expected(_ step: Step, from phase: Tap.Phase?) -> Expected {
    switch (step, phase) {
    case (.free, nil), (.attach, nil): .errno(ENOENT)
    case (.free, .allocated): .phase(nil)
    case (.free, _): .errno(EAGAIN)
    case (.attach, .allocated): .phase(.attached)
    case (.attach, _): .errno(EEXIST)
    case (.detach, .attached): .phase(.allocated)
    case (.detach, .open), (.detach, .paused): .errno(EBUSY)
    case (.detach, _): .errno(ENODEV)
    case (.open, .attached): .phase(.open)
    case (.open, .open), (.open, .paused): .errno(EALREADY)
    case (.open, _): .errno(EINVAL)
    case (.close, .attached), (.close, .open), (.close, .paused): .phase(.attached)
    case (.close, _): .errno(ENODEV)
    case (.pause, .open), (.pause, .paused): .phase(.paused)
    case (.pause, .attached): .errno(EINVAL)
    case (.pause, _): .errno(ENODEV)
    case (.unpause, .paused): .phase(.open)
    case (.unpause, .open), (.unpause, .attached): .errno(EINVAL)
    case (.unpause, _): .errno(ENODEV)
    case (.rename, .attached), (.rename, .open), (.rename, .paused): .phase(phase)
    case (.rename, _): .errno(ENODEV)
    }
  }

  @Test func everyStepFromEveryPhase() throws {
    let phases: [Tap.Phase?] = [nil] + Tap.Phase.allCases
    for phase in phases {
      for step in Step.allCases {
        var table = try table(phase)
        let before = table
        do throws(TapError) {
          try take(step, 0, in: &table)
          #expect(
            Expected.phase(table[0]?.phase) == expected(step, from: phase),
            "\(step) from \(String(describing: phase))")
        } catch {
          #expect(
            Expected.errno(error.errno) == expected(step, from: phase),
            "\(step) from \(String(describing: phase)): \(error)")
          #expect(table == before, "a step that failed has changed something")
          #expect(!error.description.isEmpty)
        }
      }
    }
  }

  @Test func everySequenceOfStepsKeepsOtherMinorsAndComesBackFromItsText() throws {
    var seen: [TapTable] = []
    var front = [try table(nil)]
    // All tables that steps with minors 0 and 1 lead to.
    while let present = front.popLast() {
      guard !seen.contains(present) else { continue }
      seen.append(present)
      let text = try JSONEncoder().encode(present)
      #expect(try JSONDecoder().decode(TapTable.self, from: text) == present)
      for minor in 0...1 {
        for step in Step.allCases {
          var next = present
          guard (try? take(step, minor, in: &next)) != nil else { continue }
          #expect(next[1 - minor] == present[1 - minor], "\(step) of \(minor) has changed the other")
          front.append(next)
        }
      }
      var next = present
      if present.taps.count < 2 {
        _ = try next.allocate()
        front.append(next)
      }
    }
    // Each minor: not there, allocated, attached, after a closing, and with either image open or paused.
    #expect(seen.count == 8 * 8)
  }

  @Test func theLowestFreeMinorIsGivenAndThereIsAnEnd() throws {
    var table = TapTable()
    for minor in 0..<5 { #expect(try table.allocate() == minor) }
    try table.free(3)
    try table.free(0)
    #expect(try table.allocate() == 0)
    #expect(try table.allocate() == 3)
    #expect(try table.allocate() == 5)
    let all = (0..<TapTable.limit).map { #"{"minor":\#($0),"wasClosed":false}"# }.joined(separator: ",")
    table = try JSONDecoder().decode(TapTable.self, from: Data("[\(all)]".utf8))
    #expect(throws: TapError.self) { try table.allocate() }
    try table.free(77)
    #expect(try table.allocate() == 77)
  }

  @Test(arguments: [
    #"[{"minor":0,"wasClosed":false},{"minor":0,"wasClosed":false}]"#, #"[{"minor":-1,"wasClosed":false}]"#,
    #"[{"minor":16384,"wasClosed":false}]"#, #"[{"minor":0,"wasClosed":false,"process":0}]"#,
    #"[{"minor":0,"wasClosed":false,"image":{"name":"aio:/x","isReadOnly":false,"isDirect":true,"isPaused":false,"#
      + #""sectorCount":0,"sectorByteCount":512}}]"#,
    #"[{"minor":"x"}]"#, "{", "", "[1]",
  ])
  func aFileThatNoDaemonWroteIsToldAndKeptAside(text: String) throws {
    let directory =
      FileManager.default.temporaryDirectory.path + "/ringback-taps-\(UUID().uuidString.prefix(8))"
    defer { try? FileManager.default.removeItem(atPath: directory) }
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: false)
    let file = TapFile(path: "\(directory)/taps.json")
    try Data(text.utf8).write(to: URL(filePath: file.path))
    let (table, warning) = file.read()
    #expect(table == TapTable())
    #expect(try #require(warning).contains("\(file.path).broken"))
    #expect(try String(contentsOfFile: "\(file.path).broken", encoding: .utf8) == text)
    // What is written next is read again.
    var written = TapTable()
    _ = try written.allocate()
    try file.write(written)
    let (again, second) = file.read()
    #expect(again == written && second == nil)
    let mode = try FileManager.default.attributesOfItem(atPath: file.path)[.posixPermissions] as? Int
    #expect(mode == 0o600)
  }

  @Test func statesAreThoseOfTapdisk() throws {
    var table = try table(.open)
    #expect(table[0]?.stateBits == 0)
    try table.pause(0)
    #expect(table[0]?.stateBits == 0x2a)
    try table.close(0)
    #expect(table[0]?.stateBits == 2)
    try table.detach(0)
    #expect(table[0]?.stateBits == nil)
    try table.attach(0, process: 1)
    #expect(table[0]?.stateBits == 0)
  }

  @Test func aTapThatIsUnknownChangesNothingOnDiskThatCannotBeWritten() throws {
    var taps = DaemonTaps(file: TapFile(path: "/proc/ringback/taps.json"), directory: "/nowhere")
    #expect(throws: TapError.self) {
      _ = try taps.change { (table) throws(TapError) in try table.allocate() }
    }
    #expect(taps.table == TapTable())
  }

  @Test func socketsNameTheirTaps() throws {
    var taps = DaemonTaps(file: TapFile(path: "/nowhere"), directory: "/nowhere")
    taps.table = try table(.open)
    #expect(taps.socketPath(minor: 0, process: 7) == "/nowhere/nbd7.0")
    #expect(taps.tap(atSocket: "/run/blktap-control/nbd12.0")?.minor == 0)
    for path in [
      "/run/nbd12.1", "/run/nbd12", "nbd.0", "/run/xnbd1.0", "/run/nbd1.0x", "", "/run/nbd1.99999",
      "/dev/sda",
    ] {
      #expect(taps.tap(atSocket: path) == nil, "\(path)")
    }
    #expect(taps.taps(of: "raw:/disk").count == 1)
    #expect(taps.taps(of: "/disk").count == 1)
    #expect(taps.taps(of: "vhd:/disk").isEmpty)
    #expect(taps.taps(of: "no such").isEmpty)
  }
}
