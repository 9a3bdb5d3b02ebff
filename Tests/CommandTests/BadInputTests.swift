import Foundation
import Testing

/// Every bad input gets an error that says what, where and what to do, a status of its own, and no trap.
@Suite struct BadInputTests {
  /// What a person may type wrong: arguments, exit status (64: the command line itself), words of the
  /// complaint.
  static let commandLines: [(arguments: [String], status: Int32, words: [String])] = [
    (["attach", "-d", "1", "-v", "foo", "/tmp/x"], 64, ["foo", "xvda"]),
    (["attach", "-d", "70000", "-v", "xvda", "/tmp/x"], 64, ["70000"]),
    (["attach", "-d", "32753", "-v", "xvda", "/tmp/x"], 64, ["--domain", "32751"]),
    (["attach", "-d", "1", "-v", "xvda", "--mode", "x", "/tmp/x"], 64, ["mode"]),
    (["attach", "-d", "1", "-v", "xvda", "--timeout", "0", "/tmp/x"], 64, ["--timeout"]),
    (["serve", "--kind", "a/b"], 64, ["a/b", "vbd3"]),
    (["serve", "--threads", "0"], 64, ["--threads"]),
    (["serve", "--pool", "1"], 64, ["--pool"]),
    (["serve", "--log-level", "loud"], 64, ["log-level"]),
    (["serve", "--queues", "9"], 64, ["--queues", "8"]),
    (["serve", "--ring-order", "5"], 64, ["--ring-order"]),
    (["serve", "--indirect-segments", "11"], 64, ["--indirect-segments", "--no-indirect"]),
    (["serve", "--persistent-pages", "1"], 64, ["--persistent-pages", "--no-persistent-grants"]),
    (["serve", "--poll", "10001"], 64, ["--poll", "10000"]),
    (
      ["attach", "-d", "1", "-v", "xvda", "--no-discard", "--discard-mode", "unmap", "/tmp/x"], 64,
      ["--no-discard"]
    ),
    (
      ["attach", "-d", "1", "-v", "xvda", "--discard-mode", "trim", "/tmp/x"], 64, ["discard-mode", "zeroes"]
    ),
    (["serve", "--io-engine", "posix"], 64, ["io-engine", "libaio"]),
    (["serve", "--metrics-listen", "0.0.0.0:9400"], 64, ["--metrics-listen", "127.0.0.1:PORT"]),
    (["serve", "--metrics-file", "/tmp/"], 64, ["--metrics-file"]),
    (["serve", "--metrics-interval", "0"], 64, ["--metrics-interval"]),
    (["serve", "--shared-statistics", "shm"], 64, ["--shared-statistics"]),
    (["attach", "-d", "1", "-v", "xvda"], 64, ["--cdrom", "--removable"]),
    (["attach", "-d", "1", "-v", "xvda", "--cdrom", "--mode", "w", "/tmp/x"], 64, ["CD-ROM"]),
    (["attach", "-d", "1", "-v", "xvda", "--sector-size", "513", "/tmp/x"], 64, ["--sector-size"]),
    (["attach", "-d", "1", "-v", "xvda", "--limit-bytes", "1", "/tmp/x"], 64, ["4096"]),
    (["attach", "-d", "1", "-v", "xvda", "qcow3:/tmp/x"], 1, ["qcow2", "prefixes"]),
    (["attach", "-d", "1", "-v", "xvda", "null:5"], 1, ["null:5"]),
    (["top", "--interval", "0"], 64, ["--interval"]),
    (["top", "--control-socket", "/nonexistent/control"], 1, ["/nonexistent/control", "ringback serve"]),
    (["stats", "--control-socket", "/nonexistent/control"], 1, ["/nonexistent/control", "ringback serve"]),
    (["pause", "-d", "1"], 64, ["--vdev"]),
    (["resume", "-d", "1", "-v", "xvda", "--image", "/nonexistent/image"], 1, ["/nonexistent/image"]),
    (["limit", "-d", "1", "-v", "xvda", "--requests", "x"], 64, ["requests"]),
    (["insert", "-d", "1", "-v", "xvda"], 64, ["image"]),
    (["guest", "-v", "xvda", "--block-size", "100"], 64, ["--block-size"]),
    (["guest", "-v", "xvda", "--ring-order", "9"], 64, ["--ring-order"]),
    (["loopback", "--domain", "0"], 64, ["--domain"]),
    (
      ["serve", "--hypervisor", "loopback", "--loopback-directory", "/nonexistent"], 1,
      ["/nonexistent", "ringback loopback"]
    ),
    (["list", "--hypervisor", "loopback", "--loopback-directory", "/nonexistent"], 1, ["/nonexistent"]),
  ]

