import Blkback
import RingKit

/// What is known of a disk at one moment, for all that tell of it.
struct DiskSample {
  var address: DeviceAddress
  var state: String
  var isConnected = false
  var image = ""
  var mode = ""
  var isPaused = false
  /// Bytes of the disk; 0 for an empty drive.
  var byteCount: UInt64 = 0
  var limits: LimitReport?
  var usesPersistentGrants = false
  /// Slots of each ring.
  var slotCount = 0
  /// Each queue's numbers since the disk last connected.
  var queues: [(snapshot: BlockStatistics.Snapshot, tally: BlockTally)] = []

  /// The disk's name in the guest.
  var name: String { VirtualDevice(number: address.device).description }

  var snapshots: [BlockStatistics.Snapshot] { queues.map(\.snapshot) }

  /// All queues' requests together.
  var tally: BlockTally {
    var total = BlockTally()
    for queue in queues { total.add(queue.tally) }
    return total
  }
}

extension DiskNumbers {
  /// Makes a sample readable; `perQueue` tells of each queue too, `withSteps` of each latency's steps.
  init(_ sample: DiskSample, perQueue: Bool, withSteps: Bool) {
    self.init(DiskHeader(sample), DiskDetails(sample, perQueue: perQueue, withSteps: withSteps))
  }
}

extension DiskDetails {
  fileprivate init(_ sample: DiskSample, perQueue: Bool, withSteps: Bool) {
    isPaused = sample.isPaused
    byteCount = sample.byteCount
    limits = sample.limits
    queueCount = sample.queues.count
    queueDepth = sample.queues.count * sample.slotCount
    usesPersistentGrants = sample.usesPersistentGrants
    total = QueueNumbers(sample.snapshots, sample.tally, withSteps: withSteps)
    if perQueue {
      queues = sample.queues.map { QueueNumbers([$0.snapshot], $0.tally, withSteps: withSteps) }
    }
  }
}
