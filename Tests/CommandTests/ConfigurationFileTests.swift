import Blkback
import Foundation
import Testing

@testable import ringback

/// What a configuration file may say, and what it is told when it says something else.
@Suite struct ConfigurationFileTests {
  private static let path = "/etc/ringback.toml"

  private static func file(_ text: String) throws -> (file: ConfigurationFile, remove: () -> Void) {
    let path = FileManager.default.temporaryDirectory.path + "/ringback-\(UUID().uuidString).toml"
    try Data(text.utf8).write(to: URL(filePath: path))
    return (
      ConfigurationFile(path: path, executable: Command.executable.path),
      { try? FileManager.default.removeItem(atPath: path) }
    )
  }

  static func settings(_ text: String) throws -> DaemonSettings? {
    let (file, remove) = try file(text)
    defer { remove() }
    return try file.settings()
  }

  /// The complaints, with the file's path as it would be in its usual place.
  static func complaints(_ text: String) throws -> [String] {
    let (file, remove) = try file(text)
    defer { remove() }
    do throws(ConfigurationFailure) {
      _ = try file.settings()
      return []
    } catch {
      return error.complaints.map { $0.replacing(file.path, with: path) }
    }
  }

  /// Wrong texts, and what is said of each.
  static let wrong: [(text: String, complaints: [String])] = [
    ("[daemon]\nthread = 4\n", ["2: [daemon] has no key thread; did you mean threads?"]),
    (
      "[daemon]\n\n# so\npool = \"32\"\n",
      ["4: [daemon] pool is a whole number from 4 to 4096, not \"32\""]
    ),
    ("[daemon]\npool = 3\n", ["2: [daemon] pool is a whole number from 4 to 4096, not 3"]),
    (
      "[daemon]\npool = 32.0\n",
      ["2: [daemon] pool is a whole number from 4 to 4096, not a number with a point"]
    ),
    ("[daemon]\nthreads = 65\n", ["2: [daemon] threads is a whole number from 1 to 64, not 65"]),
    (
      "[daemon]\nkind = \"vbd3\"\n",
      [
        "2: [daemon] kind is a list of one kind or more, each of 1 to 32 letters, digits, - or _, such as "
          + "[\"vbd3\"], not \"vbd3\""
      ]
    ),
    (
      "[daemon]\nkind = [\n  \"vbd3\",\n  \"a/b\",\n]\n",
      [
        "2: [daemon] kind is a list of one kind or more, each of 1 to 32 letters, digits, - or _, such as "
          + "[\"vbd3\"], not [\"vbd3\", \"a/b\"]"
      ]
    ),
    (
      "[daemon]\ncontrol-socket = \"control\"\n",
      ["2: [daemon] control-socket is an absolute path of at most 107 bytes, not \"control\""]
    ),
    (
      "[daemon]\nshared-statistics = \"shm\"\n",
      ["2: [daemon] shared-statistics is an absolute path, or - for none, not \"shm\""]
    ),
    (
      "[offer]\nindirect-segments = 11\nindirect = \"yes\"\n",
      [
        "2: [offer] indirect-segments is a whole number from 12 to 256, not 11; see indirect = false for none",
        "3: [offer] indirect is true or false, not \"yes\"",
      ]
    ),
    ("[offer]\nflush = 1\n", ["2: [offer] flush is true or false, not 1"]),
    ("offer = 1\n", ["1: offer is a section: write [offer] on a line of its own"]),
    ("[[offer]]\nqueues = 2\n", ["1: offer is a section: write [offer] on a line of its own"]),
    ("offer.queues = 9\n", ["1: [offer] queues is a whole number from 1 to 8, not 9"]),
    ("offer = { queues = 9 }\n", ["1: [offer] queues is a whole number from 1 to 8, not 9"]),
    (
      "[offers]\nqueues = 2\n",
      [
        "1: there is no section [offers]; did you mean [offer]? the sections are [daemon], [offer], [limits], [io], "
          + "[metrics], [log]"
      ]
    ),
    ("[offer.more]\nqueues = 2\n", ["1: [offer] has no key more; \(keys(of: .offer))"]),
    ("queues = 2\n", ["1: queues stands above all sections: write queues below [offer]"]),
    ("metrics-file = \"/x\"\n", ["1: metrics-file stands above all sections: write file below [metrics]"]),
    ("[daemon]\nqueues = 2\n", ["2: [daemon] has no key queues; [offer] queues is what you may mean"]),
    (
      "[limits]\nbytes = 4095\nrequests = -1\nbytes-burst = \"lots\"\n",
      [
        "2: [limits] bytes is 0, or 4096 to 2^50 bytes, such as 104857600 or \"100M\", not 4095",
        "3: [limits] requests is 0, or 1 to 1000000000, not -1",
        "4: [limits] bytes-burst is a number of bytes, such as 104857600 or \"100M\", not \"lots\"",
      ]
    ),
    ("[io]\nio-engine = \"libaio\"\n", ["2: [io] has no key io-engine; [io] engine is what you may mean"]),
    (
      "[io]\nengine = \"aio\"\n",
      ["2: [io] engine is one of \"automatic\", \"io_uring\", \"libaio\", not \"aio\""]
    ),
    ("[io]\npoll = 10001\n", ["2: [io] poll is a whole number from 0 to 10000, not 10001"]),
    ("[io]\npoll = 1979-05-27\n", ["2: [io] poll is a whole number from 0 to 10000, not a date or time"]),
    (
      "[metrics]\nlisten = \"0.0.0.0:9400\"\n",
      [
        "2: [metrics] listen is unix:/PATH (absolute, at most 107 bytes) or 127.0.0.1:PORT, not \"0.0.0.0:9400\""
      ]
    ),
    (
      "[log]\nlevel = \"loud\"\n",
      [
        "2: [log] level is one of \"trace\", \"debug\", \"info\", \"notice\", \"warning\", \"error\", "
          + "\"critical\", not \"loud\""
      ]
    ),
    (
      "[log]\nlevel = = 3\n",
      ["2:9: this is no TOML: Error while parsing value: could not determine value type"]
    ),
    (
      "[log]\n[log]\n",
      ["2:1: this is no TOML: Error while parsing table header: cannot redefine existing table 'log'"]
    ),
    (
      "[log]\nlevel = \"\u{1}\"\n",
      [
        "2:10: this is no TOML: Error while parsing string: unescaped control characters other than TAB (U+0009) are explicitly prohibited"
      ]
    ),
    ("# so\n[log]\nlevel = \0\n", ["3: this is no TOML: a zero byte"]),
    // The parser ends its process on these.
    ("[daemon]\nkind = [}\n", ["2: this is no TOML, or none that can be understood"]),
    ("[log]\n\n[[[log]]]\n", ["3: this is no TOML, or none that can be understood"]),
    ("[io]\npoll = 1979-05-27 4\n", ["2: this is no TOML, or none that can be understood"]),
  ]

