import Foundation

/// The built `ringback`, run as a person runs it.
struct Command {
  /// What a run left.
  struct Outcome {
    var status: Int32
    var output: String
    var errors: String
  }

  /// A run that goes on.
  final class Running {
    let process: Process
    private let errors: Pipe
    private var seen = ""

    init(_ arguments: [String], environment: [String: String] = [:]) throws {
      process = Process()
      process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }
      process.executableURL = Command.executable
      process.arguments = arguments
      process.standardInput = FileHandle.nullDevice
      errors = Pipe()
      process.standardError = errors
      process.standardOutput = errors
      try process.run()
    }

    deinit { if process.isRunning { process.terminate() } }

    /// Reads what it prints until `text` comes; what was printed if it ends before.
    func wait(for text: String) throws -> String {
      while !seen.contains(text) {
        let data = errors.fileHandleForReading.availableData
        guard !data.isEmpty else { throw Unfinished(text: text, printed: seen) }
        seen += String(decoding: data, as: UTF8.self)
      }
      return seen
    }

    /// Reads to the end and gives the exit status.
    func finish() -> Outcome {
      let rest = errors.fileHandleForReading.readDataToEndOfFile()
      process.waitUntilExit()
      return Outcome(
        status: process.terminationStatus, output: seen + String(decoding: rest, as: UTF8.self), errors: "")
    }
  }

  struct Unfinished: Error, CustomStringConvertible {
    var text: String
    var printed: String
    var description: String { "ended without printing \"\(text)\": \(printed)" }
  }

  /// Beside the test runner, where the package's products are built.
  static var executable: URL {
    URL(filePath: "/proc/self/exe").resolvingSymlinksInPath().deletingLastPathComponent()
      .appending(path: "ringback")
  }

  /// Runs to the end.
  static func run(
    _ arguments: [String], as program: String? = nil, environment: [String: String] = [:]
  ) throws -> Outcome {
    let process = Process()
    process.executableURL = program.map { URL(filePath: $0) } ?? executable
    process.arguments = arguments
    process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }
    process.standardInput = FileHandle.nullDevice
    let (output, errors) = (Pipe(), Pipe())
    process.standardOutput = output
    process.standardError = errors
    try process.run()
    let text = output.fileHandleForReading.readDataToEndOfFile()
    let complaint = errors.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    return Outcome(
      status: process.terminationStatus, output: String(decoding: text, as: UTF8.self),
      errors: String(decoding: complaint, as: UTF8.self))
  }
}

/// A directory with a loopback machine, an image, and the arguments that lead to them.
final class CommandStage {
  let directory: String
  var image: String { "\(directory)/disk.img" }
  var host: [String] { ["--hypervisor", "loopback", "--loopback-directory", "\(directory)/machine"] }
  private var machine: Command.Running?

  init(imageByteCount: UInt64 = 16 << 20) throws {
    directory =
      FileManager.default.temporaryDirectory.path + "/ringback-command-\(UUID().uuidString.prefix(8))"
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: false)
    guard FileManager.default.createFile(atPath: image, contents: nil) else {
      throw CocoaError(.fileWriteUnknown)
    }
    try FileHandle(forWritingTo: URL(filePath: image)).truncate(atOffset: imageByteCount)
  }

  deinit {
    machine?.process.terminate()
    machine?.process.waitUntilExit()
    try? FileManager.default.removeItem(atPath: directory)
  }

  func startMachine(domains: [Int] = [1]) throws {
    machine = try Command.Running(
      ["loopback", "--loopback-directory", "\(directory)/machine"]
        + domains.flatMap { ["--domain", "\($0)"] })
    _ = try machine?.wait(for: "ready")
  }

  func startDaemon(
    _ options: [String] = [], environment: [String: String] = [:]
  ) throws -> Command.Running {
    let daemon = try Command.Running(["serve"] + host + options, environment: environment)
    _ = try daemon.wait(for: "serving")
    return daemon
  }

  func attach(_ vdev: String = "xvda", domain: Int = 1, mode: String = "w", image: String? = nil) throws
    -> Command.Outcome
  {
    try Command.run(
      ["attach", "--domain", "\(domain)", "--vdev", vdev, "--mode", mode] + host + [image ?? self.image])
  }
}
