import Foundation
import RingKit
import Testing

@testable import Blkback
@testable import ringback

/// What programs read of a disk: every name and number of it.
@Suite struct ReportTests {
  /// A disk of two queues, of which every number is another.
  private func sample() -> DiskSample {
    var sample = DiskSample(
      address: DeviceAddress(kind: "vbd3", domain: DomainID(rawValue: 7), device: 51712), state: "Connected")
    (sample.image, sample.mode) = ("raw:/srv/disk.img", "w")
    (sample.isConnected, sample.isPaused, sample.usesPersistentGrants) = (true, true, true)
    (sample.byteCount, sample.slotCount) = (1 << 30, 32)
    var limits = LimitReport()
    (limits.bytesPerSecond, limits.requestsBurst) = (4096, 9)
    sample.limits = limits
    for queue in 1...2 as ClosedRange<UInt64> {
      var tally = BlockTally()
      for (index, kind) in BlockRequestKind.allCases.enumerated() {
        for _ in 0..<UInt64(index + 1) * queue {
          tally.note(BlockOutcome(kind: kind, status: .okay, sectorCount: 8, nanoseconds: 1000 * queue))
        }
        tally.note(
          BlockOutcome(kind: kind, status: .error, isIndirect: true, rejection: RejectReason.allCases.first))
        if kind == .other { tally.note(BlockOutcome(kind: kind, status: .notSupported, nanoseconds: 1)) }
      }
      var snapshot = BlockStatistics.Snapshot()
      (snapshot.inFlightCount, snapshot.persistentPageCount, snapshot.mapCount) = (1, 2, 10 * queue)
      snapshot.counters.mediumFlushes = 100 * queue
      snapshot.counters.grantCopies = 101 * queue
      snapshot.counters.notifications = 102 * queue
      snapshot.counters.kicks = 103 * queue
      snapshot.counters.spuriousKicks = 104 * queue
      sample.queues.append((snapshot, tally))
    }
    return sample
  }

  /// The JSON as "name.name=value" words, in order.
  private func words(_ report: some Encodable, where isWanted: (String) -> Bool = { _ in true }) throws
    -> String
  {
    func flatten(_ value: Any, _ name: String) -> [String] {
      guard let object = value as? [String: Any] else { return ["\(name)=\(value)"] }
      return object.flatMap { flatten($1, name.isEmpty ? $0 : "\(name).\($0)") }
    }
    let whole = try JSONSerialization.jsonObject(with: Data(report.json().utf8))
    return flatten(whole, "").filter(isWanted).sorted().joined(separator: " ")
  }

  @Test func aListedDisk() throws {
    #expect(
      try words(DeviceReport(sample())) == """
        domain=7 image=raw:/srv/disk.img isPaused=1 kind=vbd3 mode=w name=xvda state=Connected \
        statistics.discards=15 statistics.errors=12 statistics.flushes=9 statistics.fsyncs=300 \
        statistics.grantCopies=303 statistics.grantsMapped=30 statistics.inFlight=2 statistics.kicks=309 \
        statistics.notifications=306 statistics.persistentGrants=4 statistics.queues=2 statistics.reads=3 \
        statistics.rejected=12 statistics.ringSlots=32 statistics.sectorsRead=24 \
        statistics.sectorsWritten=216 statistics.spuriousKicks=312 statistics.unsupported=2 \
        statistics.usesPersistentGrants=1 statistics.writes=18 vdev=51712
        """)
    let read = try JSONDecoder().decode(DeviceReport.self, from: Data(DeviceReport(sample()).json().utf8))
    #expect(read == DeviceReport(sample()))
  }

  @Test func aDisksNumbers() throws {
    let numbers = DiskNumbers(sample(), perQueue: false, withSteps: false)
    #expect(
      try words(numbers) { !$0.hasPrefix("total.requests.") || $0.hasPrefix("total.requests.other.") } == """
        byteCount=1073741824 domain=7 image=raw:/srv/disk.img isPaused=1 kind=vbd3 limits.bytesBurst=0 \
        limits.bytesPerSecond=4096 limits.requestsBurst=9 limits.requestsPerSecond=0 mode=w name=xvda \
        queueCount=2 queueDepth=64 state=Connected total.grantCopies=303 total.grantsMapped=30 \
        total.inFlight=2 total.indirectRequests=12 total.kicks=309 total.mediumFlushes=300 \
        total.notifications=306 total.persistentGrants=4 total.refusals.unknown operation=12 \
        total.requests.other.bytes=73728 total.requests.other.completed=18 total.requests.other.failed=2 \
        total.requests.other.latency.count=20 total.requests.other.latency.maximum=2000 \
        total.requests.other.latency.median=2000 total.requests.other.latency.minimum=1 \
        total.requests.other.latency.p90=2000 total.requests.other.latency.p999=2000 \
        total.requests.other.latency.p99=2000 total.requests.other.latency.total=30002 \
        total.requests.other.unsupported=2 total.spuriousKicks=312 usesPersistentGrants=1 vdev=51712
        """)
    #expect(Set(numbers.total.requests.keys) == Set(BlockRequestKind.allCases.map(\.name)))
    let whole = DiskNumbers(sample(), perQueue: true, withSteps: true)
    #expect(try JSONDecoder().decode(DiskNumbers.self, from: Data(whole.json().utf8)) == whole)
    #expect(whole.queues?.map(\.kicks) == [103, 206])
    #expect(whole.total.requests["read"]?.latency.steps?.map(\.last) == [1, 2])
  }
}
