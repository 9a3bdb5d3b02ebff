/// What a disk did between two looks at its numbers.
struct DiskRate {
  /// The later look.
  let disk: DiskNumbers
  var readsPerSecond = 0.0
  var writesPerSecond = 0.0
  var bytesReadPerSecond = 0.0
  var bytesWrittenPerSecond = 0.0
  /// Latencies of the requests in between, in nanoseconds; 0 when there were none.
  var median: UInt64 = 0
  var p99: UInt64 = 0
  /// Errors in between, and since the disk connected.
  var newErrors: UInt64 = 0
  var errors: UInt64

  var requestsPerSecond: Double { readsPerSecond + writesPerSecond }
  var bytesPerSecond: Double { bytesReadPerSecond + bytesWrittenPerSecond }

  /// Compares two looks at the same disk, `seconds` apart. A disk that connected anew in between has counted
  /// from zero.
  init(_ disk: DiskNumbers, since before: DiskNumbers?, seconds: Double) {
    self.disk = disk
    errors = disk.total.errors
    guard let before, seconds > 0 else { return }
    let old = disk.total.answered >= before.total.answered ? before.total : QueueNumbers()
    func grown(_ name: String, _ number: (KindNumbers) -> UInt64) -> UInt64 {
      let (new, old) = (disk.total.requests[name].map(number) ?? 0, old.requests[name].map(number) ?? 0)
      return new > old ? new - old : 0
    }
    let writing = ["write", "flush", "barrier", "discard"]
    readsPerSecond = Double(grown("read", \.answered)) / seconds
    writesPerSecond = Double(writing.reduce(0) { $0 + grown($1, \.answered) }) / seconds
    bytesReadPerSecond = Double(grown("read", \.bytes)) / seconds
    bytesWrittenPerSecond =
      Double(writing.filter { $0 != "discard" }.reduce(0) { $0 + grown($1, \.bytes) }) / seconds
    newErrors = errors > old.errors ? errors - old.errors : 0
    (median, p99) = Self.quantiles(disk.total, since: old)
  }

  /// The 0.5 and 0.99 quantiles of all reads and writes in between, from the histograms' steps.
  private static func quantiles(_ new: QueueNumbers, since old: QueueNumbers) -> (UInt64, UInt64) {
    var steps: [UInt64: UInt64] = [:]
    for name in ["read", "write", "flush", "barrier"] {
      for step in new.requests[name]?.latency.steps ?? [] where step.count == 2 {
        steps[step[0], default: 0] += step[1]
      }
      for step in old.requests[name]?.latency.steps ?? [] where step.count == 2 {
        let count = steps[step[0], default: 0]
        steps[step[0]] = count > step[1] ? count - step[1] : 0
      }
    }
    let sorted = steps.filter { $0.value > 0 }.sorted { $0.key < $1.key }
    let total = sorted.reduce(0) { $0 + $1.value }
    func quantile(_ share: Double) -> UInt64 {
      let wanted = UInt64((share * Double(total)).rounded(.up))
      var seen: UInt64 = 0
      for step in sorted {
        seen += step.value
        if seen >= wanted { return step.key }
      }
      return 0
    }
    return total == 0 ? (0, 0) : (quantile(0.5), quantile(0.99))
  }
}

extension KindNumbers {
  /// Requests answered, whatever the answer.
  var answered: UInt64 { completed + failed + unsupported }
}

extension QueueNumbers {
  /// Requests answered, of all kinds.
  var answered: UInt64 { requests.values.reduce(0) { $0 + $1.answered } }
}