  @Test(arguments: commandLines.indices)
  func commandLineIsRefusedInWords(index: Int) throws {
    let line = Self.commandLines[index]
    let outcome = try Command.run(line.arguments)
    #expect(outcome.status == line.status, "\(line.arguments): \(outcome.errors)")
    for word in line.words { #expect(outcome.errors.contains(word), "\(line.arguments): \(outcome.errors)") }
  }

  @Test(.enabled(if: !FileManager.default.fileExists(atPath: "/dev/xen"), "this machine is a Xen domain"))
  func withoutXenItSaysSo() throws {
    let outcome = try Command.run(["serve"])
    #expect(outcome.status == 1)
    #expect(outcome.errors.contains("/dev/xen") && outcome.errors.contains("--hypervisor loopback"))
  }

  @Test func withoutXenstoredItSaysSo() throws {
    let outcome = try Command.run(
      ["list", "--hypervisor", "xen"], environment: ["XENSTORED_PATH": "/nonexistent/xenstored"])
    #expect(outcome.status == 1)
    #expect(
      outcome.errors.contains("/nonexistent/xenstored") && outcome.errors.contains("is xenstored running?"))
  }

  /// Images that cannot be served: how to make one, and words of the complaint.
  enum BadImage: CaseIterable {
    case missing, empty, oddSize, directory, device
  }

  @Test(arguments: BadImage.allCases)
  func imageIsRefusedInWordsAndTheOthersAreServed(kind: BadImage) throws {
    let stage = try CommandStage()
    try stage.startMachine()
    let daemon = try stage.startDaemon()
    let path = "\(stage.directory)/bad"
    var words = [path]
    switch kind {
    case .missing: words.append("no image")
    case .empty:
      try Data().write(to: URL(filePath: path))
      words.append("empty")
    case .oddSize:
      try Data(count: 1000).write(to: URL(filePath: path))
      words.append("512")
    case .directory:
      try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
      words.append("directory")
    case .device: words = ["/dev/null"]
    }
    let outcome = try stage.attach("xvdb", image: kind == .device ? "/dev/null" : path)
    #expect(outcome.status == 1)
    for word in words { #expect(outcome.errors.contains(word), "\(outcome.errors)") }
    // Nothing is left of it, and the next disk is served.
    #expect(try stage.attach().status == 0)
    let list = try Command.run(["list", "--json"] + stage.host)
    #expect(list.output.contains("\"xvda\"") && !list.output.contains("\"xvdb\""))
    daemon.process.terminate()
    #expect(daemon.finish().status == 0)
  }

  @Test func secondDaemonIsRefused() throws {
    let stage = try CommandStage()
    try stage.startMachine()
    let daemon = try stage.startDaemon()
    let second = try Command.run(["serve"] + stage.host)
    #expect(second.status == 1)
    #expect(second.errors.contains("--control-socket"))
    daemon.process.terminate()
    #expect(daemon.finish().status == 0)
  }

  @Test func attachWithoutDaemonGivesUpAndLeavesNothing() throws {
    let stage = try CommandStage()
    try stage.startMachine()
    let outcome = try Command.run(
      ["attach", "--domain", "1", "--vdev", "xvda", "--timeout", "1"] + stage.host + [stage.image])
    #expect(outcome.status == 1)
    #expect(outcome.errors.contains("ringback serve"))
    #expect(try Command.run(["list"] + stage.host).output.contains("no disks"))
  }

  @Test func unknownDomainAndUnknownDiskAreRefused() throws {
    let stage = try CommandStage()
    try stage.startMachine()
    let daemon = try stage.startDaemon()
    #expect(try stage.attach(domain: 9).errors.contains("no domain 9"))
    let detached = try Command.run(["detach", "--domain", "1", "--vdev", "xvdz"] + stage.host)
    #expect(detached.status == 1 && detached.errors.contains("not attached"))
    daemon.process.terminate()
    #expect(daemon.finish().status == 0)
  }
}
