import Blkback
import Foundation
import Loopback
import RingKit
import Testing

@testable import ringback

/// A loopback machine with a daemon, and the program under the name tap-ctl.
final class TapStage {
  let stage: CommandStage
  private(set) var daemon: Command.Running
  /// The toolstack's connection.
  let store: StoreClient
  var directory: String { stage.directory }
  var socket: String { "\(directory)/machine/control" }
  var tapControl: String { "\(directory)/bin/tap-ctl" }

  init(domains: [Int] = [1]) throws {
    stage = try CommandStage()
    try stage.startMachine(domains: domains)
    daemon = try stage.startDaemon()
    store = try LoopbackHypervisor(
      directory: "\(stage.directory)/machine", domain: DomainID(rawValue: 0)
    ).openStore()
    try FileManager.default.createDirectory(
      atPath: "\(stage.directory)/bin", withIntermediateDirectories: false)
    try FileManager.default.createSymbolicLink(
      atPath: tapControl, withDestinationPath: Command.executable.path)
  }

  deinit {
    daemon.process.terminate()
    daemon.process.waitUntilExit()
  }

  /// Runs tap-ctl to its end, by the hotplug script of this domain's disk if one is named.
  func run(_ words: [String], scriptOf domain: Int? = nil) throws -> Command.Outcome {
    var environment = [TapCommand.socketVariable: socket]
    environment[TapCommand.deviceVariable] = domain.map { "backend/vbd3/\($0)/51712" }
    return try Command.run(words, as: tapControl, environment: environment)
  }

  func run(_ words: String...) throws -> Command.Outcome { try run(words) }

  /// Runs tap-ctl and expects it to succeed; gives what it printed, without the end of the line.
  @discardableResult
  func tap(
    _ words: String..., scriptOf domain: Int? = nil, location: SourceLocation = #_sourceLocation
  ) throws -> String {
    let outcome = try run(words, scriptOf: domain)
    #expect(outcome.status == 0 && outcome.errors.isEmpty, "\(words): \(outcome)", sourceLocation: location)
    return outcome.output.trimmingCharacters(in: .newlines)
  }

