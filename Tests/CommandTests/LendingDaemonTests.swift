import Foundation
import Loopback
import RingKit
import Testing

@testable import ringback

/// Images that the daemon lends: what was written over NBD is there for the ring, and the reverse.
@Suite(.serialized, .timeLimit(.minutes(10))) struct LendingDaemonTests {
  /// A tap with an image of 16 MiB and the URI that libxl makes of its socket.
  private func tap(
    _ stage: TapStage, _ format: String = "raw", options: [String] = []
  ) throws -> (image: String, name: String, uri: String) {
    let image = try stage.image("disk", format: format)
    let name = (format == "raw" ? "aio:" : "vhd:") + image
    let made = try stage.run(["create", "-a", name] + options)
    try #require(made.status == 0, "\(made)")
    return (image, name, uri(stage))
  }

  /// A domain ends with its last connection: this one keeps the guest's.
  private func presence(_ stage: TapStage) throws -> LoopbackHypervisor {
    try LoopbackHypervisor(directory: "\(stage.directory)/machine", domain: DomainID(rawValue: 1))
  }

  private func path(_ stage: TapStage, process: String? = nil) -> String {
    "\(stage.directory)/machine/blktap-control/nbd\(process ?? stage.process).0"
  }

  private func uri(_ stage: TapStage) -> String { "nbd+unix:///?socket=\(path(stage))" }

  private func io(_ uri: String, _ commands: String..., readOnly: Bool = false) throws -> Command.Outcome {
    try Command.run(
      ["-f", "raw"] + (readOnly ? ["-r"] : []) + commands.flatMap { ["-c", $0] } + [uri],
      as: "/usr/bin/qemu-io")
  }

  private func expect(_ outcome: Command.Outcome, location: SourceLocation = #_sourceLocation) {
    #expect(outcome.status == 0, "\(outcome)", sourceLocation: location)
  }

  private func guest(_ stage: TapStage, _ options: String...) throws -> Command.Outcome {
    try Command.run(["guest", "--own-domain", "1", "--vdev", "xvda"] + options + stage.stage.host)
  }

  /// A file of 1 MiB of one byte.
  private func pattern(_ stage: TapStage, _ byte: UInt8) throws -> String {
    let path = "\(stage.directory)/pattern-\(byte)"
    try Data(repeating: byte, count: 1 << 20).write(to: URL(filePath: path))
    return path
  }

  /// qemu-io that waits for more, with what it did so far at the server.
  private func client(_ uri: String, _ commands: String..., readOnly: Bool = false) throws -> Program {
    let program = try Program("/usr/bin/qemu-io", ["-f", "raw"] + (readOnly ? ["-r"] : []) + [uri])
    try wait("qemu-io") { promptCount(program) > 0 || !program.process.isRunning }
    for command in commands { try tell(program, command) }
    return program
  }

  private func promptCount(_ program: Program) -> Int {
    program.output.components(separatedBy: "qemu-io> ").count - 1
  }

  /// Has it do something. It takes no second line before the first one is done.
  private func tell(_ program: Program, _ command: String) throws {
    guard program.process.isRunning else { return }
    let before = promptCount(program)
    try program.type(command)
    try wait("the end of \(command)") { promptCount(program) > before || !program.process.isRunning }
  }

  private func end(_ program: Program) throws {
    guard program.process.isRunning else { return }
    try program.type("quit")
    try wait("qemu-io's end") { !program.process.isRunning }
  }

  /// Looks until something is so.
  private func wait(_ what: String, until isDone: () throws -> Bool) throws {
    let deadline = ContinuousClock.now + .seconds(60)
    var poll = DescriptorPoll()
    while try !isDone() {
      guard ContinuousClock.now < deadline else { throw LendingTrouble("\(what) does not come") }
      _ = try poll.wait(timeoutMilliseconds: 10)
    }
  }

  /// The process that serves a socket's image: the one that has it open beside the daemon.
  private func servers(of image: String) throws -> [String] {
    try FileManager.default.contentsOfDirectory(atPath: "/proc").filter { name in
      guard Int32(name) != nil,
        let words = try? String(contentsOfFile: "/proc/\(name)/cmdline", encoding: .utf8)
      else { return false }
      return words.hasPrefix("/usr/bin/qemu-storage-daemon") && words.contains(image)
    }
  }

  @Test(arguments: ["raw", "vpc"]) func theRingReadsWhatNBDWroteAndTheReverse(format: String) throws {
    let stage = try TapStage()
    let presence = try presence(stage)
    defer { withExtendedLifetime(presence) {} }
    let (image, name, uri) = try tap(stage, format)
    // First without a disk, then with one that waits for its guest.
    expect(try io(uri, "write -P 0x41 0 512k", "flush"))
    expect(try stage.stage.attach(image: name))
    expect(try io(uri, "read -P 0x41 0 512k", "write -P 0x41 512k 512k", "flush"))
    expect(try guest(stage, "--verify-image", try pattern(stage, 0x41)))
    if format == "raw" { #expect(try servers(of: image) == [], "the ring has the image") }
    expect(try guest(stage, "--write-image", try pattern(stage, 0x42)))
    expect(try io(uri, "read -P 0x42 0 1M", "write -P 0x43 0 1M"))
    // Not flushed: the server brings it to the image when it ends.
    expect(try guest(stage, "--verify-image", try pattern(stage, 0x43)))
    expect(try Command.run(["detach", "-d", "1", "-v", "xvda"] + stage.stage.host))
    expect(try io(uri, "read -P 0x43 0 1M"))
    try stage.tap("destroy", "-p", "1", "-m", "0")
    #expect(try servers(of: image) == [])
    #expect(!FileManager.default.fileExists(atPath: path(stage)))
    #expect(try io(uri, "read 0 4k").status != 0)
  }

  @Test func theRingComesFirst() throws {
    let stage = try TapStage()
    let presence = try presence(stage)
    defer { withExtendedLifetime(presence) {} }
    let (_, name, uri) = try tap(stage)
    expect(try stage.stage.attach(image: name))
    let client = try client(uri, "write -P 0x51 0 1M", "flush")
    expect(try guest(stage, "--verify-image", try pattern(stage, 0x51)))
    try tell(client, "write -P 0x52 0 4k")
    #expect(client.output.contains("rror"), "\(client.output)")
    try end(client)
    let load = try Command.Running(
      ["guest", "--own-domain", "1", "--vdev", "xvda", "--load", "randrw", "--check", "--duration", "4000"]
        + stage.stage.host)
    _ = try stage.daemon.wait(for: "taken back")
    _ = try stage.daemon.wait(for: "-> Connected")
    try wait("the connection") { try stage.connectedCount() > 0 }
    // Whoever comes meanwhile is turned away at once, and the guest notices nothing.
    #expect(try io(uri, "read 0 4k").status != 0)
    _ = try stage.daemon.wait(for: "was turned away")
    let outcome = load.finish()
    #expect(outcome.status == 0 && outcome.output.contains(" 0 wrong"), "\(outcome.output)")
    expect(try io(uri, "read 0 4k"))
  }

  @Test func growthIsNoticedWhenItComesBack() throws {
    let stage = try TapStage()
    let presence = try presence(stage)
    defer { withExtendedLifetime(presence) {} }
    let (image, name, uri) = try tap(stage)
    expect(try stage.stage.attach(image: name))
    let client = try client(uri, "read 0 4k")
    try FileHandle(forWritingTo: URL(filePath: image)).truncate(atOffset: 24 << 20)
    let refused = try Command.run(["resize", "-d", "1", "-v", "xvda"] + stage.stage.host)
    #expect(refused.status != 0 && refused.errors.contains("lent"), "\(refused)")
    let node = "/local/domain/0/backend/vbd3/1/51712/sectors"
    #expect(try stage.store.read(node) == "32768")
    try end(client)
    try wait("the new size") { try stage.store.read(node) == "49152" }
    expect(try guest(stage, "--load", "read", "--duration", "100"))
  }

  @Test func aPauseTakesTheImageBackAndKeepsClientsOut() throws {
    let stage = try TapStage()
    let (image, _, uri) = try tap(stage)
    let client = try client(uri, "write -P 0x61 0 64k", "flush")
    try stage.tap("pause", "-p", "1", "-m", "0")
    #expect(try servers(of: image) == [])
    #expect(try io(uri, "read 0 4k").status != 0)
    expect(try io(image, "read -P 0x61 0 64k", "write -P 0x62 0 64k"))
    try stage.tap("unpause", "-p", "1", "-m", "0")
    expect(try io(uri, "read -P 0x62 0 64k"))
    try tell(client, "read 0 4k")
    try end(client)
    try stage.tap("destroy", "-p", "1", "-m", "0")
  }

  @Test func aReadOnlyTapIsReadBesideARing() throws {
    let stage = try TapStage()
    let presence = try presence(stage)
    defer { withExtendedLifetime(presence) {} }
    let (_, name, uri) = try tap(stage, options: ["-R"])
    expect(try stage.stage.attach(mode: "r", image: name))
    let client = try client(uri, "read 0 4k", readOnly: true)
    let load = try Command.Running(
      ["guest", "--own-domain", "1", "--vdev", "xvda", "--load", "randread", "--duration", "3000"]
        + stage.stage.host)
    try wait("the connection") { try stage.connectedCount() > 0 }
    #expect(try io(uri, "write 0 4k").status != 0)
    expect(try io(uri, "read -P 0 0 1M", readOnly: true))
    #expect(load.finish().status == 0)
    try tell(client, "read 4k 4k")
    try end(client)
    #expect(!client.output.contains("rror"), "\(client.output)")
  }

  @Test func anotherWriterIsKeptOut() throws {
    let stage = try TapStage()
    let (image, _, uri) = try tap(stage)
    let client = try client(uri, "write -P 1 0 4k")
    #expect(try io(image, "write 0 4k").errors.contains("lock"))
    try end(client)
  }

  @Test(arguments: [true, false]) func theNextDaemonServesTheSamePlace(killing: Bool) throws {
    let stage = try TapStage()
    let (image, _, uri) = try tap(stage)
    let client = try client(uri, "write -P 0x71 0 64k", "flush")
    #expect(try servers(of: image).count == 1)
    let before = stage.process
    try stage.restartDaemon(killing: killing)
    try wait("the server's end") { try servers(of: image) == [] }
    try tell(client, "read 0 4k")
    try end(client)
    // The name that xenstore nodes have, and the one that the present daemon would give.
    expect(try io(uri, "read -P 0x71 0 64k"))
    #expect(stage.process != before)
    expect(try io("nbd+unix:///?socket=\(path(stage))", "read -P 0x71 0 64k"))
    try stage.tap("destroy", "-p", before, "-m", "0")
    #expect(!FileManager.default.fileExists(atPath: path(stage, process: before)))
  }

  @Test func alternationsLeaveNothing() throws {
    let stage = try TapStage()
    let presence = try presence(stage)
    defer { withExtendedLifetime(presence) {} }
    let (image, name, uri) = try tap(stage)
    expect(try stage.stage.attach(image: name))
    func descriptors() throws -> Int {
      try FileManager.default.contentsOfDirectory(atPath: "/proc/\(stage.process)/fd").count
    }
    var before = 0
    for round in 0..<20 {
      let byte = UInt8(round + 1)
      expect(try io(uri, "write -P \(byte) 0 1M"))
      expect(try guest(stage, "--verify-image", try pattern(stage, byte)))
      #expect(try servers(of: image) == [])
      if round == 4 { before = try descriptors() }
    }
    let after = try descriptors()
    #expect(after <= before + 2, "\(before) descriptors, then \(after)")
    let places = try FileManager.default.contentsOfDirectory(
      atPath: "\(stage.directory)/machine/blktap-control")
    #expect(places == ["nbd\(stage.process).0"])
  }

  /// libxl gives QEMU the path itself of a raw image, while the disk waits in InitWait.
  @Test(arguments: [true, false]) func aRawImageIsLeftToTheDeviceModel(isPV: Bool) throws {
    let stage = try TapStage(domains: [1, 2])
    let presence = try presence(stage)
    defer { withExtendedLifetime(presence) {} }
    let image = try stage.image("disk")
    try stage.addDisk("aio:\(image)", isPV: isPV)
    try stage.waitForState(.initWait)
    try stage.tap("create", "-a", "aio:\(image)")
    let deviceModel = try client(image, "write -P 0x31 0 1M", "flush")
    #expect(deviceModel.process.isRunning != isPV, "\(deviceModel.output)")
    if !isPV {
      try end(deviceModel)
      // Another disk of ours would take it for itself, and is told so.
      try stage.addDisk("aio:\(image)", domain: 2)
      try stage.waitForError("about to begin", domain: 2)
    }
    try stage.store.write("\(stage.backend())/physical-device-path", path(stage))
    try stage.store.write("\(stage.backend())/hotplug-status", "connected")
    if !isPV { expect(try guest(stage, "--verify-image", try pattern(stage, 0x31))) }
  }

  @Test func aDiskThatHasSteppedAsideLetsGoAtItsEnd() throws {
    let stage = try TapStage()
    let image = try stage.image("disk")
    func open() throws {
      _ = try StorageFile.open(
        path: image, readOnly: false, direct: .never, sharing: .nobody, patienceNanoseconds: 0)
    }
    try stage.addDisk("aio:\(image)", isPV: false)
    try stage.waitForState(.initWait)
    #expect(throws: StorageError(path: image, reason: .inUse(.claimed))) { try open() }
    try stage.removeDisk()
    try stage.waitForState(.closed)
    try open()
  }

  /// libxl has QEMU reach a VHD through the socket, while the disk waits in InitWait with an image open.
  @Test func aVHDOfAGuestWithADeviceModelIsHadOverNBD() throws {
    let stage = try TapStage()
    let presence = try presence(stage)
    defer { withExtendedLifetime(presence) {} }
    let image = try stage.image("disk", format: "vpc")
    try stage.addDisk("vhd:\(image)", isPV: false)
    try stage.waitForState(.initWait)
    try stage.tap("create", "-a", "vhd:\(image)")
    try stage.store.write("\(stage.backend())/physical-device-path", path(stage))
    try stage.store.write("\(stage.backend())/hotplug-status", "connected")
    let deviceModel = try client(uri(stage), "write -P 0x32 0 1M", "flush")
    expect(try guest(stage, "--verify-image", try pattern(stage, 0x32)))
    try tell(deviceModel, "read 0 4k")
    try end(deviceModel)
  }
}

extension TapStage {
  /// Disks that are connected.
  fileprivate func connectedCount() throws -> Int {
    let outcome = try Command.run(["list", "--json"] + stage.host)
    return outcome.output.components(separatedBy: "Connected").count - 1
  }

  /// Waits until a disk's error node says so.
  fileprivate func waitForError(_ words: String, domain: Int) throws {
    let path = "/local/domain/0/error/backend/vbd3/\(domain)/51712/error"
    let deadline = ContinuousClock.now + .seconds(60)
    var text = ""
    while !text.contains(words) {
      guard ContinuousClock.now < deadline else { throw LendingTrouble("no \(words) in \(text)") }
      text = try store.read(path) ?? ""
    }
  }
}
