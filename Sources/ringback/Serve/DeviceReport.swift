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
  var statistics: Statistics?

  /// Numbers since the device last connected. Sectors are 512 bytes.
  struct Statistics: Codable, Equatable {
    var reads: UInt64 = 0
    var writes: UInt64 = 0
    var flushes: UInt64 = 0
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

    /// Adds one queue's numbers.
    mutating func add(_ snapshot: BlockStatistics.Snapshot) {
      let counters = snapshot.counters
      reads += counters.reads
      writes += counters.writes
      flushes += counters.flushes
      sectorsRead += counters.sectorsRead
      sectorsWritten += counters.sectorsWritten
      errors += counters.errors
      unsupported += counters.unsupported
      rejected += counters.rejected
      fsyncs += counters.mediumFlushes
      grantCopies += counters.grantCopies
      notifications += counters.notifications
      kicks += counters.kicks
      spuriousKicks += counters.spuriousKicks
      inFlight += snapshot.inFlightCount
      persistentGrants += snapshot.persistentPageCount
      grantsMapped += snapshot.mapCount
    }
  }
}
