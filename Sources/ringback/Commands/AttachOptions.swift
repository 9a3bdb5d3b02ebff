import ArgumentParser
import Blkback
import Foundation

/// What a toolstack can say of a disk beside its image.
struct DiskOptions: ParsableArguments {
  @Option(
    help: "r: the guest may only read. w: it may read and write. w!: others may write the image too.")
  var mode: DiskMode?

  @Flag(help: "The drive is a CD-ROM: read only, and its medium can be changed.")
  var cdrom = false

  @Flag(help: "The drive's medium can be changed.")
  var removable = false

  @Option(
    help: ArgumentHelp(
      "The sector that the guest is shown: 512, which suits every guest, 1024, 2048 or 4096.",
      valueName: "bytes"))
  var sectorSize: Int?

  @Flag(name: .customLong("no-discard"), help: "Do not let the guest give ranges back.")
  var noDiscard = false

  @Option(help: "Ranges that the guest gives back: unmap (to the medium), or zeroes (they read as zeros).")
  var discardMode: DiscardChoice?

  @Option(help: ArgumentHelp("Bytes a second that the disk may move, such as 100M.", valueName: "bytes"))
  var limitBytes: ByteCountArgument?

  @Option(help: ArgumentHelp("Bytes that pass at once after idle time.", valueName: "bytes"))
  var limitBytesBurst: ByteCountArgument?

  @Option(help: ArgumentHelp("Requests a second that the disk may do.", valueName: "count"))
  var limitRequests: UInt64?

  @Option(help: ArgumentHelp("Requests that pass at once after idle time.", valueName: "count"))
  var limitRequestsBurst: UInt64?

  enum DiskMode: String, CaseIterable, ExpressibleByArgument {
    case r
    case w
    case shared = "w!"
  }

  enum DiscardChoice: String, CaseIterable, ExpressibleByArgument {
    case unmap
    case zeroes
  }

  func validate() throws {
    guard !noDiscard || discardMode == nil else {
      throw ValidationError("--discard-mode means nothing beside --no-discard")
    }
    if let sectorSize, ![512, 1024, 2048, 4096].contains(sectorSize) {
      throw ValidationError("--sector-size is 512, 1024, 2048 or 4096")
    }
    if cdrom, let mode, mode != .r {
      throw ValidationError("a CD-ROM is read only; leave --mode away, or use --removable for a disk")
    }
    try LimitReport.check(
      LimitReport(
        bytes: limitBytes, bytesBurst: limitBytesBurst, requests: limitRequests,
        requestsBurst: limitRequestsBurst))
  }

  var effectiveMode: DiskMode { mode ?? (cdrom ? .r : .w) }

  /// The nodes in the backend's directory that say all this.
  var nodes: [(name: String, value: String)] {
    var nodes = [
      ("mode", effectiveMode.rawValue), ("device-type", cdrom ? "cdrom" : "disk"),
      ("removable", removable || cdrom ? "1" : "0"),
    ]
    if let sectorSize { nodes.append(("logical-sector-size", "\(sectorSize)")) }
    if noDiscard { nodes.append(("discard-enable", "0")) }
    if let discardMode { nodes.append(("discard-mode", discardMode.rawValue)) }
    for (name, value) in [
      ("limit-bytes", limitBytes?.value), ("limit-bytes-burst", limitBytesBurst?.value),
      ("limit-requests", limitRequests), ("limit-requests-burst", limitRequestsBurst),
    ] {
      if let value { nodes.append((name, "\(value)")) }
    }
    return nodes
  }

  /// The mode in words.
  var summary: String {
    switch effectiveMode {
    case .r: "read only"
    case .w: "read and write"
    case .shared: "read and write, shared"
    }
  }
}