  /// Runs tap-ctl and expects it to fail so, and to say these words.
  func expect(
    _ errno: Int32, _ said: String..., from words: [String], scriptOf domain: Int? = nil,
    location: SourceLocation = #_sourceLocation
  ) throws {
    let outcome = try run(words, scriptOf: domain)
    #expect(outcome.status == errno, "\(words): \(outcome)", sourceLocation: location)
    #expect(outcome.output.isEmpty, sourceLocation: location)
    // The words of the error number come last, as with the original.
    #expect(
      outcome.errors.hasSuffix("\(TapCommand.words(errno))\n"), "\(outcome.errors)", sourceLocation: location)
    for word in said {
      #expect(outcome.errors.contains(word), "no \(word) in \(outcome.errors)", sourceLocation: location)
    }
  }

  /// Makes an image by qemu-img, and gives its path.
  func image(_ name: String, format: String = "raw", size: String = "16M") throws -> String {
    let path = "\(directory)/\(name)"
    // Without it, VHD rounds up to whole cylinders.
    let options = format == "vpc" ? ["-o", "force_size=on"] : []
    let made = try Command.run(
      ["create", "-q", "-f", format] + options + [path, size], as: "/usr/bin/qemu-img")
    try #require(made.status == 0, "\(made)")
    return path
  }

  /// Ends the daemon, in order or not, and starts another.
  func restartDaemon(killing: Bool, meanwhile: () throws -> Void = {}) throws {
    if killing {
      kill(daemon.process.processIdentifier, SIGKILL)
    } else {
      daemon.process.terminate()
    }
    _ = daemon.finish()
    try meanwhile()
    daemon = try stage.startDaemon()
  }

  var process: String { "\(daemon.process.processIdentifier)" }

  // MARK: A guest's disk as libxl makes it

  func backend(_ domain: Int = 1, _ device: Int = 51712) -> String {
    "/local/domain/0/backend/vbd3/\(domain)/\(device)"
  }

  func frontend(_ domain: Int) -> String { "/local/domain/\(domain)/device/vbd/51712" }

  /// Writes the nodes of a disk with backendtype=tap (libxl_disk.c, device_disk_add) in one transaction, or, without
  /// a script, those of xenopsd. In the same one go those of the former disk of another domain.
  func addDisk(
    _ parameters: String, domain: Int = 1, mode: String = "w", script: String? = "/etc/xen/scripts/block-tap",
    more: [(String, String)] = [], isPV: Bool = true, replacing former: Int? = nil
  ) throws {
    let (backend, frontend) = (backend(domain), frontend(domain))
    let gone = former.map { [self.backend($0), self.frontend($0)] } ?? []
    let guest = DomainID(rawValue: UInt16(domain))
    let scripts = script.map { [("script", $0)] } ?? []
    try store.transaction { tree throws(StoreError) in
      for path in gone { try tree.remove(path) }
      try tree.makeDirectory(frontend)
      try tree.setPermissions(
        [
          StorePermission(domain: guest, canRead: false, canWrite: false),
          StorePermission(domain: DomainID(rawValue: 0), canRead: true, canWrite: false),
        ], of: frontend)
      try tree.makeDirectory(backend)
      try tree.setPermissions(
        [
          StorePermission(domain: DomainID(rawValue: 0), canRead: false, canWrite: false),
          StorePermission(domain: guest, canRead: true, canWrite: false),
        ], of: backend)
      for (name, value) in [
        ("backend", backend), ("backend-id", "0"), ("virtual-device", "51712"), ("device-type", "disk"),
        ("state", "1"),
      ] {
        try tree.write("\(frontend)/\(name)", value)
      }
      // libxl's word for a PV guest, which has no device model.
      if isPV { try tree.write("\(frontend)/protocol", "x86_64-abi") }
      for (name, value) in [
        ("frontend", frontend), ("frontend-id", "\(domain)"), ("online", "1"), ("removable", "0"),
        ("bootable", "1"), ("dev", "xvda"), ("type", "vbd3"), ("mode", mode), ("device-type", "disk"),
        ("params", parameters),
      ] + scripts + more + [("state", "1")] {
        try tree.write("\(backend)/\(name)", value)
      }
    }
  }

  /// The end of a hotplug script: the tap's nodes and that it is done.
  func connect(_ minor: String, domain: Int = 1) throws {
    let (backend, process) = (backend(domain), process)
    try store.transaction { tree throws(StoreError) in
      for (name, value) in [
        ("pid", process), ("minor", minor),
        ("physical-device-path", "/run/blktap-control/nbd\(process).\(minor)"),
        ("hotplug-status", "connected"),
      ] {
        try tree.write("\(backend)/\(name)", value)
      }
    }
  }

  /// Waits until the disk's backend says so, a minute at most.
  func waitForState(_ state: XenbusState, domain: Int = 1) throws {
    try waitForNode("state", domain: domain) { $0 == state.text }
  }

  /// Waits until the disk's backend has given up.
  func waitForEnd(domain: Int = 1) throws {
    try waitForNode("state", domain: domain) {
      $0 == XenbusState.closing.text || $0 == XenbusState.closed.text
    }
  }

  /// Waits until a node of the backend's has a value, a minute at most.
  func waitForNode(_ name: String, domain: Int = 1, until isGood: (String?) -> Bool) throws {
    let path = "\(backend(domain))/\(name)"
    let token = "wait-for-node"
    try store.watch(path, token: token)
    defer { try? store.unwatch(path, token: token) }
    let deadline = ContinuousClock.now + .seconds(60)
    while true {
      while try store.nextWatchEvent() != nil {}
      let value = try store.read(path)
      if isGood(value) { return }
      try #require(ContinuousClock.now < deadline, "\(path) is still \(value ?? "missing")")
      try store.waitForEvent(timeoutMilliseconds: 1000)
    }
  }

  /// The error that the daemon has left for the toolstack.
  func errorNode(domain: Int = 1) throws -> String? {
    try store.read("/local/domain/0/error/backend/vbd3/\(domain)/51712/error")
  }

  /// Has the backend let go (libxl_device.c, libxl__initiate_device_generic_remove).
  func removeDisk(domain: Int = 1) throws {
    let backend = backend(domain)
    try store.transaction { tree throws(StoreError) in
      try tree.write("\(backend)/online", "0")
      try tree.write("\(backend)/state", "5")
    }
  }
}
