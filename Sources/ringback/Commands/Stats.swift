import ArgumentParser
import Blkback
import Foundation
import RingKit

/// Tells what disks have done.
struct Stats: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Tell what the disks have done since they connected: requests, bytes, errors and latencies.")

  @OptionGroup var host: HostOptions
  @OptionGroup var daemon: DaemonOptions

  @Option(name: .shortAndLong, help: ArgumentHelp("Only the disks of this domain.", valueName: "domid"))
  var domain: UInt16?

  @Option(name: .shortAndLong, help: ArgumentHelp("Only this disk, such as xvda.", valueName: "name"))
  var vdev: VirtualDeviceArgument?

  @Flag(help: "Tell of each queue.")
  var queues = false

  @Flag(help: "Print JSON.")
  var json = false

  func run() throws {
    var question = ControlQuestion(.stats)
    question.domain = domain
    question.vdev = vdev?.device.number
    question.queues = queues
    let disks = try host.daemon(daemon).ask(question, for: [DiskNumbers].self)
    guard !disks.isEmpty || (domain == nil && vdev == nil) else {
      throw CommandError("no such disk is served; `ringback list` shows what is")
    }
    print(json ? try disks.json() : Self.text(disks))
  }

  static func text(_ disks: [DiskNumbers]) -> String {
    disks.isEmpty ? "no disks" : disks.map(text).joined(separator: "\n\n")
  }

  private static func text(_ disk: DiskNumbers) -> String {
    var lines = [
      "\(disk.name) of domain \(disk.domain) (\(disk.kind)), \(disk.isPaused ? "Paused" : disk.state), "
        + "\(ByteCount(disk.byteCount)), \(disk.image.isEmpty ? "empty" : disk.image)"
    ]
    guard disk.queueCount > 0 else { return lines[0] + "\n  not connected" }
    lines.append(
      "  \(disk.queueCount) queue\(disk.queueCount == 1 ? "" : "s"), \(disk.total.inFlight) of \(disk.queueDepth) "
        + "slots in flight, guest pages "
        + (disk.usesPersistentGrants ? "stay mapped (\(disk.total.persistentGrants))" : "are copied"))
    if let limits = disk.limits { lines.append("  limits: \(limits)") }
    lines += text(disk.total).map { "  \($0)" }
    for (index, queue) in (disk.queues ?? []).enumerated() {
      lines.append("  queue \(index): \(queue.inFlight) in flight")
      lines += text(queue).map { "    \($0)" }
    }
    return lines.joined(separator: "\n")
  }

  private static func text(_ numbers: QueueNumbers) -> [String] {
    let rows = BlockRequestKind.allCases.compactMap { kind -> [String]? in
      guard let counted = numbers.requests[kind.name],
        counted.completed + counted.failed + counted.unsupported > 0
      else { return nil }
      let latency = counted.latency
      return [
        kind.name, "\(counted.completed)", "\(ByteCount(counted.bytes))", "\(counted.failed)",
        "\(counted.unsupported)",
      ] + [latency.median, latency.p99, latency.maximum].map { DurationText(nanoseconds: $0).description }
    }
    var lines =
      rows.isEmpty
      ? ["no requests yet"]
      : TextTable.lines(
        ["REQUESTS", "OKAY", "BYTES", "ERROR", "UNSUPPORTED", "P50", "P99", "MAX"], rows,
        rightAligned: Set(1...7))
    if !numbers.refusals.isEmpty {
      lines.append(
        "refused: "
          + numbers.refusals.sorted { $0.key < $1.key }.map { "\($0.value) \($0.key)" }.joined(
            separator: ", "))
    }
    return lines
  }
}

/// A duration as people read it: "85 us".
struct DurationText: CustomStringConvertible {
  let nanoseconds: UInt64

  var description: String {
    switch nanoseconds {
    case 0: "-"
    case ..<10_000: "\(Double(nanoseconds / 100) / 10) us"
    case ..<10_000_000: "\(nanoseconds / 1000) us"
    case ..<10_000_000_000: "\(nanoseconds / 1_000_000) ms"
    default: "\(nanoseconds / 1_000_000_000) s"
    }
  }
}

extension LimitReport: CustomStringConvertible {
  /// The limits in words.
  var description: String {
    var words: [String] = []
    if bytesPerSecond > 0 {
      words.append(
        "\(ByteCount(bytesPerSecond))/s" + (bytesBurst > 0 ? " (burst \(ByteCount(bytesBurst)))" : ""))
    }
    if requestsPerSecond > 0 {
      words.append("\(requestsPerSecond) requests/s" + (requestsBurst > 0 ? " (burst \(requestsBurst))" : ""))
    }
    return words.isEmpty ? "none" : words.joined(separator: ", ")
  }
}
