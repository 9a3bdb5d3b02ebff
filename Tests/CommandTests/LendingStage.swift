import Blkback
import Foundation
import RingKit
import Testing

@testable import ringback

/// Something a test cannot go on without.
struct LendingTrouble: Error, CustomStringConvertible {
  let description: String
  init(_ description: String) { self.description = description }
}

/// One tap with an image that is held, and the loop that a daemon would run.
final class LendingStage: LendingOwner {
  static let byteCount: UInt64 = 16 << 20
  /// Longest wait for anything, in nanoseconds.
  static let patience: UInt64 = 20_000_000_000

  let directory: URL
  let image: LentImage
  private(set) var lines: [(severity: DeviceSeverity, text: String)] = []
  /// What the tap holds its image with.
  var hold: (any BlockStore)?
  /// Why the image is not let go.
  var refusal: VbdError?
  private(set) var askedCount = 0
  private(set) var endedCount = 0
  private(set) var lending: Lending?

  var path: String { directory.appending(path: "disk").path }
  var socket: String { directory.appending(path: "nbd1.3").path }
  var uri: String { "nbd+unix:///?socket=\(socket)" }

  /// Makes the image ("raw" or "vpc") and opens the tap.
  init(format: String = "raw", isReadOnly: Bool = false) throws {
    _ = signal(SIGPIPE, SIG_IGN)
    directory = FileManager.default.temporaryDirectory.appending(path: "rb-\(UUID().uuidString.prefix(8))")
    try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    let path = directory.appending(path: "disk").path
    image = LentImage(name: (format == "raw" ? "aio:" : "vhd:") + path, isReadOnly: isReadOnly)
    let options = format == "raw" ? [] : ["-o", "force_size=on"]
    let made = try Self.run(
      "/usr/bin/qemu-img", ["create", "-q", "-f", format] + options + [path, "\(Self.byteCount)"])
    guard made.status == 0 else { throw LendingTrouble(made.output) }
    lending = try Lending()
    lending?.owner = self
    try lending?.open(minor: 3, image: image, path: socket)
    try takeHold()
  }

  deinit {
    lending?.closeAll()
    try? FileManager.default.removeItem(at: directory)
  }

  func takeHold() throws {
    let (kind, location) = try StoreTable.parse(image.name)
    var request = StoreRequest(location: location, isReadOnly: image.isReadOnly)
    request.runDirectory = directory.appending(path: "run").path
    hold = try kind.open(request)
  }

  /// Lets go, and waits until nothing is left of it.
  func dropHold() throws {
    guard let hold else { return }
    self.hold = nil
    var isGone = false
    lending?.close(hold) { isGone = true }
    try serve(until: { isGone }, "the end of the hold")
  }

  /// Ends everything.
  func end() {
    lending?.closeAll()
    lending = nil
    hold = nil
  }

  // MARK: The owner

  func letGo(ofTap minor: Int, done: @escaping (VbdError?) -> Void) {
    askedCount += 1
    if let refusal { return done(refusal) }
    guard let hold else { return done(nil) }
    self.hold = nil
    lending?.close(hold) { done(nil) }
  }

  func lendingEnded(ofTap minor: Int) { endedCount += 1 }

  func log(_ severity: DeviceSeverity, _ message: String, aboutTap minor: Int) {
    lines.append((severity, message))
  }

  /// Lines of a severity.
  func told(_ severity: DeviceSeverity) -> [String] {
    lines.filter { $0.severity == severity }.map { $0.text }
  }

  // MARK: The loop

  /// Serves until something is so.
  func serve(until isDone: () -> Bool, _ what: String) throws {
    let end = MonotonicClock.nowNanoseconds() + Self.patience
    var poll = DescriptorPoll()
    while !isDone() {
      guard MonotonicClock.nowNanoseconds() < end else {
        throw LendingTrouble("\(what) does not come; told was: \(lines)")
      }
      poll.set(lending?.descriptors ?? [])
      for descriptor in try poll.wait(timeoutMilliseconds: 10) { lending?.serve(descriptor) }
      lending?.look(atNanoseconds: MonotonicClock.nowNanoseconds())
    }
  }

