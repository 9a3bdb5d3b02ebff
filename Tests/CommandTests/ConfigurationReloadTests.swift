import Foundation
import Glibc
import Testing

/// SIGHUP: what changes at once, what waits for the next start, and what changes nothing.
@Suite(.timeLimit(.minutes(10))) struct ConfigurationReloadTests {
  /// A daemon with a configuration file.
  private final class Served {
    let stage: CommandStage
    let socket: NotifySocket
    let daemon: Command.Running
    var file: String { "\(stage.directory)/ringback.toml" }

    init(_ text: String, options: [String] = []) throws {
      stage = try CommandStage()
      socket = try NotifySocket()
      try stage.startMachine(domains: [1, 2])
      try Data(text.utf8).write(to: URL(filePath: "\(stage.directory)/ringback.toml"))
      daemon = try stage.startDaemon(
        ["--config", "\(stage.directory)/ringback.toml"] + options,
        environment: ["NOTIFY_SOCKET": socket.address])
      _ = try socket.wait(for: "STATUS=")
    }

    /// Writes another text, has it read, and gives the notices up to the end of that.
    func reload(_ text: String) throws {
      try Data(text.utf8).write(to: URL(filePath: file), options: .atomic)
      kill(daemon.process.processIdentifier, SIGHUP)
      _ = try socket.wait(for: "RELOADING=1")
      _ = try socket.wait(for: "READY=1")
    }

    func stop() -> String {
      daemon.process.terminate()
      let end = daemon.finish()
      #expect(end.status == 0, "\(end.output)")
      return end.output
    }
  }

  @Test func limitsAndLogLevelChangeUnderServedDisks() throws {
    let served = try Served("[limits]\nbytes = \"100M\"\n")
    #expect(try served.stage.attach().status == 0)
    let other = ["--domain", "2", "--vdev", "xvda", "--limit-requests", "500"] + served.stage.host
    #expect(try Command.run(["attach"] + other + ["ram:16M"]).status == 0)
    func limits(_ domain: Int) throws -> String {
      try Command.run(["limit", "--domain", "\(domain)", "--vdev", "xvda"] + served.stage.host).output
    }
    #expect(try limits(1).contains("100 MiB/s"))
    #expect(try !limits(2).contains("MiB/s"))
    try served.reload("[limits]\nbytes = 8192\nbytes-burst = 4096\n[log]\nlevel = \"debug\"\n")
    #expect(try limits(1).contains("8 KiB/s"))
    #expect(try limits(2).contains("500"), "a disk with limits of its own keeps them")
    // Somebody who lifts a disk's limits means it.
    let lift = ["limit", "--domain", "1", "--vdev", "xvda", "--none"] + served.stage.host
    #expect(try Command.run(lift).status == 0)
    try served.reload("[limits]\nbytes = \"1M\"\n")
    #expect(try !limits(1).contains("MiB/s"))
    let log = served.stop()
    #expect(log.contains("[limits] bytes is 8192 instead of 104857600 now"))
    #expect(log.contains("[log] level is debug instead of info now"))
    #expect(log.contains("[log] level is info instead of debug now"))
  }

  @Test func whatNeedsARestartIsToldByKey() throws {
    let served = try Served("[daemon]\npool = 8\nthreads = 1\n", options: ["--threads", "2"])
    try served.reload("[daemon]\npool = 16\nthreads = 3\nkind = [\"vbd\"]\n[io]\nengine = \"libaio\"\n")
    // Again: it still waits.
    try served.reload("[daemon]\npool = 16\n")
    let log = served.stop()
    let restart = "that takes a restart of the daemon"
    #expect(
      log.components(separatedBy: "[daemon] pool is to be 16 instead of 8: \(restart)").count == 3, "\(log)")
    #expect(log.contains("[daemon] kind is to be vbd instead of vbd3: \(restart)"))
    #expect(log.contains("[io] engine is to be libaio instead of automatic: \(restart)"))
    #expect(!log.contains("[daemon] threads"), "the command line wins, so nothing changes")
  }

  @Test func aBrokenFileChangesNothing() throws {
    let served = try Served("[limits]\nbytes = 8192\n")
    #expect(try served.stage.attach().status == 0)
    for text in ["[limits]\nbytes = 1\nbites = 2\n", "[limits]\nbytes = {\n", "[limits]\nbytes = [}\n", "\0"]
    {
      try served.reload(text)
    }
    try FileManager.default.removeItem(atPath: served.file)
    kill(served.daemon.process.processIdentifier, SIGHUP)
    _ = try served.socket.wait(for: "READY=1")
    let limits = try Command.run(["limit", "--domain", "1", "--vdev", "xvda"] + served.stage.host)
    #expect(limits.output.contains("8 KiB/s"))
    let file = served.file
    let log = served.stop()
    for words in [
      "\(file):2: [limits] bytes is 0, or 4096 to 2^50",
      "\(file):3: [limits] has no key bites; did you mean bytes?",
      "\(file):2:10: this is no TOML", "\(file):2: this is no TOML",
      "\(file):1: this is no TOML: a zero byte",
      "there is no file \(file)",
    ] {
      #expect(log.contains(words), "\(words): \(log)")
    }
    #expect(log.components(separatedBy: "the configuration in force stays as it is").count == 6)
  }

  @Test func metricsMove() throws {
    let served = try Served("[metrics]\nfile = \"/nonexistent/ringback.prom\"\n")
    let (file, place) = ("\(served.stage.directory)/ringback.prom", "\(served.stage.directory)/metrics")
    try served.reload("[metrics]\nfile = \"\(file)\"\ninterval = 1\nlisten = \"unix:\(place)\"\n")
    _ = try served.daemon.wait(for: "configuration read again")
    #expect(try Command.run(["list"] + served.stage.host).status == 0)
    #expect(try String(contentsOfFile: file, encoding: .utf8).hasSuffix("# EOF\n"))
    #expect(FileManager.default.fileExists(atPath: place))
    // A place that cannot be had leaves the old one, and everything else changes.
    try served.reload("[metrics]\nlisten = \"unix:/nonexistent/metrics\"\n")
    #expect(FileManager.default.fileExists(atPath: place) && !FileManager.default.fileExists(atPath: file))
    try served.reload("")
    #expect(!FileManager.default.fileExists(atPath: place))
    let log = served.stop()
    #expect(log.contains("the metrics cannot be told") && log.contains("unix:\(place) stays"), "\(log)")
  }

  /// A guest is served on through a change of how threads look for work, and the next disk has the new offer.
  @Test func pollingAndTheOfferChange() throws {
    let served = try Served("[io]\npoll = 200\n[offer]\nqueues = 1\n", options: ["--threads", "2"])
    #expect(try served.stage.attach().status == 0)
    let guest = try Command.Running(
      ["guest", "--own-domain", "1", "--vdev", "xvda", "--load", "randrw", "--check", "--duration", "2000"]
        + served.stage.host)
    _ = try served.daemon.wait(for: "-> Connected")
    for text in [
      "[io]\npoll = 0\n", "[io]\npoll = 1000\n", "[offer]\nqueues = 2\npersistent-grants = false\n",
    ] {
      try served.reload(text)
    }
    let outcome = guest.finish()
    #expect(outcome.status == 0, "\(outcome.output)")
    #expect(outcome.output.contains(" 0 errors") && outcome.output.contains(" 0 wrong"), "\(outcome.output)")
    #expect(try served.stage.attach(domain: 2, image: "ram:16M").status == 0)
    let second = try Command.run(
      [
        "guest", "--own-domain", "2", "--vdev", "xvda", "--queues", "2", "--load", "randread", "--duration",
        "100",
      ]
        + served.stage.host)
    #expect(second.status == 0 && second.output.contains("2 rings"), "\(second.output)\(second.errors)")
    #expect(second.output.contains("pages are copied"))
    _ = served.stop()
  }

  /// Without a file there is nothing to read, and nothing happens.
  @Test func withoutAFileNothingChanges() throws {
    let socket = try NotifySocket()
    let stage = try CommandStage()
    try stage.startMachine()
    let daemon = try stage.startDaemon([], environment: ["NOTIFY_SOCKET": socket.address])
    _ = try socket.wait(for: "READY=1")
    kill(daemon.process.processIdentifier, SIGHUP)
    _ = try socket.wait(for: "READY=1")
    daemon.process.terminate()
    #expect(daemon.finish().output.contains("configuration read again; nothing has changed"))
  }
}
