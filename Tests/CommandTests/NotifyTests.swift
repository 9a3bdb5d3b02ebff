import Foundation
import Glibc
import RingKit
import Synchronization
import Testing

@testable import ringback

/// What systemd is told.
@Suite struct NotifyTests {
  @Test(.timeLimit(.minutes(10)), arguments: [false, true])
  func theDaemonTellsItsLife(abstract: Bool) throws {
    let socket = try NotifySocket(abstract: abstract)
    let stage = try CommandStage()
    try stage.startMachine(domains: [1, 2])
    let daemon = try stage.startDaemon(["--threads", "2"], environment: ["NOTIFY_SOCKET": socket.address])
    // The control socket answers before systemd is told so: whoever is ordered after the unit finds it.
    #expect(try socket.next() == "READY=1")
    #expect(try socket.next() == "STATUS=Serving 0 disks of 0 guests on 2 threads")
    #expect(try Command.run(["list"] + stage.host).status == 0)
    #expect(try stage.attach().status == 0)
    #expect(try socket.next() == "STATUS=Serving 1 disk of 1 guest on 2 threads")
    kill(daemon.process.processIdentifier, SIGHUP)
    let reloading = try socket.next().split(separator: "\n")
    #expect(reloading.first == "RELOADING=1")
    let time = reloading.last.flatMap { UInt64($0.dropFirst("MONOTONIC_USEC=".count)) } ?? 0
    let now = MonotonicClock.nowNanoseconds() / 1000
    #expect(time <= now && now - time < 60_000_000, "\(reloading)")
    #expect(try socket.next() == "READY=1")
    daemon.process.terminate()
    #expect(try socket.next() == "STOPPING=1")
    #expect(try socket.next().hasPrefix("STATUS=Stopping: "))
    #expect(daemon.finish().status == 0)

    // The next one looks at the disk before it is ready, and says that this may take its time.
    let second = try stage.startDaemon(["--threads", "2"], environment: ["NOTIFY_SOCKET": socket.address])
    #expect(try socket.next() == "EXTEND_TIMEOUT_USEC=30000000")
    #expect(try socket.next() == "READY=1")
    #expect(try socket.next() == "STATUS=Serving 1 disk of 1 guest on 2 threads")
    second.process.terminate()
    #expect(second.finish().status == 0)
  }

  /// What the daemon starts is not told of systemd's socket. In a process of its own, since the environment is
  /// every test's.
  @Test(.timeLimit(.minutes(10)))
  func theVariablesAreTakenOutOfTheEnvironment() async {
    await #expect(processExitsWith: .success) {
      let socket = try NotifySocket()
      let variables = [
        ("NOTIFY_SOCKET", socket.address), ("WATCHDOG_USEC", "1000000"), ("WATCHDOG_PID", "\(getpid())"),
      ]
      for (name, value) in variables { unsafe setenv(name, value, 1) }
      let notices = ServiceNotices.takeFromEnvironment()
      #expect(notices.isHeard && notices.watchdogNanoseconds == 1_000_000_000)
      for (name, _) in variables { #expect(unsafe getenv(name) == nil) }
    }
  }

  @Test func theWatchdogIsOursOnlyWhenItIsMeantForUs() throws {
    let socket = try NotifySocket()
    func interval(_ more: [String: String], socket address: String? = nil) -> UInt64? {
      ServiceNotices(["NOTIFY_SOCKET": address ?? socket.address].merging(more) { $1 }, processID: 7)
        .watchdogNanoseconds
    }
    #expect(interval(["WATCHDOG_USEC": "30000000"]) == 30_000_000_000)
    #expect(interval(["WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"]) == 30_000_000_000)
    #expect(interval(["WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"]) == nil)
    #expect(interval(["WATCHDOG_USEC": "30000000"], socket: "") == nil)
    for wrong in ["", "0", "-1", "x", "18446744073709551615"] {
      #expect(interval(["WATCHDOG_USEC": wrong]) == nil, "\(wrong)")
    }
    #expect(interval([:]) == nil)
  }

  @Test(arguments: ["vsock:2:1234", "relative/path", "/", "@", "/\(String(repeating: "x", count: 120))"])
  func anAddressOfAnotherKindIsToldAndNothingElse(address: String) {
    var notices = ServiceNotices(["NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000"], processID: 7)
    #expect(!notices.isHeard && notices.watchdogNanoseconds == nil)
    #expect(notices.takeTrouble()?.contains(address) == true)
    #expect(notices.takeTrouble() == nil)
    notices.tell(.ready)
  }

  @Test func nobodyListening() {
    var notices = ServiceNotices(["NOTIFY_SOCKET": "/nonexistent/notify"], processID: 7)
    notices.tell(.ready)
    #expect(notices.takeTrouble()?.contains("No such file") == true)
    #expect(notices.nextNanoseconds(after: 5) == nil)
  }

