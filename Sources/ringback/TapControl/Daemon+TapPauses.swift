import Blkback
import Foundation
import Logging
import RingKit

/// Pausing taps: what the storage manager does for a snapshot or while it changes a chain of images.
extension Daemon {
  /// Has every guest's disk that uses the tap's image let go of it; the tap too. The guests see only latency.
  func pauseTap(
    _ minor: Int, _ timeoutSeconds: Int?, done: @escaping (Result<Void, TapError>) -> Void
  ) throws(TapError) {
    var trial = taps.table
    try trial.pause(minor)
    var answer: ((Result<Void, TapError>) -> Void)? = done
    let once: (Result<Void, TapError>) -> Void = { result in
      answer?(result)
      answer = nil
    }
    if let timeoutSeconds {
      let deadline = MonotonicClock.nowNanoseconds() + UInt64(timeoutSeconds) * 1_000_000_000
      taps.waits.append(
        TapWait(deadline: deadline) { isOver in
          if isOver {
            once(
              .failure(
                TapError(
                  ETIMEDOUT, "not paused after \(timeoutSeconds) s; it will be when its requests are done")))
          }
          return isOver || answer == nil
        })
    }
    pauseNext(minor, loss: nil, done: once)
  }

  /// Pauses one disk after the other, until none is left, those that came meanwhile included.
  private func pauseNext(
    _ minor: Int, loss: VbdError?, done: @escaping (Result<Void, TapError>) -> Void
  ) {
    guard let name = taps.table[minor]?.image?.name else {
      return done(.failure(TapError(ENODEV, "minor \(minor) was closed meanwhile")))
    }
    if let disk = users(of: name).first(where: { !$0.isPaused }) {
      return disk.pause { [weak self, weak disk] failure in
        guard let self else { return }
        let isGone = disk.map { disks[$0.identity] !== $0 } ?? true
        if let failure, let disk, !isGone, !disk.isPaused {
          return done(.failure(TapError(failure.errno ?? EIO, failure.description)))
        }
        // A disk that went has let go too; what one could not make durable is told at the end.
        pauseNext(minor, loss: loss ?? (isGone ? nil : failure), done: done)
      }
    }
    do throws(TapError) {
      // What goes on later has to be as large as it is now, which may be more than at the beginning.
      let size = sectorCount(of: minor, name)
      taps.door?.takeBack(minor: minor)
      dropHold(minor)
      try taps.change { (table) throws(TapError) in try table.pause(minor, sectorCount: size) }
      logger.info("tap \(minor) is paused")
      if let loss { throw TapError(EIO, loss.description) }
      done(.success(()))
    } catch {
      done(.failure(error))
    }
  }

  /// Goes on with the same image or with another one of the same size.
  func unpauseTap(
    _ minor: Int, _ name: String?, done: @escaping (Result<Void, TapError>) -> Void
  ) throws(TapError) {
    let old = try taps.table.checkUnpause(minor)
    var new = old
    if let name { new.name = try checkedName(name) }
    let others = taps.taps(of: new.name).filter { $0.minor != minor }
    if let other = others.first(where: { $0.image?.isReadOnly != true || !old.isReadOnly }) {
      throw TapError(EBUSY, "\(new.name) is open as minor \(other.minor)")
    }
    let paused = users(of: old.name).filter(\.isPaused)
    if paused.isEmpty {
      try claim(&new, minor: minor)
      guard new.sectorCount == old.sectorCount else {
        dropHold(minor)
        throw TapError(
          EMEDIUMTYPE,
          "\(new.name) has \(new.sectorCount) sectors of 512 bytes, the tap has \(old.sectorCount); close and open it"
        )
      }
      return done(finishUnpausing(minor, name))
    }
    taps.unpausing.insert(minor)
    unpauseNext(minor, paused[...], resumed: [], name) { [weak self] result in
      self?.taps.unpausing.remove(minor)
      done(result)
    }
  }

  private func unpauseNext(
    _ minor: Int, _ left: ArraySlice<Vbd>, resumed: [Vbd], _ name: String?,
    done: @escaping (Result<Void, TapError>) -> Void
  ) {
    guard let disk = left.first else { return done(finishUnpausing(minor, name)) }
    // Not named, the same image keeps what is known of its losses.
    disk.resume(image: name, allowsResize: false) { [weak self] failure in
      guard let failure else {
        self?.unpauseNext(minor, left.dropFirst(), resumed: resumed + [disk], name, done: done)
        return
      }
      for disk in resumed { disk.pause { _ in } }
      done(.failure(TapError(failure.errno ?? EINVAL, failure.description)))
    }
  }

  private func finishUnpausing(_ minor: Int, _ name: String?) -> Result<Void, TapError> {
    do throws(TapError) {
      try taps.change { (table) throws(TapError) in try table.unpause(minor, name: name) }
      if let tap = taps.table[minor], let process = tap.process, let image = tap.image {
        try openDoor(minor: minor, image, process: process)
        logger.info("tap \(minor) goes on with \(image.name)")
      }
      return .success(())
    } catch {
      return .failure(error)
    }
  }

  // MARK: Telling

  /// The numbers of all guests' disks that use the tap's image.
  func statistics(of minor: Int) throws(TapError) -> TapStatistics {
    let image = try openImage(of: minor)
    let parts = image.name.split(separator: ":", maxSplits: 1).map(String.init)
    var told = TapStatistics(name: image.name)
    var file = TapStatistics.Image(
      name: parts.last ?? image.name, driver: TapStatistics.Driver(prefix: parts.first ?? ""))
    for disk in users(of: image.name) {
      let sample = DiskSample(disk)
      let tally = sample.tally
      told.secs[0] += tally[.read].sectors
      told.secs[1] += tally[.write].sectors &+ tally[.barrier].sectors
      file.fail[0] += tally[.read].failed
      file.fail[1] += tally[.write].failed + tally[.barrier].failed
      told.outstanding += sample.snapshots.reduce(0) { $0 + $1.inFlightCount }
    }
    file.hits = told.secs
    told.images = [file]
    return told
  }

  func information(of minor: Int) throws(TapError) -> TapInfo {
    let image = try openImage(of: minor)
    return TapInfo(
      sectorCount: sectorCount(of: minor, image.name) ?? image.sectorCount,
      sectorByteCount: image.sectorByteCount, flags: image.isReadOnly ? 4 : 0)
  }

  /// The present size of an image that somebody of ours has open.
  private func sectorCount(of minor: Int, _ name: String) -> UInt64? {
    if let disk = users(of: name).first { return disk.properties?.sectorCount }
    return (try? taps.holds[minor]?.refreshByteCount()).map { $0 / 512 }
  }

  private func openImage(of minor: Int) throws(TapError) -> TapImage {
    guard let image = taps.table[minor]?.image else {
      throw TapError(ENODEV, "there is no minor \(minor) that has an image open; `tap-ctl list` shows all")
    }
    return image
  }
}
