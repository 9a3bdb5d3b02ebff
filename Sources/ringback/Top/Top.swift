import ArgumentParser
import Foundation
import RingKit

/// Shows what the disks and interfaces do, live.
struct Top: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract:
      "Show what the disks and network interfaces do: requests, packets and bytes a second, latencies, errors.",
    discussion: """
      On a terminal, the table is drawn anew every interval. Keys: q quits; d, r, b, l, f and e sort by disk, \
      requests, bytes, latency, requests in flight and errors; interfaces by packets, bytes, packets that wait and \
      drops in the place of these. TX is what a guest sends, RX what it is sent. Elsewhere, one table follows \
      another.
      """)

  @OptionGroup var host: HostOptions
  @OptionGroup var daemon: DaemonOptions

  @Option(help: ArgumentHelp("Seconds between two looks (0.1 to 3600).", valueName: "seconds"))
  var interval = 1.0

  @Option(help: "What stands first: disk, requests, bytes, latency, inflight or errors.")
  var sort = TopOrder.requests

  @Flag(help: "Look for one interval, print the table, and end.")
  var once = false

  func validate() throws {
    guard (0.1...3600).contains(interval) else {
      throw ValidationError("--interval is 0.1 to 3600 seconds")
    }
  }

  func run() throws {
    var meter = TopMeter(daemon: host.daemon(daemon))
    // First of all, so that an error stands on the ordinary screen.
    try meter.look()
    // From here on a signal ends the loop, and the terminal is given back.
    let signals = try TerminationSignals()
    let terminal = once ? nil : Terminal()
    defer { terminal?.restore() }
    var view = TopView(order: sort)
    let step = UInt64(interval * 1e9)
    var due = MonotonicClock.nowNanoseconds() + step
    var poll = DescriptorPoll()
    while true {
      let now = MonotonicClock.nowNanoseconds()
      if now < due {
        poll.set([(signals.descriptor, false)] + (terminal.map { [($0.descriptor, false)] } ?? []))
        let ready = try poll.wait(timeoutMilliseconds: Int32(min((due - now) / 1_000_000 + 1, 3_600_000)))
        if signals.next() == .stop { return }
        guard let terminal, ready.contains(terminal.descriptor) else { continue }
        let keys = terminal.keys()
        // q, Ctrl-C, Ctrl-D, Ctrl-\, and a terminal that went away.
        if keys.isEmpty || keys.contains(where: { [0x71, 0x51, 3, 4, 0x1C].contains($0) }) { return }
        for order in TopOrder.allCases where keys.contains(order.key.asciiValue ?? 0) { view.order = order }
      } else {
        try meter.look()
        // After a sleep of the machine, from now on.
        due = max(due + step, now)
        if terminal == nil {
          print(view.lines(meter.rates, meter.vifRates).joined(separator: "\n"))
          if once { return }
          print("")
          fflush(nil)
        }
      }
      if let terminal {
        let size = terminal.size
        terminal.show(
          view.lines(meter.rates, meter.vifRates, columns: size.columns, rows: size.rows))
      }
    }
  }
}

extension TopOrder: ExpressibleByArgument {}

/// Looks at the daemon's numbers and compares with the look before.
struct TopMeter {
  private var daemon: DaemonClient
  private(set) var rates: [DiskRate] = []
  private(set) var vifRates: [VifRate] = []
  private var before: [String: DiskNumbers] = [:]
  private var vifsBefore: [String: VifNumbers] = [:]
  private var time: UInt64 = 0

  init(daemon: DaemonClient) {
    self.daemon = daemon
    // Signals wait meanwhile.
    self.daemon.patienceMilliseconds = 10_000
  }

  mutating func look() throws {
    var question = ControlQuestion(.stats)
    question.steps = true
    let disks = try daemon.ask(question, for: [DiskNumbers].self)
    question.kind = DaemonVifs.kind
    let interfaces = try daemon.ask(question, for: [VifNumbers].self)
    let now = MonotonicClock.nowNanoseconds()
    let seconds = Double(now - time) / 1e9
    rates = disks.map { DiskRate($0, since: before[Self.name($0)], seconds: seconds) }
    before = Dictionary(disks.map { (Self.name($0), $0) }) { first, _ in first }
    vifRates = interfaces.map { VifRate($0, since: vifsBefore[Self.name($0)], seconds: seconds) }
    vifsBefore = Dictionary(interfaces.map { (Self.name($0), $0) }) { first, _ in first }
    time = now
  }

  private static func name(_ interface: VifNumbers) -> String { "\(interface.domain)/\(interface.vif)" }

  private static func name(_ disk: DiskNumbers) -> String { "\(disk.kind)/\(disk.domain)/\(disk.vdev)" }
}
