import Foundation

/// What `ringback top` sorts by, most first; the letter chooses it.
enum TopOrder: String, CaseIterable {
  case disk, requests, bytes, latency, inflight, errors

  var key: Character {
    switch self {
    case .disk: "d"
    case .requests: "r"
    case .bytes: "b"
    case .latency: "l"
    case .inflight: "f"
    case .errors: "e"
    }
  }

  /// Whether `left` stands above `right`.
  func areInOrder(_ left: DiskRate, _ right: DiskRate) -> Bool {
    let byDisk = (left.disk.domain, left.disk.vdev) < (right.disk.domain, right.disk.vdev)
    func most<Value: Comparable>(_ number: (DiskRate) -> Value) -> Bool {
      number(left) == number(right) ? byDisk : number(left) > number(right)
    }
    return switch self {
    case .disk: byDisk
    case .requests: most(\.requestsPerSecond)
    case .bytes: most(\.bytesPerSecond)
    case .latency: most(\.p99)
    case .inflight: most(\.disk.total.inFlight)
    case .errors: most(\.errors)
    }
  }
}

/// The tables of `ringback top` as lines of text.
struct TopView {
  var order = TopOrder.requests

  static let header = [
    "DOM", "DISK", "STATE", "READ/S", "WRITE/S", "READ MB/S", "WRITE MB/S", "FLIGHT", "DEPTH", "P50", "P99",
    "ERRORS", "IMAGE",
  ]

  /// Columns that go first when the terminal is narrow.
  static let dispensable = [12, 8, 2, 9, 6, 5]

  /// The lines for a terminal of `columns` and `rows`; nil for one without bounds.
  func lines(
    _ rates: [DiskRate], _ interfaces: [VifRate] = [], columns: Int? = nil, rows: Int? = nil
  ) -> [String] {
    let sorted = rates.sorted(by: order.areInOrder)
    var shown = Array(Self.header.indices)
    var table = Self.table(sorted, shown)
    if let columns {
      // The image alone may be cut; everything else is shown whole or not at all.
      for column in Self.dispensable {
        let width =
          table.map { line in column == 12 ? Self.widthWithoutImage(line, table[0]) + 5 : line.count }.max()
          ?? 0
        guard width > columns else { break }
        shown.removeAll { $0 == column }
        table = Self.table(sorted, shown)
      }
    }
    var lines = [summary(sorted), ""] + table
    if sorted.isEmpty { lines.append("no disks are served") }
    let below = TopVifTable.lines(interfaces, by: order, columns: columns)
    if !below.isEmpty { lines = sorted.isEmpty ? below : lines + [""] + below }
    if let rows, lines.count > rows {
      let hidden = lines.count - rows + 1
      lines = Array(lines.prefix(max(0, rows - 1))) + ["... \(hidden) more"]
    }
    guard let columns else { return lines }
    return lines.map { String($0.prefix(columns)) }
  }

  private func summary(_ rates: [DiskRate]) -> String {
    let requests = rates.reduce(0) { $0 + $1.requestsPerSecond }
    let bytes = rates.reduce(0) { $0 + $1.bytesPerSecond }
    let connected = rates.count { $0.disk.queueCount > 0 }
    return "\(rates.count) disks, \(connected) connected, \(Int(requests.rounded())) requests/s, "
      + "\(Self.megabytes(bytes)) MB/s, by \(order.rawValue)"
  }

  private static func table(_ rates: [DiskRate], _ shown: [Int]) -> [String] {
    let rows = rates.map { rate in
      let cells = [
        "\(rate.disk.domain)", clean(rate.disk.name), rate.disk.isPaused ? "Paused" : clean(rate.disk.state),
        "\(Int(rate.readsPerSecond.rounded()))", "\(Int(rate.writesPerSecond.rounded()))",
        megabytes(rate.bytesReadPerSecond), megabytes(rate.bytesWrittenPerSecond),
        "\(rate.disk.total.inFlight)", "\(rate.disk.queueDepth)",
        DurationText(nanoseconds: rate.median).description,
        DurationText(nanoseconds: rate.p99).description, "\(rate.errors)", clean(rate.disk.image),
      ]
      return shown.map { cells[$0] }
    }
    let numbers = Set(shown.indices.filter { (3...11).contains(shown[$0]) })
    return TextTable.lines(shown.map { header[$0] }, rows, rightAligned: numbers)
  }

  private static func widthWithoutImage(_ line: String, _ header: String) -> Int {
    header.range(of: "IMAGE").map { header.distance(from: header.startIndex, to: $0.lowerBound) }
      ?? line.count
  }

  /// Names come from xenstore, and a terminal obeys what is written to it.
  static func clean(_ text: String) -> String {
    String(text.map { $0.unicodeScalars.contains { $0.properties.generalCategory == .control } ? "?" : $0 })
  }

  static func megabytes(_ bytes: Double) -> String {
    let megabytes = bytes / 1e6
    return megabytes >= 100 ? "\(Int(megabytes.rounded()))" : "\((megabytes * 10).rounded() / 10)"
  }
}
