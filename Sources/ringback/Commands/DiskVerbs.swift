import ArgumentParser
import Blkback
import Foundation
import RingKit

/// What all verbs about one running disk have in common: they ask the daemon and print what it says.
struct DiskVerbOptions: ParsableArguments {
  @OptionGroup var device: DeviceOptions
  @OptionGroup var host: HostOptions
  @OptionGroup var daemon: DaemonOptions

  @Flag(help: "Print JSON.")
  var json = false

  /// Asks about this disk; `say` puts the answer into words.
  func ask(_ question: ControlQuestion, say: (DiskReply) -> String) throws {
    var question = question
    question.domain = device.domain
    question.vdev = device.vdev.device.number
    question.kind = device.kind
    let reply = try host.daemon(daemon).ask(question, for: DiskReply.self)
    print(json ? try reply.json() : say(reply))
  }

  /// The disk in words.
  var disk: String { "\(device.vdev.device) of domain \(device.domain)" }
}

/// Lets the image go.
struct Pause: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Stop serving a disk for a while and close its image; the guest only sees latency.",
    discussion: """
      Returns when the requests in flight are finished and what they wrote is on stable storage. Until \
      `ringback resume`, the guest's further requests wait in its ring. A disk stays paused when the daemon is \
      replaced.
      """)

  @OptionGroup var verb: DiskVerbOptions

  func run() throws {
    try verb.ask(ControlQuestion(.pause)) { "\(verb.disk) is paused; \($0.image) is closed" }
  }
}

/// Goes on.
struct Resume: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Serve a paused disk again, from the same image or from another one.",
    discussion: "Another image has to be as large as the disk, unless --allow-resize is given.")

  @OptionGroup var verb: DiskVerbOptions

  @Option(help: ArgumentHelp("Go on with this image.", valueName: "image"))
  var image: String?

  @Flag(help: "The image may have another size; the guest is told.")
  var allowResize = false

  func run() throws {
    var question = ControlQuestion(.resume)
    question.image = try image.map(ImageArgument.parameters)
    question.allowResize = allowResize
    try verb.ask(question) { "\(verb.disk) is served again from \($0.image)" }
  }
}

/// Tells the guest a new size.
struct Resize: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Tell a guest that its disk's image has grown.",
    discussion: """
      Grow the image first, for instance with `truncate -s +1G` or lvextend. The daemon looks every few seconds \
      by itself; this looks at once. Shrinking loses what lies beyond the new end.
      """)

  @OptionGroup var verb: DiskVerbOptions

  @Flag(help: "The disk may become smaller.")
  var allowShrink = false

  func run() throws {
    var question = ControlQuestion(.resize)
    question.allowShrink = allowShrink
    try verb.ask(question) { "\(verb.disk) has \($0.byteCount) bytes (\(ByteCount($0.byteCount)))" }
  }
}

/// Puts a medium into a drive.
struct Insert: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Put a medium into a CD-ROM or removable drive, in the place of the one that is there.")

  @OptionGroup var verb: DiskVerbOptions

  @Argument(help: ArgumentHelp("The image: a path, or PREFIX:LOCATION with one of \(StoreTable.summary)."))
  var image: String

  func run() throws {
    var question = ControlQuestion(.insert)
    question.image = try ImageArgument.parameters(image)
    try verb.ask(question) { "\(verb.disk) holds \($0.image)" }
  }
}

/// Takes the medium out.
struct Eject: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Take the medium out of a CD-ROM or removable drive; the drive stays.")

  @OptionGroup var verb: DiskVerbOptions

  func run() throws { try verb.ask(ControlQuestion(.eject)) { _ in "\(verb.disk) is empty" } }
}