  private static func keys(of section: Setting.Section) -> String {
    "its keys are " + Setting.all.filter { $0.section == section }.map(\.key).joined(separator: ", ")
  }

  @Test(arguments: wrong.indices)
  func isRefusedInWords(index: Int) throws {
    let (text, complaints) = Self.wrong[index]
    #expect(try Self.complaints(text) == complaints.map { "\(Self.path):\($0)" }, "\(text)")
  }

  @Test func bytesThatAreNotUTF8AreRefused() throws {
    let (file, remove) = try Self.file("")
    defer { remove() }
    try Data([0x23, 0x0A, 0x23, 0xFF]).write(to: URL(filePath: file.path))
    #expect(
      throws: ConfigurationFailure(complaints: ["\(file.path):2: this is no TOML: bytes that are not UTF-8"])
    ) {
      try file.settings()
    }
  }

  @Test func whatIsNoPlainFileIsRefused() throws {
    for (path, complaint) in [
      ("/tmp", "/tmp is no plain file"), ("/dev/zero", "/dev/zero is no plain file"),
    ] {
      #expect(throws: ConfigurationFailure(complaints: [complaint])) {
        try ConfigurationFile(path: path, executable: Command.executable.path).settings()
      }
    }
    let (file, remove) = try Self.file(String(repeating: "#", count: ConfigurationFile.byteLimit + 1))
    defer { remove() }
    #expect(throws: ConfigurationFailure.self) { try file.settings() }
    #expect(try ConfigurationFile(path: "/nonexistent/ringback.toml").settings() == nil)
  }

  @Test func aParserThatDoesNotAnswerIsNoConfiguration() throws {
    let (file, remove) = try Self.file("")
    defer { remove() }
    for program in ["/bin/true", "/nonexistent/program"] {
      #expect(throws: ConfigurationFailure.self) {
        try ConfigurationFile(path: file.path, executable: program).settings()
      }
    }
  }

  @Test func aFileSetsWhatItNames() throws {
    var expected = DaemonSettings()
    expected.kinds = ["vbd3", "vbd"]
    expected.pool = 64
    expected.indirect = false
    expected.ioEngine = .aio
    expected.metricsListen = "127.0.0.1:9400"
    expected.logLevel = .debug
    let text = """
      daemon.pool = 0x40
      [log]
      level = 'debug'
      [io]
      engine = "libaio" # so
      [metrics]
      listen = "127.0.0.1:9400"
      [offer]
      indirect = false
      """
    #expect(try Self.settings("daemon.kind = [\"vbd3\",\n \"vbd\"]\n" + text) == expected)
    #expect(try Self.settings("") == DaemonSettings())
  }

  @Test func limitsThatDoNotGoTogetherAreRefused() throws {
    let (file, remove) = try Self.file("[limits]\nbytes-burst = \"1M\"\n")
    defer { remove() }
    let outcome = try Command.run(["serve", "--check", "--config", file.path])
    #expect(outcome.status == 78)
    #expect(
      outcome.errors
        == "Error: \(file.path): [limits]: a burst of 1048576 bytes means nothing without a limit of bytes a "
        + "second: set both\n")
    let mended = try Command.run(["serve", "--check", "--config", file.path, "--limit-bytes", "100M"])
    #expect(mended.status == 0)
    #expect(try file.settings()?.limitBytesBurst == 1 << 20)
  }

  @Test func theCommandLineWinsOverTheFileOverTheDefaults() throws {
    let (file, remove) = try Self.file(
      "[daemon]\nkind = [\"vbd\"]\npool = 64\n[offer]\nflush = false\nbarrier = false\n")
    defer { remove() }
    var commandLine = DaemonSettings()
    commandLine.pool = 8
    commandLine.flush = true
    let settings = commandLine.over(try #require(try file.settings())).over(.defaults)
    #expect(settings.kinds == ["vbd"] && settings.pool == 8 && settings.ringOrder == 4)
    #expect(settings.offer.flush && !settings.offer.barrier && settings.offer.discard)
  }
}
