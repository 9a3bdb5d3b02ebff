import Glibc

/// A program of xenstore-utils run against a socket, with its output collected. Every wait is bounded.
@safe
final class StoreToolProcess {
  struct Result: Equatable {
    var status: Int32
    var output: String
    var errors: String
  }

  struct Failure: Error, CustomStringConvertible {
    let description: String
  }

  private var process: pid_t = 0
  private let output: Int32
  private let errors: Int32
  private var collected: [UInt8] = []
  private var isReaped = false

  /// Starts `/usr/bin/<tool>` with `XENSTORED_PATH` set to `socket`.
  init(_ tool: String, _ arguments: [String], socket: String) throws(Failure) {
    let (readOutput, writeOutput) = try Self.makePipe()
    let (readErrors, writeErrors) = try Self.makePipe()
    output = readOutput
    errors = readErrors
    var actions = unsafe posix_spawn_file_actions_t()
    unsafe posix_spawn_file_actions_init(&actions)
    unsafe posix_spawn_file_actions_adddup2(&actions, writeOutput, 1)
    unsafe posix_spawn_file_actions_adddup2(&actions, writeErrors, 2)
    let path = "/usr/bin/\(tool)"
    // The vectors hold copies that live until the call is over.
    let argv = unsafe Self.vector([path] + arguments)
    let environment = unsafe Self.vector(["XENSTORED_PATH=\(socket)", "PATH=/usr/bin"])
    let result = unsafe posix_spawn(&process, path, &actions, nil, argv, environment)
    unsafe (argv + environment).forEach { unsafe free($0) }
    unsafe posix_spawn_file_actions_destroy(&actions)
    close(writeOutput)
    close(writeErrors)
    guard result == 0 else {
      process = 0
      throw Failure(description: "\(path) does not start: errno \(result)")
    }
  }

  deinit {
    // Also runs when `init` throws, with no process; and number 0 would be everyone in the group.
    if process > 0 && !isReaped {
      kill(process, SIGKILL)
      var status: Int32 = 0
      _ = unsafe waitpid(process, &status, 0)
    }
    close(output)
    close(errors)
  }

  /// Runs a tool to its end.
  static func run(_ tool: String, _ arguments: [String], socket: String) throws(Failure) -> Result {
    try StoreToolProcess(tool, arguments, socket: socket).finish()
  }

  /// The next line the tool prints, without its newline.
  func line() throws(Failure) -> String {
    while true {
      if let end = collected.firstIndex(of: UInt8(ascii: "\n")) {
        defer { collected.removeFirst(end + 1) }
        return String(decoding: collected[..<end], as: UTF8.self)
      }
      guard let more = try Self.read(output) else {
        throw Failure(description: "end of output after '\(String(decoding: collected, as: UTF8.self))'")
      }
      collected += more
    }
  }

  /// Collects the rest of the output and waits for the end.
  func finish() throws(Failure) -> Result {
    while let more = try Self.read(output) { collected += more }
    var complaints: [UInt8] = []
    while let more = try Self.read(errors) { complaints += more }
    var status: Int32 = 0
    // Both pipes are at their end, so the process is ending.
    guard unsafe waitpid(process, &status, 0) == process else {
      throw Failure(description: "waitpid failed: errno \(errno)")
    }
    isReaped = true
    return Result(
      status: (status >> 8) & 0xff, output: String(decoding: collected, as: UTF8.self),
      errors: String(decoding: complaints, as: UTF8.self))
  }

  private static func vector(_ strings: [String]) -> [UnsafeMutablePointer<CChar>?] {
    unsafe strings.map { unsafe strdup($0) } + [nil]
  }

  /// A socket pair, as only that can be made close-on-exec in one step: tools started at the same time must
  /// not hold each other's outputs open.
  private static func makePipe() throws(Failure) -> (Int32, Int32) {
    var ends: [Int32] = [-1, -1]
    let type = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
    guard unsafe socketpair(AF_UNIX, type, 0, &ends) == 0 else {
      throw Failure(description: "socketpair failed: errno \(errno)")
    }
    return (ends[0], ends[1])
  }

  /// What a pipe holds next, nil at its end; fails after 20 seconds of silence.
  private static func read(_ descriptor: Int32) throws(Failure) -> [UInt8]? {
    var ready = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    guard unsafe poll(&ready, 1, 20_000) > 0 else {
      throw Failure(description: "the tool printed nothing for 20 seconds")
    }
    var buffer = [UInt8](repeating: 0, count: 65536)
    let count = unsafe Glibc.read(descriptor, &buffer, buffer.count)
    return count > 0 ? Array(buffer[..<count]) : nil
  }
}