  /// Serves until all clients have gone and the image is back.
  func serveUntilBack() throws {
    let before = endedCount
    try serve(until: { endedCount > before }, "the image")
  }

  // MARK: Programs

  /// Runs a program to its end without serving.
  static func run(_ program: String, _ arguments: [String]) throws -> (status: Int32, output: String) {
    let running = try Program(program, arguments)
    running.process.waitUntilExit()
    return (running.process.terminationStatus, running.output)
  }

  /// Runs a program to its end while clients are served.
  func client(_ program: String, _ arguments: [String]) throws -> (status: Int32, output: String) {
    let running = try Program("/usr/bin/\(program)", arguments)
    try serve(until: { !running.process.isRunning }, "\(program)'s end")
    return (running.process.terminationStatus, running.output)
  }

  /// Has qemu-io carry out commands on the socket.
  func io(_ commands: String..., readOnly: Bool = false) throws -> (status: Int32, output: String) {
    try client(
      "qemu-io",
      ["-f", "raw"] + (readOnly ? ["-r"] : []) + commands.flatMap { ["-c", $0] } + [uri])
  }

  /// Types lines into qemu-io, each when it has done the one before.
  func type(to client: Program, _ lines: String...) throws {
    func promptCount() -> Int { client.output.components(separatedBy: "qemu-io> ").count - 1 }
    try serve(until: { promptCount() > 0 }, "qemu-io")
    for line in lines {
      let before = promptCount()
      try client.type(line)
      try serve(until: { promptCount() > before || !client.process.isRunning }, "the end of \(line)")
    }
  }

  /// Has qemu-io end.
  func quit(_ client: Program) throws {
    try client.type("quit")
    try serve(until: { !client.process.isRunning }, "the client's end")
  }

  /// What is in the directory.
  var names: [String] {
    ((try? FileManager.default.contentsOfDirectory(atPath: directory.path)) ?? []).sorted()
  }

  /// Blocks of 512 bytes that the image takes.
  var allocated: Int {
    var status = stat()
    // Sound: the call fills the local structure.
    return unsafe stat(path, &status) == 0 ? Int(status.st_blocks) : -1
  }

  /// How often this process has the image open.
  var openCount: Int {
    get throws {
      try FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd").count {
        (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/fd/\($0)")) == path
      }
    }
  }

  /// Children of this process that serve the image of this test. Other suites run beside it, with servers of
  /// their own.
  var serverCount: Int {
    get throws {
      let own = "\(ProcessInfo.processInfo.processIdentifier)"
      return try FileManager.default.contentsOfDirectory(atPath: "/proc").count { name in
        guard Int32(name) != nil,
          let status = try? String(contentsOfFile: "/proc/\(name)/stat", encoding: .utf8),
          status.split(separator: ")").last?.split(separator: " ")[1] == Substring(own),
          let words = try? Data(contentsOf: URL(filePath: "/proc/\(name)/cmdline"))
        else { return false }
        return words.range(of: Data(path.utf8)) != nil
      }
    }
  }
}

/// A program that runs beside the loop; what it says goes to a file, so that it never waits for a reader.
final class Program {
  let process = Process()
  let input = Pipe()
  private let place: URL

  init(_ path: String, _ arguments: [String]) throws {
    place = FileManager.default.temporaryDirectory.appending(path: "rb-\(UUID().uuidString.prefix(8)).out")
    guard FileManager.default.createFile(atPath: place.path, contents: nil) else {
      throw LendingTrouble("cannot make \(place.path)")
    }
    // It may be gone when something is typed.
    _ = signal(SIGPIPE, SIG_IGN)
    let file = try FileHandle(forWritingTo: place)
    process.executableURL = URL(filePath: path)
    process.arguments = arguments
    process.standardInput = input
    process.standardOutput = file
    process.standardError = file
    try process.run()
    try file.close()
  }

  deinit {
    try? input.fileHandleForWriting.close()
    if process.isRunning { process.terminate() }
    try? FileManager.default.removeItem(at: place)
  }

  /// What it has said so far.
  var output: String { (try? String(contentsOf: place, encoding: .utf8)) ?? "" }

  /// Types a line.
  func type(_ line: String) throws {
    try input.fileHandleForWriting.write(contentsOf: Data("\(line)\n".utf8))
  }
}
