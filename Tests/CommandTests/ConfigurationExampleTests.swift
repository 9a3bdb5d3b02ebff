import ArgumentParser
import Foundation
import Testing

@testable import ringback

/// The options, the file's keys and the example file say the same.
@Suite struct ConfigurationExampleTests {
  private static let example = URL(filePath: #filePath).deletingLastPathComponent()
    .deletingLastPathComponent().deletingLastPathComponent().appending(path: "packaging/ringback.toml")

  @Test func theExampleSetsNothing() throws {
    let text = try String(contentsOf: Self.example, encoding: .utf8)
    #expect(try ConfigurationFileTests.settings(text) == DaemonSettings())
  }

  /// With every key uncommented it says the defaults; keys whose default is no value say something allowed.
  @Test func theExampleTellsEveryKeyWithItsDefault() throws {
    let text = try String(contentsOf: Self.example, encoding: .utf8)
    let set = text.replacing(/(?m)^#(?=[a-z-]+ = )/, with: "")
    let settings = try #require(try ConfigurationFileTests.settings(set))
    for setting in Setting.all {
      #expect(set.contains("\n\(setting.key) = "), "\(setting.place) is not in the example")
      var only = DaemonSettings()
      setting.carry(settings, &only)
      #expect(only != DaemonSettings(), "\(setting.place) is not in its section")
      var usual = DaemonSettings()
      setting.carry(.defaults, &usual)
      if usual != DaemonSettings() {
        #expect(setting.isSame(settings, .defaults), "\(setting.place) = \(setting.shown(settings))")
      }
    }
    let named = set.matches(of: /(?m)^[a-z-]+ =/).count
    #expect(named == Setting.all.count)
  }

  /// A key that needs a restart says so in the lines above it.
  @Test func theExampleTellsWhatNeedsARestart() throws {
    let text = try String(contentsOf: Self.example, encoding: .utf8)
    for setting in Setting.all {
      let start = try #require(text.range(of: "\n[\(setting.section.rawValue)]\n")?.upperBound)
      let key = try #require(text[start...].range(of: "\n#\(setting.key) = ")?.lowerBound)
      let comment = text[start..<key].components(separatedBy: "\n\n").last ?? ""
      #expect(comment.contains("(restart)") == !setting.isLive, "\(setting.place): \(comment)")
    }
  }

  /// Options that are about this run, not about the daemon, have no key.
  static let keyless: Set<String> = [
    "hypervisor", "loopback-directory", "own-domain", "config", "no-config", "check", "version", "help",
  ]

  @Test func everyOptionHasAKeyAndEveryKeyAnOption() throws {
    let help = Serve.helpMessage(columns: 400)
    let options = Set(
      help.matches(of: /(?m)^\s.*?--([a-z-]+)/).map { String($0.output.1) })
    #expect(options.subtracting(Self.keyless) == Set(Setting.all.map(\.option)))
    let words = help.split { $0.isWhitespace }.joined(separator: " ")
    for setting in Setting.all {
      let text = "\(setting.abstract) (default: \(setting.fallback))"
      #expect(words.contains(text), "--\(setting.option): \(text)")
    }
    #expect(Set(Setting.all.map(\.place)).count == Setting.all.count)
  }

  @Test func everyOptionReachesItsSetting() throws {
    let arguments: [(option: [String], setting: Setting)] = [
      (["--kind", "a", "--kind", "b"], .kind), (["--threads", "3"], .threads), (["--pool", "5"], .pool),
      (["--control-socket", "/a"], .controlSocket), (["--control-directory", "/d"], .controlDirectory),
      (["--shared-statistics", "-"], .sharedStatistics),
      (["--queues", "3"], .queues), (["--ring-order", "3"], .ringOrder), (["--no-indirect"], .indirect),
      (["--indirect-segments", "33"], .indirectSegments), (["--no-discard"], .discard),
      (["--no-flush"], .flush), (["--no-barrier"], .barrier),
      (["--no-persistent-grants"], .persistentGrants), (["--persistent-pages", "99"], .persistentPages),
      (["--limit-bytes", "1M"], .limitBytes), (["--limit-bytes-burst", "1M"], .limitBytesBurst),
      (["--limit-requests", "9"], .limitRequests), (["--limit-requests-burst", "9"], .limitRequestsBurst),
      (["--io-engine", "libaio"], .ioEngine), (["--poll", "9"], .poll),
      (["--metrics-file", "/m"], .metricsFile),
      (["--metrics-interval", "9"], .metricsInterval), (["--metrics-listen", "unix:/m"], .metricsListen),
      (["--log-level", "error"], .logLevel),
    ]
    #expect(arguments.map(\.setting.place) == Setting.all.map(\.place))
    for (option, setting) in arguments {
      let serve = try #require(try Serve.parseAsRoot(option) as? Serve)
      var only = DaemonSettings()
      setting.carry(serve.settings, &only)
      #expect(serve.settings == only && only != DaemonSettings(), "\(option)")
      #expect(!setting.isSame(serve.settings, .defaults), "\(option)")
    }
    #expect(try (Serve.parseAsRoot([]) as? Serve)?.settings == DaemonSettings())
  }

  @Test func checkTellsWithoutServing() throws {
    let good = try Command.run(["serve", "--check", "--config", Self.example.path])
    #expect(good.status == 0 && good.output == "\(Self.example.path) is in order\n")
    let missing = try Command.run(["serve", "--check", "--config", "/nonexistent/ringback.toml"])
    #expect(missing.status == 78 && missing.errors == "Error: there is no file /nonexistent/ringback.toml\n")
    let both = try Command.run(["serve", "--config", "/x", "--no-config"])
    #expect(both.status == 64 && both.errors.contains("--no-config"))
  }
}
