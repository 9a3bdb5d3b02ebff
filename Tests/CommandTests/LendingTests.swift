import Blkback
import Foundation
import RingKit
import Testing

@testable import ringback

/// Images that are lent to NBD clients while nobody of ours uses them. The clients are QEMU's and libnbd's.
@Suite(.serialized, .timeLimit(.minutes(10))) struct LendingTests {
  static let formats = ["raw", "vpc"]

  private func expect(_ outcome: (status: Int32, output: String), _ words: String...) {
    #expect(outcome.status == 0, "\(outcome.output)")
    for word in words { #expect(outcome.output.contains(word), "no \(word) in: \(outcome.output)") }
  }

  @Test(arguments: formats) func aClientReadsAndWritesAndTheImageComesBack(format: String) throws {
    let stage = try LendingStage(format: format)
    #expect(stage.lending?.isLent(minor: 3) == false)
    expect(
      try stage.io("write -P 0x5a 1M 1M", "write -P 0x33 4k 512", "flush"), "wrote 1048576/1048576 bytes")
    // The same program serves the next one, without the image coming back between.
    expect(
      try stage.io("read -P 0x5a 1M 1M", "read -P 0x33 4k 512", "write -z 1M 64k", "read -P 0 1M 64k"))
    #expect(stage.askedCount == 1 && stage.endedCount == 0 && stage.hold == nil)
    #expect(throws: VbdError.self, "QEMU's locks keep a second writer out") { try stage.takeHold() }
    expect(
      try stage.client("nbdinfo", [stage.uri]), "is_read_only: false", "can_flush: true", "can_trim: true")
    try stage.serveUntilBack()
    #expect(stage.lending?.isLent(minor: 3) == false && stage.lending?.failure(minor: 3) == nil)
    #expect(try stage.serverCount == 0)
    try stage.takeHold()
    try stage.dropHold()
    let bytes = try LendingStage.run(
      "/usr/bin/qemu-io", ["-U", "-r", "-f", format, "-c", "read -P 0x5a 1088k 960k", stage.path])
    expect(bytes)
    stage.end()
    #expect(!FileManager.default.fileExists(atPath: stage.socket))
    #expect(stage.told(.failure) == [] && stage.told(.warning) == [])
  }

  @Test func trimGivesSpaceBack() throws {
    let stage = try LendingStage()
    expect(try stage.io("write -P 1 0 8M", "flush"))
    let full = stage.allocated
    #expect(full >= 16 << 10)
    expect(try stage.io("discard 0 8M", "read -P 0 0 8M", "flush"))
    #expect(stage.allocated <= full - (8 << 11))
    stage.end()
  }

  @Test(arguments: formats) func aReadOnlyTapTakesNoWrites(format: String) throws {
    let stage = try LendingStage(format: format, isReadOnly: true)
    expect(try stage.client("nbdinfo", [stage.uri]), "is_read_only: true")
    expect(try stage.io("read -P 0 0 64k", readOnly: true))
    #expect(try stage.io("write -P 1 0 4k").status != 0)
    stage.end()
    let file = try Data(contentsOf: URL(filePath: stage.path))
    #expect(format != "raw" || file.allSatisfy { $0 == 0 })
  }

  @Test func whileARingUsesTheImageClientsAreTurnedAway() throws {
    let stage = try LendingStage()
    stage.refusal = VbdError("the guest's frontend is connected")
    for _ in 0..<3 {
      let outcome = try stage.io("read 0 4k")
      #expect(outcome.status != 0)
    }
    #expect(stage.askedCount == 3)
    #expect(stage.told(.warning).count == 1, "told once: \(stage.lines)")
    #expect(stage.told(.warning).first?.contains("frontend is connected") == true)
    #expect(stage.hold != nil && stage.endedCount == 0)
    stage.refusal = nil
    expect(try stage.io("read 0 4k"))
    stage.end()
  }

  @Test(arguments: formats) func takenBackWhileAClientWritesWhatItFlushedIsThere(format: String) throws {
    let stage = try LendingStage(format: format)
    let client = try Program("/usr/bin/qemu-io", ["-f", "raw", stage.uri])
    try stage.type(to: client, "write -P 0x77 0 2M", "flush", "read -P 0x77 0 64k")
    #expect(client.output.contains("read 65536/65536 bytes"), "\(client.output)")
    stage.lending?.takeBack(minor: 3)
    #expect(try stage.serverCount == 0)
    #expect(stage.endedCount == 0, "who takes it back has a use for it")
    #expect(stage.told(.warning).first?.contains("taken back") == true, "\(stage.lines)")
    try stage.takeHold()
    stage.refusal = VbdError("it is used")
    try stage.type(to: client, "write -P 0x11 0 64k")
    #expect(client.output.contains("rror"), "\(client.output)")
    try stage.quit(client)
    try stage.dropHold()
    expect(
      try LendingStage.run(
        "/usr/bin/qemu-io", ["-U", "-r", "-f", format, "-c", "read -P 0x77 0 2M", stage.path]))
    stage.end()
  }

  @Test func aServerThatIsKilledIsStartedForTheNext() throws {
    let stage = try LendingStage()
    let client = try Program("/usr/bin/qemu-io", ["-f", "raw", stage.uri])
    try stage.type(to: client, "write -P 0x21 0 64k", "flush")
    let process = try #require(stage.lending?.processID(minor: 3))
    kill(process, SIGKILL)
    try stage.serveUntilBack()
    #expect(stage.told(.failure).first?.contains("signal 9") == true, "\(stage.lines)")
    #expect(stage.lending?.failure(minor: 3) != nil)
    try stage.type(to: client, "read 0 4k")
    #expect(client.output.contains("rror"), "\(client.output)")
    try stage.quit(client)
    expect(try stage.io("read -P 0x21 0 64k"))
    stage.end()
  }

  @Test func aServerThatHangsIsKilledInTime() throws {
    let stage = try LendingStage()
    let client = try Program("/usr/bin/qemu-io", ["-f", "raw", stage.uri])
    try stage.type(to: client, "read 0 4k")
    kill(try #require(stage.lending?.processID(minor: 3)), SIGSTOP)
    stage.lending?.takeBack(minor: 3)
    #expect(try stage.serverCount == 0)
    #expect(stage.told(.failure).first?.contains("was killed") == true, "\(stage.lines)")
    try stage.takeHold()
    try stage.quit(client)
    stage.end()
  }

  @Test(arguments: [
    ("vpc", "garbage"), ("vpc", "missing"), ("raw", "missing"),
  ]) func anImageThatCannotBeServedIsToldAndNobodyHangs(format: String, trouble: String) throws {
    let stage = try LendingStage(format: format)
    try stage.dropHold()
    if trouble == "missing" {
      try FileManager.default.removeItem(atPath: stage.path)
    } else {
      try Data(repeating: 0xA5, count: 1 << 20).write(to: URL(filePath: stage.path))
    }
    for round in 1...2 {
      #expect(try stage.io("read 0 4k").status != 0)
      #expect(stage.endedCount == round)
      #expect(stage.told(.failure).count == round, "\(stage.lines)")
    }
    #expect(stage.told(.failure).allSatisfy { $0.contains(stage.path) }, "\(stage.lines)")
    let failure = try #require(stage.lending?.failure(minor: 3))
    #expect(stage.told(.failure).first?.contains(failure.description) == true)
    #expect(try stage.serverCount == 0)
    stage.end()
  }

  @Test(arguments: [true, false]) func anothersLockIsWaitedForAWhile(passes: Bool) throws {
    let stage = try LendingStage()
    try stage.dropHold()
    // Somebody who is not asked.
    var other: StorageFile? = try StorageFile.open(
      path: stage.path, readOnly: false, direct: .never, sharing: .nobody)
    let client = try Program("/usr/bin/qemu-io", ["-f", "raw", "-c", "read 0 4k", stage.uri])
    try stage.serve(until: { stage.lending?.processID(minor: 3) != nil }, "the first attempt")
    try stage.serve(until: { stage.lending?.processID(minor: 3) == nil }, "its end")
    #expect(stage.lending?.isLent(minor: 3) == true)
    if passes { other = nil }
    try stage.serve(until: { !client.process.isRunning }, "the client's end")
    #expect((client.process.terminationStatus == 0) == passes, "\(client.output) \(stage.lines)")
    #expect(stage.told(.failure).count == (passes ? 0 : 1), "\(stage.lines)")
    if !passes { #expect(stage.told(.failure).first?.contains("lock") == true, "\(stage.lines)") }
    withExtendedLifetime(other) {}
    stage.end()
  }

  @Test func alternationsLeaveNothing() throws {
    let stage = try LendingStage()
    for round in 0..<20 {
      expect(try stage.io("write -P \(round + 1) \(round % 16)M 64k", "flush"))
      stage.lending?.takeBack(minor: 3)
      try stage.takeHold()
      #expect(try stage.serverCount == 0)
      #expect(stage.names == ["disk", "nbd1.3"])
    }
    // The image, and what keeps others out. Sockets are counted where a daemon is tried that has nothing else open.
    #expect(try stage.openCount == 1)
    try stage.dropHold()
    for round in 4..<20 { expect(try stage.io("read -P \(round + 1) \(round % 16)M 64k")) }
    stage.end()
    #expect(stage.names == ["disk"])
    #expect(try stage.serverCount == 0)
  }

  @Test func atTheEndNobodyIsServed() throws {
    let stage = try LendingStage()
    let client = try Program("/usr/bin/qemu-io", ["-f", "raw", stage.uri])
    try stage.type(to: client, "write -P 9 0 64k", "flush")
    stage.lending?.closeAll()
    #expect(try stage.serverCount == 0)
    #expect(!FileManager.default.fileExists(atPath: stage.socket))
    #expect(try stage.io("read 0 4k").status != 0)
    // The next daemon's tap, at the same place.
    try stage.lending?.open(minor: 3, image: stage.image, path: stage.socket)
    expect(try stage.io("read -P 9 0 64k"))
    try stage.quit(client)
    stage.end()
  }
}
