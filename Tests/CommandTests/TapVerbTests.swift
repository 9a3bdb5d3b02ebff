import Foundation
import RingKit
import Testing

@testable import ringback

/// tap-ctl against a daemon, without guests.
@Suite struct TapVerbTests {
  @Test(.timeLimit(.minutes(10)))
  func aTapGoesTheWayOfTheScript() throws {
    let stage = try TapStage()
    let image = try stage.image("a.img")
    #expect(try stage.tap("list").isEmpty)
    #expect(try stage.tap("list", "-t", "aio", "-f", image).isEmpty)
    #expect(try stage.tap("allocate") == "/run/blktap-control/tapdisk/tapdisk-0")
    #expect(try stage.tap("list") == "minor=0")
    let process = try stage.tap("spawn")
    #expect(process == stage.process)
    #expect(try stage.tap("attach", "-p", process, "-m", "0").isEmpty)
    #expect(try stage.tap("list") == "pid=\(process) minor=0 state=0")
    #expect(try stage.tap("open", "-p", process, "-m", "0", "-a", "aio:\(image)").isEmpty)
    let line = "pid=\(process) minor=0 state=0 args=aio:\(image)"
    #expect(try stage.tap("list", "-t", "aio", "-f", image) == line)
    #expect(try stage.tap("list", "-m", "0", "-p", process) == line)
    #expect(try stage.tap("info", "-p", process, "-m", "0") == "sectors=32768 sector-size=512 info=0")
    #expect(try stage.tap("allocate", "-d", "unused") == "/run/blktap-control/tapdisk/tapdisk-1")
    try stage.tap("free", "-m", "1")
    // Any process is good: nodes hold that of an earlier daemon.
    try stage.tap("close", "-p", "1", "-m", "0", "-t", "120")
    #expect(try stage.tap("list") == "pid=\(process) minor=0 state=0x2")
    try stage.tap("detach", "-p", process, "-m", "0")
    try stage.tap("free", "-m", "0")
    #expect(try stage.tap("list").isEmpty)
    // The program's other name.
    let other = try Command.run([
      "tap-ctl", "--control-socket", stage.socket, "create", "-a", "aio:\(image)", "-R",
    ])
    #expect(other.status == 0 && other.output == "/run/blktap-control/tapdisk/tapdisk-0\n", "\(other)")
    #expect(try stage.tap("info", "-p", process, "-m", "0") == "sectors=32768 sector-size=512 info=4")
    try stage.tap("destroy", "-p", process, "-m", "0", "-t", "3")
    #expect(try stage.tap("list").isEmpty)
    let text = try String(contentsOfFile: "\(stage.directory)/machine/taps.json", encoding: .utf8)
    #expect(try JSONDecoder().decode(TapTable.self, from: Data(text.utf8)) == TapTable())
  }

