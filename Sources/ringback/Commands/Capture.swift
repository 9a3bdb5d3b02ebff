import ArgumentParser
import Foundation
import Glibc
import Netback
import RingKit

/// Captures an interface's frames.
struct Capture: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Capture the frames of a network interface, for tcpdump and Wireshark.",
    discussion: """
      Asks the daemon for the frames that pass an interface, whether its link is a TAP or a switch, and writes them \
      as a pcapng file, with the direction of each: inbound is what the guest sends. Frames are as they pass: with \
      checksums that are still blank, and longer than the MTU where they are to be segmented. No frame waits for \
      the capture: what comes faster than it is taken is left out, and the file's statistics tell how much. \
      `ringback capture vif1.0 -w - | tcpdump -n -r -` shows frames as they come. While an interface at a switch \
      is captured, its frames go through the daemon's memory.
      """)

  @Argument(help: ArgumentHelp("The interface, such as vif1.0.", valueName: "vif"))
  var vif: InterfaceName

  @Option(
    name: [.customShort("w"), .customLong("write")],
    help: ArgumentHelp("The file to write; - for standard output.", valueName: "file"))
  var output: String

  @Option(
    name: .shortAndLong,
    help: ArgumentHelp("Keep this many bytes of each frame (14 to 262144).", valueName: "bytes"))
  var snap: Int?

  @Option(name: .shortAndLong, help: ArgumentHelp("End after this many frames.", valueName: "frames"))
  var count: UInt64?

  @Option(help: ArgumentHelp("End after this many seconds.", valueName: "seconds"))
  var seconds: Double?

  @OptionGroup var host: HostOptions
  @OptionGroup var daemon: DaemonOptions

  func validate() throws {
    if let snap, !(14...PcapngWriter.largestSnapLength).contains(snap) {
      throw ValidationError("--snap is 14 to \(PcapngWriter.largestSnapLength) bytes")
    }
    guard count != 0 else { throw ValidationError("--count is 1 or more frames") }
    if let seconds, !(seconds > 0 && seconds <= 1e9) {
      throw ValidationError("--seconds is more than 0, and at most 1000000000")
    }
    if output == "-", isatty(STDOUT_FILENO) == 1 {
      throw ValidationError("a capture is no text for a terminal: write it to a file, or into a pipe")
    }
  }

  func run() throws {
    // Ctrl-C ends the capture, not the program.
    let signals = try TerminationSignals()
    signal(SIGPIPE, SIG_IGN)
    var question = ControlQuestion(.capture)
    (question.domain, question.vif) = (vif.domain, vif.number)
    question.capture = CaptureQuestion(snapLength: snap, count: count, seconds: seconds)
    let stream = try CaptureStream(host.daemon(daemon), question)
    let file = try CaptureFile(output)
    try stream.copy(to: file, until: signals)
    if let ending = stream.ending {
      let words = "\(ending.kept) frames captured, \(ending.dropped) left out for want of room\n"
      FileHandle.standardError.write(Data(words.utf8))
    }
  }
}

/// An interface by the name that the kernel's backend would give it.
struct InterfaceName: ExpressibleByArgument {
  let domain: UInt16
  let number: UInt32

  init?(argument: String) {
    let parts = argument.split(separator: ".", omittingEmptySubsequences: false)
    guard parts.count == 2, parts[0].hasPrefix("vif"), let domain = UInt16(parts[0].dropFirst(3)),
      let number = UInt32(parts[1]), argument == "vif\(domain).\(number)"
    else { return nil }
    (self.domain, self.number) = (domain, number)
  }
}

/// Where a capture is written.
final class CaptureFile {
  private let handle: FileHandle
  private let name: String

  init(_ name: String) throws {
    self.name = name
    guard name != "-" else {
      handle = .standardOutput
      return
    }
    guard FileManager.default.createFile(atPath: name, contents: nil),
      let handle = FileHandle(forWritingAtPath: name)
    else {
      throw CommandError("\(name) cannot be written: \(SystemError(call: "open", errno: errno))")
    }
    self.handle = handle
  }

  /// Writes; false when whoever read it has gone.
  func write(_ bytes: [UInt8]) throws -> Bool {
    do {
      try handle.write(contentsOf: Data(bytes))
      return true
    } catch let error as CocoaError {
      if let cause = error.underlying as? POSIXError, cause.code == .EPIPE { return false }
      throw CommandError("\(name) cannot be written: \(error.localizedDescription)")
    }
  }
}
