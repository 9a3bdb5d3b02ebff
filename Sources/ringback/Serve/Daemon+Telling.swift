import Blkback
import Foundation
import Logging
import RingKit

/// When the daemon does next what nobody asks for, in nanoseconds of CLOCK_MONOTONIC.
struct DaemonChores {
  /// How often the statistics for xentop are brought up to date, while there are disks.
  static let statisticsInterval: UInt64 = 1_000_000_000
  /// How often images are looked at for another size, while there are disks.
  static let sizeInterval: UInt64 = 5_000_000_000
  /// The loss of xenstored shows only in a call, so that the loop looks now and then.
  static let longestSleep: UInt64 = 5_000_000_000

  var statisticsDue: UInt64 = 0
  var sizesDue: UInt64 = 0
  var watchdogDue: UInt64 = 0
}

/// What the daemon tells without being asked, and the regular looks at images.
extension Daemon {
  /// A daemon that cannot tell xentop of its disks serves them all the same.
  func openSharedStatistics() {
    guard let base = configuration.sharedStatisticsDirectory else { return }
    do {
      sharedStatistics = try SharedStatistics(below: base)
    } catch {
      logger.warning("\(error); xentop will not show the disks' numbers")
    }
  }

  /// Milliseconds until something is to be done unasked.
  func timeToNextChore() -> Int32 {
    let now = MonotonicClock.nowNanoseconds()
    var next = now + DaemonChores.longestSleep
    if !disks.isEmpty {
      next = min(next, chores.sizesDue)
      if sharedStatistics != nil { next = min(next, chores.statisticsDue) }
    }
    if let due = tapsDue(atNanoseconds: now) { next = min(next, due) }
    if let due = serviceDue(atNanoseconds: now) { next = min(next, due) }
    if let due = vifs.captures.map(\.endNanoseconds).min() { next = min(next, due) }
    if let metricsFile { next = min(next, metricsFile.nextNanoseconds) }
    if !kernelWait.waiting.isEmpty { next = min(next, now + KernelDeviceWait.stepNanoseconds) }
    return next <= now ? 0 : Int32((next - now) / 1_000_000) + 1
  }

  func doChores(atNanoseconds now: UInt64) {
    for address in kernelWait.waiting { try? look(at: address) }
    socket.dropIdle(atNanoseconds: now)
    lookAtTaps(atNanoseconds: now)
    metricsServer?.dropIdle(atNanoseconds: now)
    if !disks.isEmpty, now >= chores.statisticsDue {
      chores.statisticsDue = now + DaemonChores.statisticsInterval
      updateSharedStatistics()
    }
    if !disks.isEmpty, now >= chores.sizesDue {
      chores.sizesDue = now + DaemonChores.sizeInterval
      for disk in Array(disks.values) { disk.lookAtSize() }
    }
    tellService(atNanoseconds: now)
    do {
      try metricsFile?.writeIfDue(atNanoseconds: now) { metrics() }
    } catch {
      logger.warning("\(error)")
    }
  }

  /// Nobody is told anything from here on.
  func endTelling() {
    sharedStatistics?.remove()
    metricsFile?.remove()
    socket.finish(saying: ControlReply.failure("the daemon stops; the command was not carried out"))
  }

  private func updateSharedStatistics() {
    guard sharedStatistics != nil else { return }
    for (address, disk) in disks {
      do {
        let sample = DiskSample(disk)
        try sharedStatistics?.update(address, sample.snapshots, sample.tally)
      } catch {
        log(.warning, "xentop will not show its numbers: \(error)", about: address)
      }
    }
  }

  /// All disks, in order.
  var samples: [DiskSample] {
    disks.values.map { DiskSample($0) }.sorted {
      ($0.address.domain.rawValue, $0.address.device, $0.address.kind)
        < ($1.address.domain.rawValue, $1.address.device, $1.address.kind)
    }
  }

  /// All interfaces, in order.
  var vifSamples: [VifSample] {
    vifs.devices.values.map { VifSample($0) }.sorted {
      ($0.address.domain.rawValue, $0.address.device) < ($1.address.domain.rawValue, $1.address.device)
    }
  }

  /// The numbers for Prometheus.
  func metrics() -> String {
    MetricsText.write(
      samples, interfaces: vifSamples,
      daemon: [
        ("version", Ringback.version), ("hypervisor", host.name), ("threads", "\(threads.count)"),
        ("engine", engineName),
      ])
  }
}

extension DiskSample {
  /// What the daemon knows of a disk.
  init(_ disk: Vbd) {
    address = disk.identity
    state = disk.state.map { "\($0)" } ?? "none"
    isConnected = disk.state == .connected
    image = disk.configuration?.image ?? ""
    mode = disk.configuration.map { $0.isWritable ? ($0.isShared ? "w!" : "w") : "r" } ?? ""
    isPaused = disk.isPaused
    byteCount = (disk.properties?.sectorCount ?? 0) * 512
    usesPersistentGrants = disk.usesPersistentGrants
    limits = disk.limits.isLimited ? LimitReport(disk.limits) : nil
    guard let (statistics, slots) = disk.connectionNumbers else { return }
    slotCount = slots
    queues = statistics.map { ($0.snapshot, $0.tally) }
  }
}

extension LimitReport {
  init(_ limits: RateLimits) {
    bytesPerSecond = limits.bytesPerSecond
    bytesBurst = limits.bytesBurst
    requestsPerSecond = limits.requestsPerSecond
    requestsBurst = limits.requestsBurst
  }
}
