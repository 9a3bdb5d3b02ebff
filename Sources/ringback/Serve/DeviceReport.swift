import Blkback
import Foundation
import RingKit

/// What is told of a device: by the daemon on its control socket, and by `ringback list --json`.
struct DeviceReport: Codable, Equatable {
  var domain: UInt16
  var vdev: UInt32
  var name: String
  var kind: String
  var state: String
  var image: String
  var mode: String
  var error: String?
  var isPaused: Bool?
  var statistics: Statistics?

  /// Numbers since the device last connected. Sectors are 512 bytes.
  struct Statistics: Codable, Equatable {
    var reads: UInt64 = 0
    var writes: UInt64 = 0
    var flushes: UInt64 = 0
    var discards: UInt64 = 0
    var sectorsRead: UInt64 = 0
    var sectorsWritten: UInt64 = 0
    var errors: UInt64 = 0
    var unsupported: UInt64 = 0
    var rejected: UInt64 = 0
    var fsyncs: UInt64 = 0
    var grantCopies: UInt64 = 0
    var notifications: UInt64 = 0
    var kicks: UInt64 = 0
    var spuriousKicks: UInt64 = 0
    var inFlight = 0
    /// Guest pages that are mapped now, and that were mapped since the device connected.
    var persistentGrants = 0
    var grantsMapped: UInt64 = 0
    var usesPersistentGrants = false
    var queues = 0
    var ringSlots = 0

    init(_ sample: DiskSample) {
      let tally = sample.tally
      for snapshot in sample.snapshots {
        let counters = snapshot.counters
        fsyncs += counters.mediumFlushes
        grantCopies += counters.grantCopies
        notifications += counters.notifications
        kicks += counters.kicks
        spuriousKicks += counters.spuriousKicks
        inFlight += snapshot.inFlightCount
        persistentGrants += snapshot.persistentPageCount
        grantsMapped += snapshot.mapCount
      }
      reads = tally[.read].completed
      writes = tally[.write].completed + tally[.barrier].completed
      flushes = tally[.flush].completed
      discards = tally[.discard].completed
      sectorsRead = tally[.read].sectors
      sectorsWritten = tally[.write].sectors &+ tally[.barrier].sectors &+ tally[.flush].sectors
      errors = tally.errorCount
      unsupported = BlockRequestKind.allCases.reduce(0) { $0 + tally[$1].unsupported }
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
    domain = sample.address.domain.rawValue
    vdev = sample.address.device
    name = sample.name
    kind = sample.address.kind
    state = sample.state
    image = sample.image
    mode = sample.mode
    isPaused = sample.isPaused
    statistics = sample.queues.isEmpty ? nil : Statistics(sample)
  }
}
