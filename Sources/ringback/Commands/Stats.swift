import ArgumentParser
import Blkback
import Foundation
import RingKit

/// Tells what disks and interfaces have done.
struct Stats: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract:
      "Tell what the disks and network interfaces have done since they connected: requests, packets, bytes, errors "
      + "and latencies.")

  @OptionGroup var host: HostOptions
  @OptionGroup var daemon: DaemonOptions

  @Option(
    name: .shortAndLong,
    help: ArgumentHelp("Only the disks and interfaces of this domain.", valueName: "domid"))
  var domain: UInt16?

  @Option(name: .shortAndLong, help: ArgumentHelp("Only this disk, such as xvda.", valueName: "name"))
  var vdev: VirtualDeviceArgument?

  @Option(help: ArgumentHelp("Only this interface, such as 0.", valueName: "number"))
  var vif: UInt32?

  @Flag(help: "Tell of each queue.")
  var queues = false

  @Flag(help: "Print JSON.")
  var json = false

  func validate() throws {
    guard vdev == nil || vif == nil else {
      throw ValidationError("--vdev is about a disk and --vif about an interface; give one of them")
    }
  }

  func run() throws {
    var question = ControlQuestion(.stats)
    question.domain = domain
    question.queues = queues
    let daemon = host.daemon(daemon)
    var disks: [DiskNumbers] = []
    if vif == nil {
      question.vdev = vdev?.device.number
      disks = try daemon.ask(question, for: [DiskNumbers].self)
    }
    var interfaces: [VifNumbers] = []
    if vdev == nil {
      question.kind = DaemonVifs.kind
      question.vif = vif
      interfaces = try daemon.ask(question, for: [VifNumbers].self)
    }
    guard !disks.isEmpty || !interfaces.isEmpty || (domain == nil && vdev == nil && vif == nil) else {
      throw CommandError(
        "no such \(vif == nil ? "disk" : "interface") is served; `ringback list` shows what is")
    }
    print(
      json
        ? try DeviceArray(disks: disks, interfaces: interfaces).json() : Self.text(disks, interfaces))
  }

  static func text(_ disks: [DiskNumbers], _ interfaces: [VifNumbers] = []) -> String {
    let paragraphs = disks.map(text) + interfaces.map(\.text)
    return paragraphs.isEmpty ? "no disks" : paragraphs.joined(separator: "\n\n")
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
