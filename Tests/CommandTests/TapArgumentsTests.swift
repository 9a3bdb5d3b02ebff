import Foundation
import Testing

@testable import ringback

/// tap-ctl's command line and what it prints, without a daemon.
@Suite struct TapArgumentsTests {
  private func options(_ words: String..., pattern: String = "a:RDm:p:h") throws -> [String] {
    try TapArguments(words, pattern: pattern).options.map { "\($0.letter)\($0.value)" }
  }

  @Test func optionsAreReadAsGetoptDoes() throws {
    #expect(try options("-p", "5", "-m", "0") == ["p5", "m0"])
    #expect(try options("-p5", "-RDm0") == ["p5", "R", "D", "m0"])
    #expect(try options("word", "-R", "another", "-", "-D") == ["R", "D"])
    #expect(try options("-R", "--", "-D") == ["R"])
    #expect(try options("-a", "-R") == ["a-R"])
    #expect(try options("-a", "") == ["a"])
    #expect(try options("-m", "1", "-m", "2") == ["m1", "m2"])
    #expect(try TapArguments(["-m", "1", "-m", "2"], pattern: "m:")["m"] == "2")
    #expect(throws: TapUsageError("option -p needs a value")) { try options("-p") }
    #expect(throws: TapUsageError("unknown option -x")) { try options("-Rx") }
    #expect(throws: TapUsageError("unknown option -:")) { try options("-:") }
    #expect(throws: TapUsageError("unknown option --")) { try options("--minor", "1") }
  }

  private func run(_ words: String...) -> TapCommand.Outcome {
    TapCommand(environment: ["RINGBACK_CONTROL_SOCKET": "/nowhere/control"], isTerminal: false).run(words)
  }

  @Test func mistakesEndWithTheUsageAndEINVAL() {
    for verb in TapQuestion.Verb.allCases {
      let name = verb.rawValue
      #expect(run(name, "-h").output == "\(verb.usage)\n")
      #expect(run(name, "-h").status == 0)
      #expect(verb.usage.hasPrefix("usage: \(name)"))
      let unknown = run(name, "-z")
      #expect(unknown.status == EINVAL && unknown.output.isEmpty)
      #expect(unknown.errors.contains(verb.usage) && unknown.errors.contains("-z"))
      for missing in verb.needed {
        var words = [name]
        for letter in verb.needed where letter != missing {
          words += ["-\(letter)", letter == "a" ? "aio:/x" : "1"]
        }
        let outcome = TapCommand(environment: [:], isTerminal: false).run(words)
        #expect(outcome.status == EINVAL && outcome.errors.contains("-\(missing) is missing"), "\(words)")
      }
      for letter: Character in ["m", "p"] where verb.needed.contains(letter) {
        for value in ["", "x", "-1", "1.5", "99999999999999999999", "0x1", " 1", "１"] {
          var words = [name]
          for needed in verb.needed {
            words += ["-\(needed)", needed == letter ? value : needed == "a" ? "aio:/x" : "1"]
          }
          let outcome = TapCommand(environment: [:], isTerminal: false).run(words)
          #expect(
            outcome.status == EINVAL && outcome.errors.contains("-\(letter) is"), "\(words): \(outcome)")
        }
      }
    }
    #expect(run().output == TapCommand.help)
    #expect(run("--help").output == TapCommand.help)
    for words in [["bogus"], [""], ["--control-socket"], ["LIST"], [String(repeating: "x", count: 5000)]] {
      let outcome = TapCommand(environment: [:], isTerminal: false).run(words)
      #expect(
        outcome.status == EINVAL && outcome.errors.contains(TapCommand.help)
          && outcome.errors.utf8.count < 1000)
    }
  }

  @Test func whatCannotBeDoneIsRefusedAndNotForgotten() {
    for words in [
      ["-2", "aio:/y"], ["-s"], ["-C", "/log"], ["-E"], ["-R", "-2", "x", "-s"],
    ] {
      for verb in [["open", "-p", "1", "-m", "0"], ["create"]] {
        let outcome = TapCommand(environment: [:], isTerminal: false).run(verb + ["-a", "aio:/x"] + words)
        #expect(outcome.status == EOPNOTSUPP, "\(words): \(outcome)")
      }
    }
    #expect(run("unpause", "-p", "1", "-m", "0", "-c", "/log").status == EOPNOTSUPP)
    #expect(run("unpause", "-p", "1", "-m", "0", "-2", "aio:/x").status == EOPNOTSUPP)
    #expect(run("open", "-p", "1", "-m", "0", "-a", "aio:/x", "-e", "x").status == EINVAL)
    #expect(run("pause", "-p", "1", "-m", "0", "-t", "soon").status == EINVAL)
  }

  @Test func withoutADaemonTheConnectionsErrorIsTold() throws {
    let outcome = run("list")
    #expect(outcome.status == ENOENT && outcome.errors.contains("ringback serve"), "\(outcome)")
    #expect(outcome.errors.contains("/nowhere/control"))
    let directory =
      FileManager.default.temporaryDirectory.path + "/ringback-dead-\(UUID().uuidString.prefix(8))"
    defer { try? FileManager.default.removeItem(atPath: directory) }
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: false)
    #expect(FileManager.default.createFile(atPath: "\(directory)/file", contents: nil))
    let refused = TapCommand(environment: [:], isTerminal: false).run([
      "--control-socket", "\(directory)/file", "allocate",
    ])
    #expect(refused.status == ECONNREFUSED, "\(refused)")
  }

  private var taps: [Tap] {
    var open = Tap(minor: 2, process: 40)
    open.image = TapImage(name: "aio:/srv/a disk:1.img")
    var paused = Tap(minor: 3, process: 50)
    paused.image = TapImage(name: "vhd:/srv/b.vhd", isPaused: true)
    var closed = Tap(minor: 4, process: 50)
    closed.wasClosed = true
    return [Tap(minor: 1), open, paused, closed]
  }

  @Test func theListIsTheOriginals() {
    let all = TapListing().lines(of: taps, daemon: 50, isTerminal: false)
    #expect(
      all == [
        "pid=50 minor=2 state=0 args=aio:/srv/a disk:1.img", "pid=50 minor=3 state=0x2a args=vhd:/srv/b.vhd",
        "pid=50 minor=4 state=0x2", "minor=1",
      ])
    let rows = TapListing().lines(of: taps, daemon: 50, isTerminal: true)
    #expect(
      rows == [
        "      50    2    0        aio /srv/a disk:1.img", "      50    3 0x2a        vhd /srv/b.vhd",
        "      50    4  0x2          - -", "       -    1    -          - -",
      ])
  }

  @Test(arguments: [
    (TapListing(minor: 3), [3]), (TapListing(minor: 9), []), (TapListing(process: 50), [2, 3, 4]),
    (TapListing(process: 40), [2]), (TapListing(process: 1), []), (TapListing(type: "aio"), [2]),
    (TapListing(type: "vhd", file: "/srv/b.vhd"), [3]), (TapListing(file: "/srv/a disk:1.img"), [2]),
    (TapListing(type: "vhd", file: "/srv/a disk:1.img"), []), (TapListing(type: "ai"), []),
    (TapListing(file: ""), []),
  ])
  func theListIsOfWhatWasAskedFor(listing: TapListing, minors: [Int]) {
    let lines = listing.lines(of: taps, daemon: 50, isTerminal: false)
    #expect(lines.map { $0.contains("minor=") } == minors.map { _ in true })
    for (line, minor) in zip(lines, minors) { #expect(line.contains("minor=\(minor)"), "\(line)") }
  }
}