  @Test(.timeLimit(.minutes(10)))
  func everyKindOfImageIsOpened() throws {
    let stage = try TapStage()
    let images = [
      "aio:\(try stage.image("a.img"))", "raw:\(try stage.image("b.img"))",
      "vhd:\(try stage.image("c.vhd", format: "vpc"))",
      "qcow2:\(try stage.image("d.qcow2", format: "qcow2"))",
      "ram:16M", "null:16M", "aio:\(try stage.image("with: colons and blanks.img"))",
    ]
    for (minor, image) in images.enumerated() {
      #expect(
        try stage.tap("create", "-a", image, "-D", "-r", "-e", "0", "-t", "60").hasSuffix("tapdisk-\(minor)"))
      let parts = image.split(separator: ":", maxSplits: 1).map(String.init)
      #expect(try stage.tap("list", "-t", parts[0], "-f", parts[1]).hasSuffix(" args=\(image)"))
      #expect(try stage.tap("info", "-p", "1", "-m", "\(minor)").hasPrefix("sectors=32768 "), "\(image)")
    }
    for minor in images.indices { try stage.tap("destroy", "-p", "1", "-m", "\(minor)") }
  }

  @Test(.timeLimit(.minutes(10)))
  func imagesThatCannotBeHadAreRefusedInWords() throws {
    let stage = try TapStage()
    let image = try stage.image("a.img")
    let second = "\(stage.directory)/second.img"
    try FileManager.default.createSymbolicLink(atPath: second, withDestinationPath: image)
    let vhd = try stage.image("c.vhd", format: "vpc")
    func create(_ image: String, _ errno: Int32, _ said: String, location: SourceLocation = #_sourceLocation)
      throws
    {
      try stage.expect(errno, said, from: ["create", "-a", image], location: location)
    }
    try create("aio:\(stage.directory)/no", ENOENT, "does not exist")
    try create("aio:\(stage.directory)", EINVAL, "directory")
    try create("aio:relative", EINVAL, "absolute")
    try create("vhd:\(image)", EINVAL, "vhd:\(image)")
    try create("foo:\(image)", ENOENT, "\"foo\"")
    try create(image, EINVAL, "TYPE:FILE")
    try create(":\(image)", ENOENT, "\"\"")
    try create("", EINVAL, "aio:/PATH")
    try create("aio:", EINVAL, "absolute")
    try create("aio:/" + String(repeating: "x", count: 5000), ENAMETOOLONG, "4112")
    // Whatever failed has left nothing behind.
    #expect(try stage.tap("list").isEmpty)
    try stage.tap("create", "-a", "aio:\(image)")
    try stage.tap("create", "-a", "vhd:\(vhd)")
    try create("aio:\(image)", EBUSY, "minor 0")
    try create("raw:\(second)", EBUSY, "minor 0")
    try create("aio:\(vhd)", EBUSY, "another writer")
    try stage.expect(EBUSY, "minor 0", from: ["create", "-R", "-a", "aio:\(image)"])
    // Others are kept out by the lock, too.
    let writer = try Command.run(["-f", "raw", "-c", "write 0 512", image], as: "/usr/bin/qemu-io")
    #expect(writer.status != 0 && writer.errors.contains("lock"), "\(writer)")
    try stage.tap("destroy", "-p", "1", "-m", "0")
    for minor in ["0", "2"] {
      #expect(try stage.tap("create", "-R", "-a", "aio:\(image)").hasSuffix("-\(minor)"))
    }
    try create("aio:\(image)", EBUSY, "minor 0")
    #expect(try stage.tap("list", "-t", "aio").split(separator: "\n").count == 2)
  }

  @Test(.timeLimit(.minutes(10)))
  func stepsOutOfTurnEndWithTheOriginalsStatus() throws {
    let stage = try TapStage()
    let image = "aio:\(try stage.image("a.img"))"
    func expect(_ errno: Int32, _ words: String..., location: SourceLocation = #_sourceLocation) throws {
      try stage.expect(errno, "minor 0", from: words, location: location)
    }
    let tap = ["-p", "1", "-m", "0"]
    try expect(ENOENT, "free", "-m", "0")
    try stage.expect(ENOENT, from: ["attach"] + tap)
    for verb in ["detach", "close", "destroy", "pause", "unpause", "stats", "info"] {
      try stage.expect(ENODEV, "minor 0", from: [verb] + tap)
    }
    try stage.expect(EINVAL, "minor 0", from: ["open"] + tap + ["-a", image])
    try stage.tap("allocate")
    try stage.expect(EINVAL, "not attached", from: ["open"] + tap + ["-a", image])
    try stage.expect(ENODEV, "attached", from: ["close"] + tap)
    try stage.tap("attach", "-p", "1", "-m", "0")
    try stage.expect(EEXIST, "already", from: ["attach"] + tap)
    try expect(EAGAIN, "free", "-m", "0")
    try stage.expect(EINVAL, "nothing to pause", from: ["pause"] + tap)
    try stage.expect(ENODEV, "image open", from: ["stats"] + tap)
    try stage.tap("open", "-p", "1", "-m", "0", "-a", image)
    try stage.expect(EALREADY, image, from: ["open"] + tap + ["-a", image])
    try stage.expect(EBUSY, image, from: ["detach"] + tap)
    try stage.expect(EINVAL, "not paused", from: ["unpause"] + tap)
    try stage.tap("close", "-p", "1", "-m", "0", "-f")
    try stage.tap("close", "-p", "1", "-m", "0")
  }

  @Test(.timeLimit(.minutes(10)))
  func aPausedTapLetsGoAndGoesOnWithTheSameSizeOnly() throws {
    let stage = try TapStage()
    let (image, other) = (try stage.image("a.img"), try stage.image("b.vhd", format: "vpc"))
    let large = try stage.image("c.img", size: "32M")
    try stage.tap("create", "-a", "aio:\(image)")
    try stage.tap("pause", "-p", "1", "-m", "0", "-t", "10")
    try stage.tap("pause", "-p", "1", "-m", "0")
    #expect(try stage.tap("list").contains(" state=0x2a args=aio:\(image)"))
    let writer = try Command.run(["-f", "raw", "-c", "write 0 512", image], as: "/usr/bin/qemu-io")
    #expect(writer.status == 0, "\(writer)")
    let tap = ["unpause", "-p", "1", "-m", "0", "-a"]
    try stage.expect(EMEDIUMTYPE, "65536", from: tap + ["aio:\(large)"])
    try stage.expect(ENOENT, "does not exist", from: tap + ["aio:\(image).no"])
    try stage.expect(ENOENT, "\"foo\"", from: tap + ["foo:\(image)"])
    try stage.expect(EINVAL, "vhd", from: tap + ["vhd:\(image)"])
    #expect(try stage.tap("list").contains(" state=0x2a "))
    try stage.tap("unpause", "-p", "1", "-m", "0", "-a", "vhd:\(other)")
    #expect(try stage.tap("list").hasSuffix(" state=0 args=vhd:\(other)"))
    try stage.tap("pause", "-p", "1", "-m", "0")
    try stage.tap("unpause", "-p", "1", "-m", "0")
    #expect(try stage.tap("list").hasSuffix(" state=0 args=vhd:\(other)"))
    try stage.tap("pause", "-p", "1", "-m", "0")
    try stage.tap("destroy", "-p", "1", "-m", "0")
  }

  @Test(.timeLimit(.minutes(10)))
  func anImageThatHasGrownIsAsLargeAsItIsWhenItGoesOn() throws {
    let stage = try TapStage()
    let image = try stage.image("a.img")
    try stage.tap("create", "-a", "aio:\(image)")
    try FileHandle(forWritingTo: URL(filePath: image)).truncate(atOffset: 24 << 20)
    #expect(try stage.tap("info", "-p", "1", "-m", "0") == "sectors=49152 sector-size=512 info=0")
    try stage.tap("pause", "-p", "1", "-m", "0")
    #expect(try stage.tap("info", "-p", "1", "-m", "0") == "sectors=49152 sector-size=512 info=0")
    try stage.tap("unpause", "-p", "1", "-m", "0", "-a", "raw:\(image)")
    #expect(try stage.tap("list").hasSuffix(" args=raw:\(image)"))
  }

  /// O_DIRECT, which fcntl.h hides behind _GNU_SOURCE (asm-generic/fcntl.h).
  private static let direct = 0o40000

  /// The daemon's open flags for an image (proc(5), fdinfo); nil when it has none open.
  private func flags(_ image: String, _ stage: TapStage) throws -> Int? {
    let base = "/proc/\(stage.process)"
    for descriptor in try FileManager.default.contentsOfDirectory(atPath: "\(base)/fd") {
      guard (try? FileManager.default.destinationOfSymbolicLink(atPath: "\(base)/fd/\(descriptor)")) == image
      else {
        continue
      }
      let text = try String(contentsOfFile: "\(base)/fdinfo/\(descriptor)", encoding: .utf8)
      let line = try #require(text.split(separator: "\n").first { $0.hasPrefix("flags:") })
      return Int(line.split(separator: "\t").last ?? "", radix: 8)
    }
    return nil
  }

  @Test(.timeLimit(.minutes(10)))
  func thePageCacheIsUsedWhereItIsAskedFor() throws {
    let stage = try TapStage()
    let image = try stage.image("a.img")
    try stage.tap("create", "-D", "-R", "-a", "aio:\(image)")
    let cached = try #require(try flags(image, stage))
    #expect(cached & Self.direct == 0 && cached & Int(O_ACCMODE) == Int(O_RDONLY))
    // A guest's disk on that tap does the same.
    try stage.addDisk("aio:\(image)", mode: "r")
    try stage.waitForState(.initWait)
    #expect(try #require(try flags(image, stage)) & Self.direct == 0)
    try stage.removeDisk()
    try stage.waitForState(.closed)
    try stage.tap("destroy", "-p", "1", "-m", "0")
    #expect(try flags(image, stage) == nil)
    try stage.tap("create", "-a", "aio:\(image)")
    let direct = try #require(try flags(image, stage))
    #expect(direct & Int(O_ACCMODE) == Int(O_RDWR))
    // File systems in memory have no way past the page cache.
    if direct & Self.direct == 0 { #expect(try stage.daemon.wait(for: "O_DIRECT").contains("tap 0")) }
  }

  @Test(.timeLimit(.minutes(10)), arguments: [false, true])
  func tapsOutliveTheDaemon(killing: Bool) throws {
    let stage = try TapStage()
    let image = try stage.image("a.img")
    try stage.tap("create", "-a", "aio:\(image)")
    try stage.tap("create", "-a", "ram:16M")
    try stage.tap("pause", "-p", "1", "-m", "1")
    try stage.tap("allocate")
    let before = try stage.tap("list")
    let old = stage.process
    try stage.restartDaemon(killing: killing)
    #expect(stage.process != old)
    #expect(try stage.tap("list") == before.replacing("pid=\(old)", with: "pid=\(stage.process)"))
    #expect(try stage.tap("list", "-p", old, "-m", "0").contains("minor=0"))
    // After a while the image is kept from others again.
    let deadline = ContinuousClock.now + .seconds(60)
    var attempt = Command.Outcome(status: 0, output: "", errors: "")
    while attempt.status == 0, ContinuousClock.now < deadline {
      attempt = try Command.run(["-f", "raw", "-c", "write 0 512", image], as: "/usr/bin/qemu-io")
    }
    #expect(attempt.errors.contains("lock"), "\(attempt)")
    try stage.tap("destroy", "-p", old, "-m", "0")
    try stage.tap("unpause", "-p", old, "-m", "1")
    try stage.tap("destroy", "-p", old, "-m", "1")
    try stage.tap("free", "-m", "2")
  }

  @Test(.timeLimit(.minutes(10)))
  func aBrokenFileOfTapsIsToldAndTheDaemonStarts() throws {
    let stage = try TapStage()
    try stage.tap("allocate")
    let path = "\(stage.directory)/machine/taps.json"
    try Data("{ broken".utf8).write(to: URL(filePath: path))
    try stage.restartDaemon(killing: true)
    #expect(try stage.tap("list").isEmpty)
    #expect(try String(contentsOfFile: "\(path).broken", encoding: .utf8) == "{ broken")
    #expect(try stage.tap("allocate").hasSuffix("tapdisk-0"))
  }

  @Test(
    .enabled(if: geteuid() == 0, "only root can become somebody else"), .timeLimit(.minutes(10)))
  func othersMayNotAsk() throws {
    let stage = try TapStage()
    // Whoever it is may come as far as the socket.
    for path in [stage.directory, "\(stage.directory)/machine"] {
      try FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: path)
    }
    let program = "\(stage.directory)/tap-ctl"
    try FileManager.default.copyItem(atPath: Command.executable.path, toPath: program)
    let outcome = try Command.run(
      ["--reuid=65534", "--regid=65534", "--clear-groups", program, "allocate"], as: "/usr/bin/setpriv",
      environment: [TapCommand.socketVariable: stage.socket])
    #expect(outcome.status == EACCES && outcome.errors.contains("root alone may ask"), "\(outcome)")
  }

  @Test(arguments: [
    #"{"do":"tap"}"#, #"{"do":"tap","tap":{}}"#, #"{"do":"tap","tap":{"verb":"x"}}"#,
    #"{"do":"tap","tap":{"verb":"open","minor":"0"}}"#, #"{"do":"tap","tap":{"verb":"free","minor":1.5}}"#,
    "tap",
  ])
  func questionsThatMeanNothingAreRefused(line: String) {
    guard case .failure(let failure) = ControlQuestion.parse(line) else {
      Issue.record("\(line) was understood")
      return
    }
    #expect(!failure.error.isEmpty)
  }

  @Test(.timeLimit(.minutes(10)))
  func whatTheCommandLineDoesNotLetThroughTheDaemonRefusesToo() throws {
    let stage = try TapStage()
    let client = DaemonClient(path: stage.socket)
    for verb in TapQuestion.Verb.allCases where verb != .list && verb != .spawn && verb != .allocate {
      #expect(throws: TapError.self, "\(verb)") { try client.ask(TapQuestion(verb)) }
    }
    for minor in [-1, 16384, .max, .min] {
      var question = TapQuestion(.free)
      question.minor = minor
      #expect(throws: TapError.self) { try client.ask(question) }
    }
    try stage.tap("allocate")
    for process: Int32 in [0, -1, .min] {
      var question = TapQuestion(.attach)
      (question.minor, question.process) = (0, process)
      #expect(throws: TapError.self) { try client.ask(question) }
    }
    try stage.tap("attach", "-p", "1", "-m", "0")
    var question = TapQuestion(.close)
    (question.minor, question.timeoutSeconds) = (0, .max)
    #expect(throws: TapError.self) { try client.ask(question) }
    question.timeoutSeconds = -1
    #expect(throws: TapError.self) { try client.ask(question) }
    #expect(try stage.tap("list").contains("minor=0 state=0"))
  }
}
