import ArgumentParser
import Foundation
import Loopback
import RingKit

/// The processes and files of the demo.
final class DemoStage {
  /// Where everything is.
  let directory: String
  /// The filesystem that the guest writes to the disk.
  var filesystem: String { "\(directory)/filesystem.img" }

  private var disk: String { "\(directory)/disk.img" }
  private var machineDirectory: String { "\(directory)/machine" }
  private var machine: Process?
  private var daemon: Process?
  /// Keeps domain 1 alive between the guest processes: on loopback a domain dies with its last process.
  private var presence: LoopbackHypervisor?
  private var number = 0
  /// Two network stacks that nothing outside can see; nil where there can be none.
  let networks: (host: NetworkNamespace, guest: NetworkNamespace)?
  var guestNetwork: Process?

  init() throws {
    networks = Self.networkObstacle == nil ? (try NetworkNamespace(), try NetworkNamespace()) : nil
    let base = FileManager.default.temporaryDirectory.path
    directory = "\(base)/ringback-demo-\(ProcessInfo.processInfo.processIdentifier)"
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: false)
  }

  /// Does one step and tells of it; an error says where the logs are.
  @discardableResult
  func step<Result>(_ title: String, _ body: () throws -> Result) throws -> Result {
    number += 1
    print(" \(number). \(title)")
    do {
      return try body()
    } catch {
      let log = (try? String(contentsOfFile: "\(directory)/serve.log", encoding: .utf8)) ?? ""
      throw CommandError("step \(number) failed: \(error)\n\(log)")
    }
  }

  func show(_ rows: [(String, String)], title: String) {
    print("\n    \(title):")
    let width = rows.map(\.0.count).max() ?? 0
    for (name, value) in rows {
      print("      \(name.padding(toLength: width, withPad: " ", startingAt: 0))  \(value)")
    }
    print("")
  }

  // MARK: Steps

  func makeImages() throws {
    try makeFile(disk, byteCount: 64 << 20)
    let tree = "\(directory)/tree"
    try FileManager.default.createDirectory(atPath: tree, withIntermediateDirectories: false)
    for file in 0..<40 {
      let line = "file \(file) of the guest's filesystem\n"
      let text = String(repeating: line, count: 100 + file * 100)
      try Data(text.utf8).write(to: URL(filePath: "\(tree)/file-\(file).txt"))
    }
    if let mke2fs = tool("mke2fs") {
      try run(mke2fs, ["-q", "-F", "-t", "ext4", "-d", tree, filesystem, "24M"])
    } else {
      try makeFile(filesystem, byteCount: 24 << 20)
    }
  }

  func startMachine() throws {
    let (process, line) = try start("loopback", ["loopback", "--loopback-directory", machineDirectory])
    machine = process
    guard line.contains("ready") else { throw CommandError("the machine did not start: \(line)") }
    presence = try LoopbackHypervisor(directory: machineDirectory, domain: DomainID(rawValue: 1))
  }

  func startDaemon() throws {
    let kinds = networks == nil ? [] : ["--kind", defaultKind, "--kind", DaemonVifs.kind]
    let begin = { [self] in
      try start("serve", ["serve"] + kinds + hostArguments, reads: "\(directory)/serve.log")
    }
    let (process, line) = try networks.map { try $0.host.inside(begin) } ?? begin()
    daemon = process
    guard line.contains("serving") else { throw CommandError("the daemon did not start: \(line)") }
  }

  func attach() throws {
    _ = try ringback(["attach", "--domain", "1", "--vdev", "xvda", disk] + hostArguments)
  }

  func nodes() throws -> [(String, String)] {
    let store = try HostOptions.parse(hostArguments).open().openStore()
    let base = "/local/domain/0/backend/\(defaultKind)/1/51712"
    let names = [
      "frontend", "params", "mode", "sectors", "sector-size", "feature-persistent", "feature-flush-cache",
      "state",
    ]
    return try names.map { ($0, try store.read("\(base)/\($0)") ?? "-") }
  }

  /// Runs a guest process on the disk. The guest of a load that writes anywhere gets a second disk, so that
  /// the first keeps its filesystem.
  func guest(_ arguments: [String], onCopy: Bool = false) throws -> GuestReport {
    if onCopy {
      try makeFile("\(directory)/scratch.img", byteCount: 64 << 20)
      _ = try ringback(
        ["attach", "--domain", "1", "--vdev", "xvdb", "\(directory)/scratch.img"] + hostArguments)
    }
    let output = try ringback(
      ["guest", "--own-domain", "1", "--vdev", onCopy ? "xvdb" : "xvda", "--json"] + arguments + hostArguments
    )
    return try JSONDecoder().decode(GuestReport.self, from: Data(output.utf8))
  }

  func checkImage() throws {
    let image = try FileHandle(forReadingFrom: URL(filePath: disk))
    let source = try FileHandle(forReadingFrom: URL(filePath: filesystem))
    while let wanted = try source.read(upToCount: 1 << 20), !wanted.isEmpty {
      guard try image.read(upToCount: wanted.count) == wanted else {
        throw CommandError("the image differs from what the guest wrote")
      }
    }
    if let e2fsck = tool("e2fsck") { try run(e2fsck, ["-fn", disk]) }
  }

  func stopDaemon() throws {
    guard let daemon else { return }
    daemon.terminate()
    daemon.waitUntilExit()
    self.daemon = nil
    guard daemon.terminationStatus == 0 else {
      throw CommandError("the daemon ended with status \(daemon.terminationStatus)")
    }
  }

  /// Stops what runs and removes the files.
  func strike(keeping: Bool) {
    for process in [guestNetwork, daemon, machine].compactMap({ $0 }) where process.isRunning {
      process.terminate()
      process.waitUntilExit()
    }
    if keeping {
      print("kept: \(directory)")
    } else {
      try? FileManager.default.removeItem(atPath: directory)
    }
  }

  // MARK: Processes

  var hostArguments: [String] {
    ["--hypervisor", "loopback", "--loopback-directory", machineDirectory]
  }

  private func makeFile(_ path: String, byteCount: UInt64) throws {
    guard FileManager.default.createFile(atPath: path, contents: nil) else {
      throw CommandError("cannot create \(path)")
    }
    try FileHandle(forWritingTo: URL(filePath: path)).truncate(atOffset: byteCount)
  }

  private func tool(_ name: String) -> String? {
    ["/sbin", "/usr/sbin", "/bin", "/usr/bin"].map { "\($0)/\(name)" }
      .first { FileManager.default.isExecutableFile(atPath: $0) }
  }

  private var executable: URL { URL(filePath: "/proc/self/exe").resolvingSymlinksInPath() }

  /// Starts one of our own commands, or another program, and waits for its first line.
  func start(
    _ name: String, _ arguments: [String], reads log: String? = nil, program: URL? = nil
  ) throws -> (Process, String) {
    let process = Process()
    process.executableURL = program ?? executable
    process.arguments = arguments
    process.standardInput = FileHandle.nullDevice
    let pipe = Pipe()
    if log == nil {
      process.standardOutput = pipe
    } else {
      process.standardError = pipe
    }
    try process.run()
    var line = ""
    while !line.contains("\n") {
      let data = pipe.fileHandleForReading.availableData
      guard !data.isEmpty else { break }
      line += String(decoding: data, as: UTF8.self)
    }
    if let log {
      // The rest of the daemon's lines go on into a file, for the case that something fails.
      try Data(line.utf8).write(to: URL(filePath: log))
      let file = try FileHandle(forWritingTo: URL(filePath: log))
      try file.seekToEnd()
      pipe.fileHandleForReading.readabilityHandler = { handle in
        let data = handle.availableData
        if data.isEmpty { handle.readabilityHandler = nil } else { try? file.write(contentsOf: data) }
      }
    }
    return (process, line)
  }

  func ringback(_ arguments: [String]) throws -> String { try run(executable.path, arguments) }

  @discardableResult
  func run(_ path: String, _ arguments: [String]) throws -> String {
    let process = Process()
    process.executableURL = URL(filePath: path)
    process.arguments = arguments
    process.standardInput = FileHandle.nullDevice
    let (output, errors) = (Pipe(), Pipe())
    process.standardOutput = output
    process.standardError = errors
    try process.run()
    let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    let complaint = String(decoding: errors.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    process.waitUntilExit()
    guard process.terminationStatus == 0 else {
      throw CommandError(
        "\((path as NSString).lastPathComponent) \(arguments.first ?? ""): \(complaint)\(text)")
    }
    return text
  }
}
