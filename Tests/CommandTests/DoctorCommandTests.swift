import Blkback
import Foundation
import Loopback
import RingKit
import Testing

@testable import ringback

/// `ringback doctor`, as a person runs it.
@Suite struct DoctorCommandTests {
  private func doctor(_ stage: CommandStage, _ words: String...) throws -> Command.Outcome {
    try Command.run(["doctor"] + stage.host + words)
  }

  @Test(.timeLimit(.minutes(10)))
  func itFollowsADaemonsLife() throws {
    let stage = try CommandStage()
    let before = try doctor(stage)
    #expect(before.status == 1 && before.output.contains("ringback loopback"), "\(before.output)")
    #expect(before.output.contains("guests cannot be served: 1 problem"), "\(before.output)")
    try stage.startMachine()
    let idle = try doctor(stage)
    #expect(idle.status == 0 && idle.output.contains("no daemon answers"), "\(idle.output)")
    // Nobody takes it.
    let attached = try Command.run(
      ["attach", "-d", "1", "-v", "xvda", "--no-wait"] + stage.host + [stage.image])
    #expect(attached.status == 0)
    let stuck = try doctor(stage)
    #expect(stuck.status == 0 && stuck.output.contains("vbd3/1/51712 (xvda of domain 1)"), "\(stuck.output)")
    let daemon = try stage.startDaemon()
    let hypervisor = try LoopbackHypervisor(
      directory: "\(stage.directory)/machine", domain: DomainID(rawValue: 0))
    let device = try #require(VirtualDevice("xvda"))
    _ = try Toolstack<VirtualDevice>(host: hypervisor, kind: defaultKind)
      .waitForState(of: DomainID(rawValue: 1), device, seconds: 20) { $0 == .initWait }
    let served = try doctor(stage)
    #expect(
      served.status == 0 && served.output.contains("1 disk in xenstore, of which none"), "\(served.output)")
    #expect(served.output.hasSuffix("guests can be served\n"), "\(served.output)")
    #expect(!served.output.contains("\u{1B}"))
    let json = try doctor(stage, "--json")
    let diagnosis = try JSONDecoder().decode(Diagnosis.self, from: Data(json.output.utf8))
    #expect(diagnosis.canServe && diagnosis.checks.contains { $0.name == "daemon" && $0.verdict == .ok })
    #expect(try doctor(stage, "--kind", "other").output.contains("no disks"))
    #expect(try doctor(stage, "--kind", "a/b").status == 64)
    #expect(try doctor(stage, "--io-engine", "libaio").output.contains("libaio room"))
    daemon.process.terminate()
    #expect(daemon.finish().status == 0)
  }

  @Test(
    .enabled(if: !FileManager.default.fileExists(atPath: "/sys/hypervisor/type"), "below is a hypervisor"))
  func withoutXenItShowsTheWay() throws {
    let outcome = try Command.run(["doctor"])
    #expect(outcome.status == 1 && outcome.output.contains("ringback demo"), "\(outcome.output)")
    #expect(outcome.output.contains("--hypervisor"), "\(outcome.output)")
  }

  /// What the file says is what is looked at; a bad one is told with its lines, and the rest still is.
  @Test(.timeLimit(.minutes(10)))
  func itReadsTheDaemonsConfiguration() throws {
    let stage = try CommandStage()
    try stage.startMachine()
    let file = "\(stage.directory)/ringback.toml"
    func doctor(with text: String) throws -> Command.Outcome {
      try Data(text.utf8).write(to: URL(filePath: file))
      return try self.doctor(stage, "--config", file)
    }
    let socket = "\(stage.directory)/elsewhere"
    let good = try doctor(
      with: "[daemon]\nthreads = 3\ncontrol-socket = \"\(socket)\"\n[io]\nengine = \"libaio\"\n")
    #expect(good.status == 0 && good.output.contains("\(file) is in order"), "\(good.output)")
    #expect(good.output.contains("no daemon answers at \(socket)"), "\(good.output)")
    #expect(good.output.contains("3 data threads") && good.output.contains("as asked for"), "\(good.output)")
    for (text, word) in [
      ("[daemon]\nthreads = 0\n", ":2"), ("kind = [}", "no TOML"), ("[nonsense]\n", "nonsense"),
    ] {
      let bad = try doctor(with: text)
      #expect(bad.status == 1 && bad.output.contains(word), "\(bad.output)")
      #expect(bad.output.contains("problem  configuration"), "\(bad.output)")
      #expect(bad.output.contains("xenstored answers"), "\(bad.output)")
    }
    try FileManager.default.removeItem(atPath: file)
    let missing = try self.doctor(stage, "--config", file)
    #expect(missing.status == 1 && missing.output.contains("there is no file"), "\(missing.output)")
  }

  @Test func linesHaveAColumnForEachThing() {
    let diagnosis = Diagnosis([
      .ok("xen", "is there"), .warning("tap-ctl", "is not ours", mend: "install it"),
      .problem("io", "is broken", mend: Array(repeating: "word", count: 30).joined(separator: " ")),
    ])
    let lines = diagnosis.lines()
    #expect(lines[0] == "ok       xen      is there")
    #expect(lines[1] == "warning  tap-ctl  is not ours")
    #expect(lines[2] == "                  -> install it")
    #expect(lines[4].hasPrefix("                  -> word") && lines[4].count <= 110)
    #expect(lines[5].hasPrefix("                     word"))
    #expect(lines.suffix(2) == ["", "guests cannot be served: 1 problem, 1 warning"])
    #expect(diagnosis.lines(inColour: true)[1].hasPrefix("\u{1B}[33mwarning\u{1B}[0m  tap-ctl"))
    #expect(Diagnosis([.warning("a", "b", mend: "c"), .warning("a", "b", mend: "c")]).canServe)
    #expect(Check.failure("a", .problem, "x; y; z", orMend: "w").remedy == "y; z")
  }
}
