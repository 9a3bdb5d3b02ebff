import Foundation
import Loopback
import RingKit
import Testing

@testable import ringback

/// The verbs about a running disk, as a person uses them.
@Suite struct VerbTests {
  private func run(_ stage: CommandStage, _ words: String..., device: String = "xvda") throws
    -> Command.Outcome
  {
    try Command.run([words[0], "-d", "1", "-v", device] + words.dropFirst() + stage.host)
  }

  private func expect(_ outcome: Command.Outcome, status: Int32 = 0, _ words: String...) {
    #expect(outcome.status == status, "\(outcome.output)\(outcome.errors)")
    for word in words {
      #expect(
        (outcome.output + outcome.errors).contains(word), "no \(word) in: \(outcome.output)\(outcome.errors)")
    }
  }

  private func file(_ stage: CommandStage, _ name: String, byteCount: UInt64) throws -> String {
    let path = "\(stage.directory)/\(name)"
    _ = FileManager.default.createFile(atPath: path, contents: nil)
    try FileHandle(forWritingTo: URL(filePath: path)).truncate(atOffset: byteCount)
    return path
  }

  private func stop(_ daemon: Command.Running) {
    daemon.process.terminate()
    #expect(daemon.finish().status == 0)
  }

  @Test(.timeLimit(.minutes(10)))
  func aGuestSeesOnlyTimeOfAPause() throws {
    let stage = try CommandStage()
    try stage.startMachine()
    // On a busy machine the guest may be done before we are; the domain and its disk stay.
    let presence = try LoopbackHypervisor(
      directory: "\(stage.directory)/machine", domain: DomainID(rawValue: 1))
    defer { withExtendedLifetime(presence) {} }
    let daemon = try stage.startDaemon(["--queues", "2"])
    #expect(try stage.attach().status == 0)
    let guest = try Command.Running(
      [
        "guest", "--own-domain", "1", "--vdev", "xvda", "--queues", "2", "--load", "randrw", "--check",
        "--duration", "5000",
      ] + stage.host)
    _ = try daemon.wait(for: "-> Connected")
    expect(try run(stage, "pause"), "paused")
    expect(try run(stage, "pause"), "paused")
    expect(try Command.run(["list"] + stage.host), "Paused")
    let other = try file(stage, "other.img", byteCount: 8 << 20)
    expect(try run(stage, "resume", "--image", other), status: 1, "--allow-resize", other)
    expect(try run(stage, "resume", "--image", "\(stage.directory)/nothing"), status: 1, "no image")
    expect(try run(stage, "resume", "--image", "vdi:/x"), status: 1, "prefixes", "qcow2")
    expect(try run(stage, "eject"), status: 1, "paused")
    // The same bytes under another name.
    let copy = "\(stage.directory)/copy.img"
    try FileManager.default.copyItem(atPath: stage.image, toPath: copy)
    let resumed = try run(stage, "resume", "--image", copy, "--json")
    expect(resumed)
    let reply = try JSONDecoder().decode(DiskReply.self, from: Data(resumed.output.utf8))
    #expect(reply.image == "raw:\(copy)" && !reply.isPaused && reply.byteCount == 16 << 20)
    expect(try run(stage, "resume", "--image", stage.image), status: 1, "not paused")
    let outcome = guest.finish()
    #expect(outcome.status == 0, "\(outcome.output)")
    #expect(outcome.output.contains(" 0 errors") && outcome.output.contains(" 0 wrong"), "\(outcome.output)")
    stop(daemon)
  }

  @Test(.timeLimit(.minutes(10)))
  func aPauseEndsWithTheDiskOrTheDaemon() throws {
    let stage = try CommandStage()
    try stage.startMachine(domains: [1, 2])
    let daemon = try stage.startDaemon()
    #expect(try stage.attach().status == 0)
    let guest = try Command.Running(
      ["guest", "--own-domain", "1", "--vdev", "xvda", "--load", "randrw", "--duration", "60000"] + stage.host
    )
    _ = try daemon.wait(for: "-> Connected")
    expect(try run(stage, "pause"))
    kill(guest.process.processIdentifier, SIGKILL)
    _ = guest.finish()
    _ = try daemon.wait(for: "gone")
    expect(try run(stage, "resume"), status: 1, "not served", "ringback list")
    // Asked and stopped at the same time: whatever comes first, everybody ends.
    #expect(try stage.attach(domain: 2).status == 0)
    let pauses = try (0..<20).map { _ in
      try Command.Running(["pause", "-d", "2", "-v", "xvda"] + stage.host)
    }
    daemon.process.terminate()
    for pause in pauses {
      let outcome = pause.finish()
      #expect(
        outcome.status == 0 || outcome.status == 1 && outcome.output.contains("Error: "), "\(outcome.output)")
    }
    #expect(daemon.finish().status == 0)
    expect(try run(stage, "pause"), status: 1, "ringback serve", "--control-socket")
  }

  @Test(.timeLimit(.minutes(10)))
  func aGrownImageIsToldAndAShrunkOneNeedsAWord() throws {
    let stage = try CommandStage()
    try stage.startMachine()
    let daemon = try stage.startDaemon()
    #expect(try stage.attach().status == 0)
    let handle = try FileHandle(forWritingTo: URL(filePath: stage.image))
    try handle.truncate(atOffset: 24 << 20)
    expect(try run(stage, "resize"), "25165824", "24 MiB")
    try handle.truncate(atOffset: 8 << 20)
    expect(try run(stage, "resize"), status: 1, "--allow-shrink")
    expect(try run(stage, "resize", "--allow-shrink"), "8 MiB")
    expect(try run(stage, "resize", device: "xvdb"), status: 1, "xvdb", "not served")
    stop(daemon)
  }

  @Test(.timeLimit(.minutes(10)))
  func mediaComeAndGo() throws {
    let stage = try CommandStage()
    try stage.startMachine()
    let daemon = try stage.startDaemon()
    let attached = try Command.run(["attach", "-d", "1", "-v", "xvdc", "--cdrom"] + stage.host)
    expect(attached, "empty drive", "read only")
    let medium = try file(stage, "medium.iso", byteCount: 4 << 20)
    expect(try run(stage, "insert", medium, device: "xvdc"), "raw:\(medium)")
    expect(try run(stage, "insert", "\(stage.directory)/no", device: "xvdc"), status: 1, "no image")
    expect(try run(stage, "insert", "raw:\(stage.directory)/no", device: "xvdc"), status: 1, "no")
    expect(try Command.run(["list"] + stage.host), "raw:\(medium)")
    expect(try run(stage, "eject", device: "xvdc"), "empty")
    expect(try run(stage, "eject", device: "xvdc"), "empty")
    #expect(try stage.attach().status == 0)
    expect(try run(stage, "eject"), status: 1, "neither a CD-ROM nor removable")
    stop(daemon)
  }

  @Test(.timeLimit(.minutes(10)))
  func limitsAreSetToldAndLifted() throws {
    let stage = try CommandStage()
    try stage.startMachine()
    let daemon = try stage.startDaemon()
    expect(
      try Command.run(
        ["attach", "-d", "1", "-v", "xvda", "--limit-bytes", "10M", "--sector-size", "4096", "--no-discard"]
          + stage.host + [stage.image]))
    expect(try run(stage, "limit"), "10 MiB/s")
    expect(
      try run(stage, "limit", "--requests", "500", "--requests-burst", "1000"), "500 requests/s (burst 1000)")
    let told = try run(stage, "limit", "--json")
    let reply = try JSONDecoder().decode(DiskReply.self, from: Data(told.output.utf8))
    #expect(reply.limits?.requestsPerSecond == 500 && reply.limits?.bytesPerSecond == 0)
    expect(try run(stage, "limit", "--none"), "none")
    expect(try run(stage, "limit", "--none", "--bytes", "1M"), status: 64, "--none")
    expect(try run(stage, "limit", "--bytes-burst", "1M"), status: 64, "without a limit")
    expect(try run(stage, "limit", "--bytes", "1"), status: 64, "4096")
    stop(daemon)
  }

  /// The same load on the daemon's other ways to work.
  @Test(
    .timeLimit(.minutes(10)),
    arguments: [
      ["--io-engine", "libaio"], ["--poll", "100", "--threads", "1"],
      ["--no-indirect", "--no-discard", "--no-barrier"],
      ["--no-persistent-grants", "--ring-order", "0"], ["--persistent-pages", "64"],
    ])
  func theDaemonWorksAsItIsTold(options: [String]) throws {
    let stage = try CommandStage()
    try stage.startMachine()
    let daemon = try stage.startDaemon(options)
    if options.contains("libaio") { #expect(try daemon.wait(for: "serving").contains("engine=libaio")) }
    expect(
      try Command.run(
        ["attach", "-d", "1", "-v", "xvda", "--discard-mode", "zeroes"] + stage.host + ["memory:16M"]))
    let guest = try Command.run(
      [
        "guest", "--own-domain", "1", "--vdev", "xvda", "--load", "randrw", "--check", "--flush-every", "20",
        "--duration", "500",
      ] + stage.host)
    expect(guest, " 0 errors", " 0 wrong")
    stop(daemon)
  }

  @Test(.timeLimit(.minutes(10)))
  func numbersAreToldInEveryWay() throws {
    let stage = try CommandStage()
    try stage.startMachine()
    let metricsFile = "\(stage.directory)/ringback.prom"
    let metricsSocket = "\(stage.directory)/metrics"
    let daemon = try stage.startDaemon([
      "--shared-statistics", stage.directory, "--metrics-file", metricsFile, "--metrics-interval", "1",
      "--metrics-listen", "unix:\(metricsSocket)", "--queues", "2",
    ])
    #expect(try stage.attach().status == 0)
    expect(try Command.run(["stats"] + stage.host), "not connected")
    let guest = try Command.Running(
      [
        "guest", "--own-domain", "1", "--vdev", "xvda", "--queues", "2", "--load", "randrw", "--flush-every",
        "50",
        "--duration", "60000",
      ] + stage.host)
    _ = try daemon.wait(for: "-> Connected")

    let top = try Command.run(["top", "--once", "--interval", "0.5"] + stage.host)
    expect(top, "1 disks, 1 connected", "READ MB/S", "xvda")
    #expect(!top.output.contains("\u{1B}"))
    expect(try Command.run(["stats", "-d", "1", "--queues"] + stage.host), "queue 1", "read", "P99")
    expect(try Command.run(["stats", "-d", "2"] + stage.host), status: 1, "no such disk")
    let json = try Command.run(["stats", "--json"] + stage.host)
    let disk = try #require(try JSONDecoder().decode([DiskNumbers].self, from: Data(json.output.utf8)).first)
    let reads = try #require(disk.total.requests["read"])
    #expect(disk.queueCount == 2 && disk.queueDepth == 64)
    #expect(
      reads.completed > 0 && reads.bytes == reads.completed * 4096 && reads.latency.count == reads.completed)
    #expect(reads.latency.median > 0 && reads.latency.median <= reads.latency.p99)

    // What came later counts no less.
    let scrape = try MetricsScrape(socket: metricsSocket)
    let read = ["disk": "xvda", "domain": "1", "request": "read"]
    let okay = read.merging(["result": "okay"]) { $1 }
    #expect(scrape.value("ringback_disk_requests_total", okay) ?? 0 >= Double(reads.completed))
    #expect(
      scrape.value("ringback_disk_request_duration_seconds_count", read) ?? 0 >= Double(reads.completed))
    #expect(scrape.value("ringback_disk_connected") == 1)

    let shared = "\(stage.directory)/td3-\(daemon.process.processIdentifier)/vbd-1-51712"
    var words: [UInt64] = []
    try until {
      words = try SharedStatisticsTests.words(shared)
      return words[3] >= reads.completed && words[7] > 0
    }
    #expect(
      words[0] == 1 && words[2] >= words[3] && words[2] <= words[3] + 64 && words[4] >= words[3] * 8
        && words[10] == 0)
    let host = try LoopbackHypervisor(directory: "\(stage.directory)/machine", domain: DomainID(rawValue: 0))
      .openStore()
    #expect(
      try host.read("/local/domain/0/backend/vbd3/1/51712/kthread-pid")
        == "\(daemon.process.processIdentifier)")
    try until {
      let text = (try? String(contentsOfFile: metricsFile, encoding: .utf8)) ?? ""
      guard !text.isEmpty else { return false }
      return try MetricsScrape(text).value("ringback_disk_requests_total", okay) ?? 0 > 0
    }

    kill(guest.process.processIdentifier, SIGKILL)
    _ = guest.finish()
    _ = try daemon.wait(for: "gone")
    #expect(!FileManager.default.fileExists(atPath: shared))
    stop(daemon)
    #expect(!FileManager.default.fileExists(atPath: metricsFile))
    #expect(!FileManager.default.fileExists(atPath: metricsSocket))
    #expect(
      try FileManager.default.contentsOfDirectory(atPath: stage.directory).allSatisfy {
        !$0.hasPrefix("td3-")
      })
  }

  /// Asks again and again, at most a minute.
  private func until(_ isTrue: () throws -> Bool) throws {
    let deadline = ContinuousClock.now + .seconds(60)
    while try !isTrue() { try #require(ContinuousClock.now < deadline, "it did not come") }
  }
}
