import Blkback
import RingKit

/// What is told of a device: by the daemon on its control socket, and by `ringback list --json`.
typealias DeviceReport = DiskAccount<DeviceDetails>

/// What `ringback list` tells beside which disk it is.
struct DeviceDetails: Codable, Equatable {
  var error: String?
  var isPaused: Bool?
  var statistics: Statistics?

  /// Numbers since the device last connected. Sectors are 512 bytes.
  struct Statistics: Codable, Equatable {
    var reads: UInt64
    var writes: UInt64
    var flushes: UInt64
    var discards: UInt64
    var sectorsRead: UInt64
    var sectorsWritten: UInt64
    var errors: UInt64
    var unsupported: UInt64
    var rejected: UInt64
    var fsyncs: UInt64
    var grantCopies: UInt64
    var notifications: UInt64
    var kicks: UInt64
    var spuriousKicks: UInt64
    var inFlight: Int
    /// Guest pages that are mapped now, and that were mapped since the device connected.
    var persistentGrants: Int
    var grantsMapped: UInt64
    var usesPersistentGrants: Bool
    var queues: Int
    var ringSlots: Int

    init(_ sample: DiskSample) {
      let tally = sample.tally
      let total = QueueNumbers(sample.snapshots, tally, withSteps: false)
      fsyncs = total.mediumFlushes
      grantCopies = total.grantCopies
      notifications = total.notifications
      kicks = total.kicks
      spuriousKicks = total.spuriousKicks
      inFlight = total.inFlight
      persistentGrants = total.persistentGrants
      grantsMapped = total.grantsMapped
      reads = tally[.read].completed
      writes = tally[.write].completed + tally[.barrier].completed
      flushes = tally[.flush].completed
      discards = tally[.discard].completed
      sectorsRead = tally[.read].sectors
      sectorsWritten = tally[.write].sectors &+ tally[.barrier].sectors &+ tally[.flush].sectors
      errors = total.errors
      unsupported = total.requests.values.reduce(0) { $0 + $1.unsupported }
      rejected = tally.refusalCount
      queues = sample.queues.count
      ringSlots = sample.slotCount
      usesPersistentGrants = sample.usesPersistentGrants
    }
  }
}

extension DeviceReport {
  /// What the daemon knows of a disk.
  init(_ sample: DiskSample) {
    self.init(
      DiskHeader(sample),
      DeviceDetails(
        isPaused: sample.isPaused, statistics: sample.queues.isEmpty ? nil : .init(sample)))
  }
}
