import Blkback
import Foundation
import Logging
import RingKit

/// Who has the image of a tap: a guest's disk, or else the tap itself.
extension Daemon {
  /// How long a tap's image is left alone after a guest's disk has let go of it, or the daemon has started.
  private static let holdDelayNanoseconds: UInt64 = 3_000_000_000
  /// How often is looked whether disks that are waited for have gone.
  private static let lookNanoseconds: UInt64 = 50_000_000
  /// When an image that could not be had is tried again.
  private static let holdRetryNanoseconds: UInt64 = 30_000_000_000

  /// The guests' disks that use an image: open, paused or on the way to being let go.
  func users(of image: String) -> [Vbd] {
    guard let wanted = ImageIdentity(image) else { return [] }
    return disks.values.filter { disk in
      disk.properties != nil && (disk.state != .closed || disk.hasImage)
        && disk.configuration.flatMap { ImageIdentity($0.image) } == wanted
    }
  }

  /// Lets go of a tap's image.
  func dropHold(_ minor: Int) {
    guard let hold = taps.holds.removeValue(forKey: minor) else { return }
    hold.close {}
  }

  // MARK: The disks' environment

  /// Opens a guest's image, of which its taps have let go before.
  func openStore(_ configuration: VbdConfiguration) throws(VbdError) -> any BlockStore {
    var configuration = configuration
    for tap in configuration.isEmpty ? [] : taps.taps(of: configuration.image) {
      guard let image = tap.image else { continue }
      guard !image.isPaused || configuration.isPaused || taps.unpausing.contains(tap.minor) else {
        throw VbdError(
          "\(image.name) is paused as tap \(tap.minor); `tap-ctl unpause -p \(Self.process) -m \(tap.minor)` goes on"
        )
      }
      guard !image.isReadOnly || !configuration.isWritable else {
        throw VbdError(
          "\(image.name) is open read-only as tap \(tap.minor) (tap-ctl open -R); attach it with mode r, or open it"
            + " anew without -R")
      }
      if !image.isDirect { configuration.direct = .never }
      // Readers get on with each other.
      if !image.isReadOnly { taps.door?.takeBack(minor: tap.minor) }
      dropHold(tap.minor)
    }
    return try configuration.openStore()
  }

  func image(atSocket path: String) -> String? { taps.tap(atSocket: path)?.image?.name }

  /// A guest's disk went: its tap takes the image again.
  func noteGone() {
    taps.holdsDue = MonotonicClock.nowNanoseconds() + Self.holdDelayNanoseconds
  }

  /// A guest's disk goes on with another image; its tap has that one from now on.
  func followTaps(from old: String, to new: String) {
    guard ImageIdentity(old) != ImageIdentity(new) else { return }
    for tap in taps.taps(of: old) where tap.phase == .open && users(of: old).isEmpty {
      do throws(TapError) {
        dropHold(tap.minor)
        try taps.change { (table) throws(TapError) in try table.rename(tap.minor, to: new) }
        if let process = tap.process, let image = taps.table[tap.minor]?.image {
          try openDoor(minor: tap.minor, image, process: process)
        }
      } catch {
        logger.warning("tap \(tap.minor): \(error)")
      }
    }
  }

  // MARK: Regular looks

  /// When something is to be done unasked.
  func tapsDue(atNanoseconds now: UInt64) -> UInt64? {
    let look = taps.waits.isEmpty ? nil : now + Self.lookNanoseconds
    return [look, taps.holdsDue, lending.dueNanoseconds].compactMap { $0 }.min()
  }

  func lookAtTaps(atNanoseconds now: UInt64) {
    let waits = taps.waits
    taps.waits = []
    let left = waits.filter { !$0.look($0.deadline <= now) }
    taps.waits = left + taps.waits
    lending.look(atNanoseconds: now)
    if let due = taps.holdsDue, due <= now { takeMissingHolds(atNanoseconds: now) }
  }

  private func takeMissingHolds(atNanoseconds now: UInt64) {
    taps.holdsDue = nil
    guard !isStopping else { return }
    endTapsWithoutDisks()
    for tap in taps.table.taps where tap.phase == .open && taps.holds[tap.minor] == nil {
      guard var image = tap.image, users(of: image.name).isEmpty, !lending.isLent(minor: tap.minor) else {
        continue
      }
      do throws(TapError) {
        try claim(&image, minor: tap.minor)
      } catch {
        logger.warning("tap \(tap.minor) does not keep others out of its image: \(error)")
        taps.holdsDue = now + Self.holdRetryNanoseconds
      }
    }
  }

  // MARK: Beginning and end

  /// Takes up the taps of an earlier daemon.
  func restoreTaps() {
    let (table, warning) = taps.file.read()
    if let warning { logger.error("\(warning)") }
    taps.table = table
    for tap in table.taps where tap.phase == .open || tap.phase == .paused {
      guard let process = tap.process, let image = tap.image else { continue }
      do throws(TapError) {
        try openDoor(minor: tap.minor, image, process: process)
      } catch {
        logger.warning("tap \(tap.minor): \(error)")
      }
    }
    // Guests' disks are looked at first.
    taps.holdsDue = MonotonicClock.nowNanoseconds() + Self.holdDelayNanoseconds
  }

  /// Listens at the tap's socket, whose name has the process in it that attached it. `tap-ctl list` tells the
  /// present process, so that one leads there too.
  func openDoor(minor: Int, _ image: TapImage, process: Int32) throws(TapError) {
    guard let door = taps.door else { return }
    let path = taps.socketPath(minor: minor, process: process)
    try door.open(minor: minor, image: image, path: path)
    guard process != Self.process else { return }
    let link = taps.socketPath(minor: minor, process: Self.process)
    try? FileManager.default.removeItem(atPath: link)
    try? FileManager.default.createSymbolicLink(
      atPath: link, withDestinationPath: (path as NSString).lastPathComponent)
  }

  /// Takes the second name away.
  func unlink(_ tap: Tap) {
    guard let process = tap.process, process != Self.process else { return }
    try? FileManager.default.removeItem(atPath: taps.socketPath(minor: tap.minor, process: Self.process))
  }
}

extension Vbd {
  /// The disk in words.
  var words: String { "\(VirtualDevice(number: identity.device)) of domain \(identity.domain)" }
}

extension DaemonConfiguration {
  /// Beside the control socket, which no two daemons share.
  var tapFile: TapFile {
    let socket = URL(filePath: controlSocketPath)
    let directory = socket.deletingLastPathComponent().path
    let name = socket.lastPathComponent
    return TapFile(path: "\(directory)/" + (name == "control" ? "taps.json" : "\(name).taps.json"))
  }
}
