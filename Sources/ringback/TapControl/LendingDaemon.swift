import Blkback
import Foundation
import Logging
import RingKit

extension LentImage {
  init(_ image: TapImage) {
    self.init(name: image.name, isReadOnly: image.isReadOnly, isDirect: image.isDirect)
  }
}

extension Lending: TapDoor {
  func open(minor: Int, image: TapImage, path: String) throws(TapError) {
    let directory = (path as NSString).deletingLastPathComponent
    // Others have files of their own there; ours is readable to its owner alone.
    try? FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
    do throws(SystemError) {
      try open(minor: minor, image: LentImage(image), path: path)
    } catch {
      throw TapError(error.errno, "\(image.name) cannot be had over NBD: \(error)")
    }
  }
}

/// The daemon holds the images: for guests' disks, and for taps that no disk uses.
extension Daemon: LendingOwner {
  func letGo(ofTap minor: Int, done: @escaping (VbdError?) -> Void) {
    guard !isStopping else { return done(VbdError("the daemon stops")) }
    guard let image = taps.table[minor]?.image else { return done(VbdError("tap \(minor) is closed")) }
    guard !image.isPaused else { return done(VbdError("tap \(minor) is paused")) }
    // Readers get on with each other.
    let disks = users(of: image.name).filter { !image.isReadOnly || $0.configuration?.isWritable == true }
    lend(disks[...]) { [weak self] refusal in
      guard let self else { return }
      if let refusal {
        for disk in disks { disk.takeBack() }
        return done(refusal)
      }
      guard !image.isReadOnly, let hold = taps.holds.removeValue(forKey: minor) else { return done(nil) }
      lending.close(hold) { done(nil) }
    }
  }

  /// Has one disk after the other let go, until one cannot.
  private func lend(_ disks: ArraySlice<Vbd>, done: @escaping (VbdError?) -> Void) {
    guard let disk = disks.first else { return done(nil) }
    disk.lend { [weak self] refusal in
      if let refusal { return done(refusal) }
      self?.lend(disks.dropFirst(), done: done)
    }
  }

  func lendingEnded(ofTap minor: Int) {
    guard !isStopping, let image = taps.table[minor]?.image, !image.isPaused else { return }
    for disk in users(of: image.name) { disk.takeBack() }
    taps.holdsDue = MonotonicClock.nowNanoseconds()
  }

  func log(_ severity: DeviceSeverity, _ message: String, aboutTap minor: Int) {
    logger.log(level: Logger.Level(severity), "\(message)", metadata: ["tap": "\(minor)"])
  }
}
