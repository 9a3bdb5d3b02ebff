/// What an interface did between two looks at its numbers. Directions are the guest's.
struct VifRate {
  /// The later look.
  let interface: VifNumbers
  var transmittedPacketsPerSecond = 0.0
  var receivedPacketsPerSecond = 0.0
  var transmittedBytesPerSecond = 0.0
  var receivedBytesPerSecond = 0.0
  /// Packets lost since the interface connected.
  var drops: UInt64

  var packetsPerSecond: Double { transmittedPacketsPerSecond + receivedPacketsPerSecond }
  var bytesPerSecond: Double { transmittedBytesPerSecond + receivedBytesPerSecond }

  /// Compares two looks at the same interface, `seconds` apart. One that connected anew in between has counted
  /// from zero.
  init(_ interface: VifNumbers, since before: VifNumbers?, seconds: Double) {
    self.interface = interface
    let new = interface.total ?? NetNumbers()
    drops = new.drops
    guard let before, seconds > 0 else { return }
    var old = before.total ?? NetNumbers()
    if old.transmit.slots > new.transmit.slots || old.receive.slots > new.receive.slots { old = NetNumbers() }
    func rate(_ number: KeyPath<NetNumbers, UInt64>) -> Double {
      let (later, earlier) = (new[keyPath: number], old[keyPath: number])
      return later > earlier ? Double(later - earlier) / seconds : 0
    }
    transmittedPacketsPerSecond = rate(\.transmit.packets)
    receivedPacketsPerSecond = rate(\.receive.packets)
    transmittedBytesPerSecond = rate(\.transmit.bytes)
    receivedBytesPerSecond = rate(\.receive.bytes)
  }
}

extension TopOrder {
  /// Whether `left` stands above `right`: requests are packets, and errors are drops. What interfaces do not
  /// have leaves them in their own order.
  func areInOrder(_ left: VifRate, _ right: VifRate) -> Bool {
    let byNumber =
      (left.interface.domain, left.interface.vif) < (right.interface.domain, right.interface.vif)
    func most<Value: Comparable>(_ number: (VifRate) -> Value) -> Bool {
      number(left) == number(right) ? byNumber : number(left) > number(right)
    }
    return switch self {
    case .disk, .latency: byNumber
    case .requests: most(\.packetsPerSecond)
    case .bytes: most(\.bytesPerSecond)
    case .inflight: most { $0.interface.total?.parked ?? 0 }
    case .errors: most(\.drops)
    }
  }
}

/// The interfaces' table of `ringback top`.
enum TopVifTable {
  static let header = [
    "DOM", "VIF", "STATE", "TX PKT/S", "RX PKT/S", "TX MB/S", "RX MB/S", "PARKED", "QUEUES", "DROPS", "LINK",
  ]

  /// Columns that go first when the terminal is narrow.
  static let dispensable = [10, 8, 2, 7, 6, 5]

  /// One line above, then the table; nothing when there are no interfaces.
  static func lines(_ rates: [VifRate], by order: TopOrder, columns: Int?) -> [String] {
    guard !rates.isEmpty else { return [] }
    let sorted = rates.sorted(by: order.areInOrder)
    var shown = Array(header.indices)
    var lines = table(sorted, shown)
    if let columns {
      for column in dispensable {
        guard let width = lines.map(\.count).max(), width > columns else { break }
        shown.removeAll { $0 == column }
        lines = table(sorted, shown)
      }
    }
    return [summary(sorted), ""] + lines
  }

  private static func summary(_ rates: [VifRate]) -> String {
    let packets = rates.reduce(0) { $0 + $1.packetsPerSecond }
    let bytes = rates.reduce(0) { $0 + $1.bytesPerSecond }
    let connected = rates.count { ($0.interface.queueCount ?? 0) > 0 }
    return "\(rates.count) interfaces, \(connected) connected, \(Int(packets.rounded())) packets/s, "
      + "\(TopView.megabytes(bytes)) MB/s"
  }

  private static func table(_ rates: [VifRate], _ shown: [Int]) -> [String] {
    let rows = rates.map { rate in
      let interface = rate.interface
      let cells = [
        "\(interface.domain)", "\(interface.vif)", TopView.clean(interface.shownState),
        "\(Int(rate.transmittedPacketsPerSecond.rounded()))",
        "\(Int(rate.receivedPacketsPerSecond.rounded()))", TopView.megabytes(rate.transmittedBytesPerSecond),
        TopView.megabytes(rate.receivedBytesPerSecond), "\(interface.total?.parked ?? 0)",
        "\(interface.queueCount ?? 0)", "\(rate.drops)", TopView.clean(interface.link),
      ]
      return shown.map { cells[$0] }
    }
    let numbers = Set(shown.indices.filter { shown[$0] == 1 || (3...9).contains(shown[$0]) })
    return TextTable.lines(shown.map { header[$0] }, rows, rightAligned: numbers)
  }
}
