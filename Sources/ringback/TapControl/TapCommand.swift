import ArgumentParser
import Foundation
import RingKit

/// `tap-ctl`, as scripts of blktap's call it.
struct TapCommand {
  /// What a call prints and how it ends.
  struct Outcome: Equatable {
    var output = ""
    var errors = ""
    var status: Int32 = 0
  }

  /// The name under which the program is this command.
  static let name = "tap-ctl"
  /// What `allocate` prints before the minor; scripts take it off (blktap.h, BLKTAP2_NP_RUN_DIR). It is a name
  /// only: nothing is there.
  static let devicePrefix = "/run/blktap-control/tapdisk/tapdisk-"
  /// Where the daemon listens, unless `--control-socket` or the environment says otherwise.
  static let socketVariable = "RINGBACK_CONTROL_SOCKET"
  /// Where libxl, and before it udev, tells a hotplug script its device (libxl_linux.c, get_hotplug_env): whatever
  /// the script calls finds it too. Relative to /local/domain/<own>, as in "backend/vbd3/1/51712".
  static let deviceVariable = "XENBUS_PATH"

  var environment = ProcessInfo.processInfo.environment
  var isTerminal = isatty(STDOUT_FILENO) == 1

  /// Runs, prints and ends the program.
  static func main(_ words: [String]) -> Never {
    let outcome = TapCommand().run(words)
    FileHandle.standardError.write(Data(outcome.errors.utf8))
    FileHandle.standardOutput.write(Data(outcome.output.utf8))
    exit(outcome.status)
  }

  static var help: String {
    """
    usage: tap-ctl [--control-socket path] COMMAND [OPTIONS]
    COMMAND := { \(TapQuestion.Verb.allCases.map(\.rawValue).joined(separator: " | ")) }
    Each COMMAND tells its options with -h. One daemon, `ringback serve`, is all tapdisks: it is asked at
    /run/ringback/control, at --control-socket, or where \(socketVariable) says.

    """
  }

  /// Everything but the printing.
  func run(_ words: [String]) -> Outcome {
    var words = words[...]
    var socket = environment[Self.socketVariable] ?? "/run/ringback/control"
    if words.first == "--control-socket" {
      guard words.count > 1 else { return Outcome(errors: Self.help, status: EINVAL) }
      socket = words[words.startIndex + 1]
      words = words.dropFirst(2)
    }
    // The original's; it made the program talk more.
    words.removeAll { $0 == "--debug" }
    guard let command = words.popFirst() else { return Outcome(output: Self.help) }
    if command == "-h" || command == "--help" { return Outcome(output: Self.help) }
    guard let verb = TapQuestion.Verb(rawValue: command) else {
      return Outcome(
        errors: "tap-ctl: there is no command \"\(command.prefix(64))\"\n\(Self.help)", status: EINVAL)
    }
    do throws(TapUsageError) {
      let arguments = try TapArguments(Array(words), pattern: verb.pattern)
      if arguments.has("h") { return Outcome(output: "\(verb.usage)\n") }
      for letter in verb.needed where !arguments.has(letter) {
        throw TapUsageError("-\(letter) is missing")
      }
      return carryOut(verb, arguments, socket: socket)
    } catch {
      return Outcome(
        errors: "tap-ctl \(verb.rawValue): \(error.message)\n\(verb.usage)\n\(Self.words(EINVAL))\n",
        status: EINVAL)
    }
  }

  private func carryOut(
    _ verb: TapQuestion.Verb, _ arguments: TapArguments, socket: String
  ) -> Outcome {
    do {
      var question = try TapQuestion(verb, arguments)
      question.nameCaller(environment[Self.deviceVariable])
      let reply = try DaemonClient(path: socket).ask(question)
      return Outcome(output: try output(verb, arguments, reply))
    } catch let error as TapUsageError {
      return Outcome(
        errors: "tap-ctl \(verb.rawValue): \(error.message)\n\(verb.usage)\n\(Self.words(EINVAL))\n",
        status: EINVAL)
    } catch let error as TapError {
      return Outcome(
        errors: "tap-ctl \(verb.rawValue): \(error.description)\n\(Self.words(error.errno))\n",
        status: error.errno)
    } catch {
      return Outcome(errors: "tap-ctl \(verb.rawValue): \(error)\n\(Self.words(EPROTO))\n", status: EPROTO)
    }
  }

