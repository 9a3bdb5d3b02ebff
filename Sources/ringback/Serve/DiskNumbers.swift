import Blkback
import Foundation
import RingKit

/// What `ringback stats` tells of a disk: numbers since it last connected.
typealias DiskNumbers = DiskAccount<DiskDetails>

/// What `ringback stats` tells beside which disk it is.
struct DiskDetails: Codable, Equatable {
  var isPaused = false
  /// Bytes of the disk; 0 for an empty drive.
  var byteCount: UInt64 = 0
  var limits: LimitReport?
  var queueCount = 0
  /// Slots of all rings together: the most requests that can be in flight.
  var queueDepth = 0
  var usesPersistentGrants = false
  /// All queues together.
  var total = QueueNumbers()
  /// Each of them, when asked for.
  var queues: [QueueNumbers]?
}

/// The numbers of one queue, or of several together.
struct QueueNumbers: Codable, Equatable {
  var inFlight = 0
  /// By kind: read, write, flush, barrier, discard, other.
  var requests: [String: KindNumbers] = [:]
  /// By reason, those that came.
  var refusals: [String: UInt64] = [:]
  var indirectRequests: UInt64 = 0
  /// Flushes that reached the medium.
  var mediumFlushes: UInt64 = 0
  var grantCopies: UInt64 = 0
  /// Guest pages that are mapped now, and that were mapped since the disk connected.
  var persistentGrants = 0
  var grantsMapped: UInt64 = 0
  /// Events sent to the guest, received from it, and of these those that found nothing to do.
  var notifications: UInt64 = 0
  var kicks: UInt64 = 0
  var spuriousKicks: UInt64 = 0

  /// Requests answered with an error, whoever was at fault.
  var errors: UInt64 { requests.values.reduce(0) { $0 + $1.failed } }
}

/// The numbers of one kind of request.
struct KindNumbers: Codable, Equatable {
  /// Requests answered OKAY, ERROR and EOPNOTSUPP.
  var completed: UInt64 = 0
  var failed: UInt64 = 0
  var unsupported: UInt64 = 0
  /// Bytes of those answered OKAY.
  var bytes: UInt64 = 0
  var latency = LatencyNumbers()
}

/// Durations in nanoseconds from a request's being taken to its answer; quantiles are rounded up by at most
/// 1/16.
struct LatencyNumbers: Codable, Equatable {
  var count: UInt64 = 0
  var total: UInt64 = 0
  var minimum: UInt64 = 0
  var maximum: UInt64 = 0
  var median: UInt64 = 0
  var p90: UInt64 = 0
  var p99: UInt64 = 0
  var p999: UInt64 = 0
  /// When asked for: steps that hold something, each as its longest duration and how many it holds.
  var steps: [[UInt64]]?

  init() {}

  init(_ histogram: LatencyHistogram, withSteps: Bool) {
    count = histogram.count
    total = histogram.total
    minimum = histogram.minimum
    maximum = histogram.maximum
    median = histogram.quantile(0.5)
    p90 = histogram.quantile(0.9)
    p99 = histogram.quantile(0.99)
    p999 = histogram.quantile(0.999)
    steps = withSteps ? histogram.filledSteps.map { [$0.upTo, $0.count] } : nil
  }
}

extension BlockRequestKind {
  /// Its name in answers and metrics.
  var name: String {
    switch self {
    case .read: "read"
    case .write: "write"
    case .flush: "flush"
    case .barrier: "barrier"
    case .discard: "discard"
    case .other: "other"
    }
  }
}

extension QueueNumbers {
  /// Makes readable what a queue, or several, have counted.
  init(_ snapshots: [BlockStatistics.Snapshot], _ tally: BlockTally, withSteps: Bool) {
    for snapshot in snapshots {
      inFlight += snapshot.inFlightCount
      mediumFlushes += snapshot.counters.mediumFlushes
      grantCopies += snapshot.counters.grantCopies
      persistentGrants += snapshot.persistentPageCount
      grantsMapped += snapshot.mapCount
      notifications += snapshot.counters.notifications
      kicks += snapshot.counters.kicks
      spuriousKicks += snapshot.counters.spuriousKicks
    }
    indirectRequests = tally.indirectCount
    for kind in BlockRequestKind.allCases {
      let counted = tally[kind]
      requests[kind.name] = KindNumbers(
        completed: counted.completed, failed: counted.failed, unsupported: counted.unsupported,
        bytes: counted.byteCount, latency: LatencyNumbers(counted.latency, withSteps: withSteps))
    }
    for reason in RejectReason.allCases where tally.refusals(for: reason) > 0 {
      refusals["\(reason)"] = tally.refusals(for: reason)
    }
  }
}
