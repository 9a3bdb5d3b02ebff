import Foundation
import RingKit
import Testing

/// Servers for tests: real ones that can be killed and started again, and ones that speak nonsense.
final class NBDTestServer: @unchecked Sendable {
  // Sound: one thread at a time starts and kills it.
  private let program: String
  private let arguments: [String]
  private let pidFile: String
  private var process: Process?

  /// A program that writes `pidFile` once it serves. `arguments` leave that option out.
  init(_ program: String, _ arguments: [String], pidOption: [String], pidFile: String) throws {
    self.program = program
    self.arguments = pidOption + arguments
    self.pidFile = pidFile
    try start()
  }

  deinit {
    kill()
    // Its socket, and the file that told of it.
    for path in [pidFile, String(pidFile.dropLast(4))] { try? FileManager.default.removeItem(atPath: path) }
  }

  /// qemu-nbd with an image of the given format.
  static func qemu(
    _ image: String, format: String, socket: String, options: [String] = []
  ) throws -> NBDTestServer {
    try NBDTestServer(
      "/usr/bin/qemu-nbd",
      ["-t", "-e", "4", "-f", format, "-k", socket, "--discard=unmap"] + options + [image],
      pidOption: ["--pid-file=\(socket).pid"], pidFile: "\(socket).pid")
  }

  /// nbdkit with a plugin.
  static func nbdkit(_ words: [String], socket: String, options: [String] = []) throws -> NBDTestServer {
    try NBDTestServer(
      "/usr/bin/nbdkit", ["-f", "-U", socket] + options + words, pidOption: ["-P", "\(socket).pid"],
      pidFile: "\(socket).pid")
  }

  /// Starts it and waits until it serves.
  func start() throws {
    try? FileManager.default.removeItem(atPath: pidFile)
    if let index = arguments.firstIndex(of: "-U") { unsafe unlink(arguments[index + 1]) }
    let process = try tool(program, arguments)
    process.standardInput = FileHandle.nullDevice
    process.standardOutput = FileHandle.nullDevice
    let errors = Pipe()
    process.standardError = errors
    try process.run()
    self.process = process
    let isReady = waitUntil { FileManager.default.fileExists(atPath: self.pidFile) || !process.isRunning }
    guard isReady, process.isRunning else {
      let said =
        process.isRunning ? "" : String(decoding: errors.fileHandleForReading.availableData, as: UTF8.self)
      throw WorldFailure("\(program) does not serve: \(said)")
    }
  }

  /// Kills it without warning.
  func kill() {
    guard let process else { return }
    _ = Glibc.kill(process.processIdentifier, SIGKILL)
    process.waitUntilExit()
    self.process = nil
  }

  /// Stops it so that it answers nothing, or lets it go on.
  func freeze(_ isFrozen: Bool) {
    if let process { _ = Glibc.kill(process.processIdentifier, isFrozen ? SIGSTOP : SIGCONT) }
  }
}

/// Asks again and again, for as long as a test waits for anything.
func waitUntil(_ condition: () -> Bool) -> Bool {
  let end = MonotonicClock.nowNanoseconds() + UInt64(worldMilliseconds) * 1_000_000
  var poll = DescriptorPoll()
  poll.set([])
  while !condition() {
    if MonotonicClock.nowNanoseconds() > end { return false }
    _ = try? poll.wait(timeoutMilliseconds: 5)
  }
  return true
}

/// A program to be started; that it is missing is a failure, not a reason to test less.
private func tool(_ program: String, _ arguments: [String]) throws -> Process {
  guard FileManager.default.isExecutableFile(atPath: program) else {
    throw WorldFailure("\(program) is not installed; `make packages` installs what the tests need")
  }
  let process = Process()
  process.executableURL = URL(filePath: program)
  process.arguments = arguments
  return process
}

/// Runs a program to its end; its standard output, or what it complained of.
@discardableResult
func run(_ program: String, _ arguments: [String]) throws -> String {
  let process = try tool(program, arguments)
  let (output, errors) = (Pipe(), Pipe())
  process.standardOutput = output
  process.standardError = errors
  try process.run()
  let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
  process.waitUntilExit()
  guard process.terminationStatus == 0 else {
    let said = String(decoding: errors.fileHandleForReading.availableData, as: UTF8.self)
    throw WorldFailure("\(program) \(arguments): \(said)")
  }
  return text
}

/// A server that does with each connection what a test says.
final class NBDFakeServer: Sendable {
  let path: String
  private let stopping: Mailbox<Bool>
  private let ended = DispatchSemaphore(value: 0)

  /// Serves at `path`; `answer` gets each connection, which is closed after it unless it says to keep it.
  init(path: String, _ answer: @escaping @Sendable (LocalSocket) -> Bool) throws {
    self.path = path
    let stopping = try Mailbox<Bool>()
    self.stopping = stopping
    let listening = DispatchSemaphore(value: 0)
    let ended = ended
    Thread {
      defer { ended.signal() }
      guard let listener = try? LocalSocket.listen(path: path) else { return }
      listening.signal()
      var kept: [LocalSocket] = []
      var poll = DescriptorPoll()
      poll.set([(listener.descriptor, false), (stopping.descriptor, false)])
      while let ready = try? poll.wait(timeoutMilliseconds: nil), !ready.contains(stopping.descriptor) {
        guard let connection = listener.accept() else { continue }
        if answer(connection) { kept.append(connection) }
      }
    }.start()
    guard listening.wait(timeout: .now() + 10) == .success else { throw WorldFailure("no fake server") }
  }

  /// Ends it, and takes the socket's name away.
  func stop() {
    stopping.post(true)
    ended.wait()
    ended.signal()
  }

  deinit { stopping.post(true) }
}