  private func output(
    _ verb: TapQuestion.Verb, _ arguments: TapArguments, _ reply: TapReply
  ) throws -> String {
    switch verb {
    case .list:
      var listing = TapListing(type: arguments["t"], file: arguments["f"])
      listing.minor = try arguments.number("m", "minor", below: TapTable.limit)
      listing.process = try arguments.number("p", "process", below: Int(Int32.max)).map { Int32($0) }
      let lines = listing.lines(of: reply.taps ?? [], daemon: reply.process, isTerminal: isTerminal)
      return lines.map { "\($0)\n" }.joined()
    case .allocate, .create:
      guard let minor = reply.minor else { throw TapError(EPROTO, "the daemon named no minor") }
      return "\(Self.devicePrefix)\(minor)\n"
    case .spawn:
      return isTerminal ? "tapdisk spawned with pid \(reply.process)\n" : "\(reply.process)\n"
    case .info:
      guard let info = reply.info else { throw TapError(EPROTO, "the daemon told no size") }
      return "sectors=\(info.sectorCount) sector-size=\(info.sectorByteCount) info=\(info.flags)\n"
    case .stats:
      guard let statistics = reply.stats else { throw TapError(EPROTO, "the daemon told no numbers") }
      let encoder = JSONEncoder()
      encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
      // One line: the storage manager reads no more.
      return String(decoding: try encoder.encode(statistics), as: UTF8.self) + "\n"
    case .free, .attach, .detach, .open, .close, .destroy, .pause, .unpause:
      return ""
    }
  }

  /// What the original prints last.
  static func words(_ errno: Int32) -> String {
    // Sound: strerror returns a C string that stays valid until the next call on this thread.
    unsafe String(cString: strerror(errno))
  }
}

extension TapQuestion {
  /// What the command line asks for. Throws what it asks in vain.
  init(_ verb: Verb, _ arguments: TapArguments) throws {
    self.init(verb)
    minor = try arguments.number("m", "minor", below: TapTable.limit)
    process = try arguments.number("p", "process", below: Int(Int32.max)).map { Int32($0) }
    if verb == .list {
      image = arguments["t"].flatMap { type in arguments["f"].map { "\(type):\($0)" } }
      if image?.utf8.count ?? 0 > Self.longestName { image = nil }
      return
    }
    if verb == .open || verb == .create || verb == .unpause {
      image = arguments["a"]
      guard image?.utf8.count ?? 0 <= Self.longestName else {
        throw TapError(ENAMETOOLONG, "-a: an image's name has at most \(Self.longestName) bytes")
      }
      _ = try arguments.number("e", "minor", below: TapTable.limit)
      let refused: [(letter: Character, reason: String)] = [
        ("2", "a second image to mirror to or to fall back on cannot be had"),
        ("s", "there is no second image to fall back on"), ("C", "changed blocks cannot be logged"),
        ("c", "changed blocks cannot be logged"), ("E", "encrypted images cannot be opened"),
      ]
      for (letter, reason) in refused where arguments.has(letter) {
        throw TapError(EOPNOTSUPP, "-\(letter): \(reason)")
      }
      if verb != .unpause {
        isReadOnly = arguments.has("R")
        isDirect = !arguments.has("D")
      }
    }
    if verb != .create && verb != .open { force = arguments.has("f") ? true : nil }
    timeoutSeconds = try arguments.number("t", "number of seconds", below: Self.longestTimeout + 1)
  }
}

extension TapQuestion {
  /// Takes over whose script asks, where that matters. A path that is no backend's says nothing.
  mutating func nameCaller(_ path: String?) {
    guard verb == .list || verb == .open || verb == .create else { return }
    let parts = (path ?? "").split(separator: "/").suffix(4).map(String.init)
    guard parts.count == 4, parts[0] == "backend" else { return }
    device = DeviceAddress(kind: parts[1], domain: parts[2], device: parts[3])?.description
  }
}

extension DaemonClient {
  /// Asks about a tap; errors carry the number that `tap-ctl` ends with.
  func ask(_ question: TapQuestion) throws(TapError) -> TapReply {
    let reply: Data
    do {
      reply = try exchange(ControlQuestion(question))
    } catch let error as SystemError {
      throw TapError(
        error.errno,
        "no daemon answers at \(path) (\(error)); start `ringback serve`, whose user and root alone may ask")
    } catch {
      throw TapError(EPROTO, "\(error)")
    }
    if let failure = try? JSONDecoder().decode(ControlFailure.self, from: reply) {
      throw TapError(failure.errno ?? EIO, failure.error)
    }
    do {
      return try JSONDecoder().decode(TapReply.self, from: reply)
    } catch {
      throw TapError(EPROTO, "the daemon at \(path) answered something else than expected (\(error))")
    }
  }
}

/// `ringback tap-ctl`: the same under the program's own name.
struct TapControl: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: TapCommand.name,
    abstract: "Do what blktap's tap-ctl does, for scripts made for it.",
    discussion: "The same as calling this program by the name tap-ctl. `ringback tap-ctl help` tells more.")

  @Argument(parsing: .captureForPassthrough, help: "A command of tap-ctl's and its options.")
  var words: [String] = []

  func run() { TapCommand.main(words == ["help"] ? [] : words) }
}