  /// A receiver that is slow loses nothing, and statuses that are no longer so are left out.
  @Test func aFullQueueKeepsTheOrder() throws {
    let socket = try NotifySocket()
    var notices = ServiceNotices(["NOTIFY_SOCKET": socket.address], processID: 7)
    var sent: [String] = []
    while notices.nextNanoseconds(after: 0) == nil {
      notices.tell(.reloading(sinceNanoseconds: UInt64(sent.count) * 1000))
      sent.append("RELOADING=1\nMONOTONIC_USEC=\(sent.count)")
      try #require(sent.count < 100_000)
    }
    notices.tell(.status("first"))
    notices.tell(.ready)
    notices.tell(.alive)
    notices.tell(.alive)
    notices.tell(.status("second"))
    sent += ["READY=1", "WATCHDOG=1", "STATUS=second"]
    for (index, notice) in sent.enumerated() {
      #expect(try socket.next() == notice)
      notices.sendAgain()
      if index == sent.count - 1 { #expect(notices.nextNanoseconds(after: 0) == nil) }
    }
    notices.tell(.status("second"))
    notices.tell(.stopping)
    #expect(try socket.next() == "STOPPING=1")
  }

  @Test(.timeLimit(.minutes(10)))
  func theWatchdogIsFedWhileEveryThreadAnswers() throws {
    let socket = try NotifySocket()
    let stage = try CommandStage()
    try stage.startMachine()
    let daemon = try stage.startDaemon(
      ["--threads", "2"], environment: ["NOTIFY_SOCKET": socket.address, "WATCHDOG_USEC": "200000"])
    for _ in 0..<10 { _ = try socket.wait(for: "WATCHDOG=1") }
    daemon.process.terminate()
    _ = try socket.wait(for: "STOPPING=1")
    #expect(daemon.finish().status == 0)
  }

  /// The watchdog's question to the threads.
  @Test func aThreadThatDoesNotAnswerIsSilent() {
    var pulses = ThreadPulses(threadCount: 3)
    #expect(pulses.silences.isEmpty)
    var answers: [@Sendable () -> Void] = []
    pulses.ask { answers.append($1) }
    #expect(pulses.silences.map(\.thread) == [0, 1, 2])
    answers[0]()
    answers[2]()
    // No thread of this process has that name, so none waits in the kernel.
    #expect(pulses.silences == [ThreadPulses.Silence(thread: 1, isInKernel: false)])
    let late = answers[1]
    answers = []
    late()
    #expect(pulses.silences.isEmpty)
    pulses.ask { answers.append($1) }
    // An answer to an earlier question is none to this one.
    late()
    #expect(pulses.silences.map(\.thread) == [0, 1, 2])
    // Threads of interfaces come later; what was asked before was not asked of them.
    pulses.add(threadCount: 2)
    #expect(pulses.silences.map(\.thread) == [0, 1, 2])
    answers.forEach { $0() }
    #expect(pulses.silences.isEmpty)
    pulses.ask { answers.append($1) }
    #expect(pulses.silences.map(\.thread) == [0, 1, 2, 3, 4])
  }

  /// A thread that waits for storage in the kernel is no reason to end the daemon.
  @Test(arguments: [
    ("71 (ringback-1) D 1 70", true), ("71 (ringback-1) S 1 70", false), ("71 (ringback-1) R 1 70", false),
    ("71 (ringback-12) D 1 70", false), ("71 (ringback-nbd) D 1 70", false), ("71 (ringback) D 1 70", false),
    ("", false),
  ])
  func waitingInTheKernelIsTold(line: String, waits: Bool) {
    #expect(ThreadPulses.waitsInKernel(line, thread: 1) == waits)
  }

  @Test func theJournalIsKnownByItsStream() throws {
    let path = FileManager.default.temporaryDirectory.path + "/ringback-journal-\(UUID().uuidString)"
    try Data().write(to: URL(filePath: path))
    defer { try? FileManager.default.removeItem(atPath: path) }
    let file = try FileHandle(forReadingFrom: URL(filePath: path))
    let facts = try FileManager.default.attributesOfItem(atPath: path)
    let inode = try #require(facts[.systemFileNumber] as? Int)
    let device = try #require(facts[.systemNumber] as? Int)
    func isJournal(_ stream: String?) -> Bool {
      StandardErrorLogHandler.isJournal(stream, descriptor: file.fileDescriptor)
    }
    #expect(isJournal("\(device):\(inode)"))
    for other in ["\(device):\(inode + 1)", "\(device + 1):\(inode)", "\(device)", "a:b", "", "1:2:3", nil] {
      #expect(!isJournal(other), "\(other ?? "none")")
    }
  }

  @Test(.timeLimit(.minutes(10)))
  func linesForTheJournalHaveTheirPriority() throws {
    let stage = try CommandStage()
    try stage.startMachine()
    let log = "\(stage.directory)/log"
    try Data().write(to: URL(filePath: log))
    let file = try FileHandle(forWritingTo: URL(filePath: log))
    let facts = try FileManager.default.attributesOfItem(atPath: log)
    let stream = "\(facts[.systemNumber] ?? 0):\(facts[.systemFileNumber] ?? 0)"
    let socket = try NotifySocket()
    let process = Process()
    process.executableURL = Command.executable
    process.arguments = ["serve"] + stage.host
    process.environment = ["NOTIFY_SOCKET": socket.address, "JOURNAL_STREAM": stream]
    process.standardError = file
    try process.run()
    _ = try socket.wait(for: "READY=1")
    process.terminate()
    process.waitUntilExit()
    let lines = try String(contentsOfFile: log, encoding: .utf8).split(separator: "\n")
    #expect(lines.first?.hasPrefix("<5>serving vbd3") == true, "\(lines)")
    #expect(lines.allSatisfy { $0.contains(/^<[0-7]>/) }, "\(lines)")
  }
}
