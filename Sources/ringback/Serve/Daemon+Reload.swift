import Blkback
import Logging
import RingKit

/// SIGHUP: the configuration is read again.
extension Daemon {
  /// Reads the configuration again and brings into force what can change now. One that is not in order
  /// changes nothing.
  func reload() {
    guard !isStopping else { return }
    service.tell(.reloading(sinceNanoseconds: MonotonicClock.nowNanoseconds()))
    defer { service.tell(.ready) }
    let source = configuration.source
    let read: DaemonSettings
    do throws(ConfigurationFailure) {
      read = try source.load()
    } catch {
      for complaint in error.complaints { logger.error("\(complaint)") }
      logger.error("the configuration in force stays as it is")
      return
    }
    let changed = Setting.all.filter { !$0.isSame(read, settings) }
    // First of all: somebody who asks for silence means the rest of this too.
    if let level = read.logLevel?.level { logger.logLevel = level }
    var next = settings
    for setting in changed where setting.isLive { setting.replace(read, &next) }
    keepMetricsListener(&next, as: read)
    for setting in changed {
      let change = "\(setting.shown(read)) instead of \(setting.shown(settings))"
      if !setting.isLive {
        logger.warning("\(setting.place) is to be \(change): that takes a restart of the daemon")
      } else if setting.isSame(read, next) {
        logger.notice("\(setting.place) is \(change) now")
      }
    }
    bringIntoForce(next)
    logger.notice(
      changed.isEmpty ? "configuration read again; nothing has changed" : "configuration read again",
      metadata: source.path.map { ["file": "\($0)"] })
  }

  /// Listens elsewhere, if that is wanted and can be done; the only change that can fail.
  private func keepMetricsListener(_ next: inout DaemonSettings, as read: DaemonSettings) {
    guard read.metricsListen != settings.metricsListen else { return }
    do {
      metricsServer = try read.metricsAddress.map { try MetricsServer($0) }
    } catch {
      logger.error("\(error); \(settings.metricsListen ?? "nothing") stays")
      next.metricsListen = settings.metricsListen
    }
  }

  private func bringIntoForce(_ next: DaemonSettings) {
    offer = next.offer
    if let limits = try? next.limits, limits != defaultLimits {
      defaultLimits = limits
      for disk in Array(disks.values) { disk.lookAtLimits() }
    }
    if next.poll != settings.poll {
      let nanoseconds = next.threadConfiguration.pollNanoseconds
      for thread in threads { thread.perform { $0.setPolling(nanoseconds: nanoseconds) } }
    }
    if (next.metricsFile, next.metricsInterval) != (settings.metricsFile, settings.metricsInterval) {
      if next.metricsFile != settings.metricsFile { metricsFile?.remove() }
      metricsFile = next.metrics
    }
    settings = next
  }
}
