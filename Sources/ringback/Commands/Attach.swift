import ArgumentParser
import Blkback
import Foundation
import RingKit

/// Attaches a disk without a toolstack.
struct Attach: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Attach an image to a guest, as a toolstack would.",
    discussion: """
      Writes the nodes of both ends into xenstore and waits until `ringback serve` has taken the disk. \
      The guest sees the disk at once if it runs, or when it starts if it is paused (xl create -p).
      """)

  @OptionGroup var device: DeviceOptions
  @OptionGroup var host: HostOptions

  @OptionGroup(title: "The disk") var disk: DiskOptions

  @Option(help: ArgumentHelp("Longest wait for the daemon, in seconds (1 to 3600).", valueName: "seconds"))
  var timeout = 10

  @Flag(name: .customLong("no-wait"), help: "Do not wait for the daemon.")
  var noWait = false

  @Argument(
    help: ArgumentHelp(
      "The raw image file or block device; nothing for an empty drive.",
      discussion: """
        Or PREFIX:LOCATION, with one of \(StoreTable.summary). The format is never guessed from the image's \
        contents, which the guest writes.
        """))
  var image: String?

  func validate() throws {
    guard (1...3600).contains(timeout) else { throw ValidationError("--timeout is 1 to 3600 seconds") }
    guard image != nil || disk.cdrom || disk.removable else {
      throw ValidationError("name an image; only a drive with --cdrom or --removable can be empty")
    }
  }

  func run() throws {
    let parameters = try image.map(ImageArgument.parameters) ?? ""
    let toolstack = try Toolstack<VirtualDevice>(host: host.open(), kind: device.kind)
    let (domain, vdev) = (device.domainID, device.vdev.device)
    try toolstack.attach(domain, vdev, parameters: parameters, nodes: disk.nodes)
    guard !noWait else { return }
    let state: XenbusState?
    do {
      state = try toolstack.waitForState(of: domain, vdev, seconds: timeout) {
        $0 != .initialising
      }
    } catch {
      try? toolstack.remove(domain, vdev)
      throw error
    }
    guard state == .initWait || state == .initialised || state == .connected else {
      let reason = try toolstack.errorText(domain, vdev) ?? "the daemon's log says why"
      try toolstack.remove(domain, vdev)
      throw CommandError("the daemon refused \(vdev) of domain \(domain): \(reason)")
    }
    let shown = parameters.isEmpty ? "is an empty drive" : "serves \(parameters)"
    print("\(vdev) of domain \(domain) \(shown) (\(disk.summary))")
  }
}

/// Detaches a disk.
struct Detach: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Detach a disk from a guest and take its nodes away.",
    discussion: "Asks the guest to let go of the disk and waits. With --force, the guest is not asked twice.")

  @OptionGroup var device: DeviceOptions
  @OptionGroup var host: HostOptions

  @Option(help: ArgumentHelp("Longest wait for the guest, in seconds (1 to 3600).", valueName: "seconds"))
  var timeout = 10

  @Flag(help: "Take the disk away even if the guest does not let go in time.")
  var force = false

  func validate() throws {
    guard (1...3600).contains(timeout) else { throw ValidationError("--timeout is 1 to 3600 seconds") }
  }

  func run() throws {
    let toolstack = try Toolstack<VirtualDevice>(host: host.open(), kind: device.kind)
    let (domain, vdev) = (device.domainID, device.vdev.device)
    try toolstack.beginDetaching(domain, vdev)
    do {
      _ = try toolstack.waitForState(of: domain, vdev, seconds: timeout) { $0 == .closed || $0 == nil }
    } catch {
      guard force else {
        throw CommandError(
          "the guest did not let go of \(vdev) within \(timeout) s; it may be mounted. "
            + "Unmount it there, or use --force")
      }
    }
    try toolstack.remove(domain, vdev)
    print("\(vdev) of domain \(domain) is detached")
  }
}
