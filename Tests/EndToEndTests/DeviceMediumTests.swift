import Blkback
import Foundation
import Frontends
import RingKit
import Testing

/// Drives whose medium comes and goes.
@Suite(.serialized, .timeLimit(.minutes(10))) struct DeviceMediumTests {
  private static let drive: [String: String?] = ["device-type": "cdrom", "removable": "1", "mode": "r"]

  /// An image of `megabytes` full of one byte.
  private func image(_ world: FrontendWorld, _ name: String, byte: UInt8, megabytes: Int) throws -> String {
    let path = world.path(name)
    try Data(repeating: byte, count: megabytes << 20).write(to: URL(filePath: path))
    return path
  }

  @Test(arguments: ["", "empty:", nil])
  func anEmptyDriveTakesAMediumAndGivesItBack(parameters: String?) throws {
    let world = try FrontendWorld()
    let first = try image(world, "first.iso", byte: 1, megabytes: 2)
    let second = try image(world, "second.iso", byte: 2, megabytes: 3)
    try world.addDisk(nodes: Self.drive.merging(["params": parameters]) { $1 })
    let frontend = try world.connected()
    #expect(frontend.disk?.sectorCount == 0)
    #expect(frontend.disk?.info == 7, "a CD-ROM, removable, read-only")
    #expect(try frontend.perform(BlockFrontRequest(.read, sectorCount: 1)) == .error)
    #expect(try frontend.perform(BlockFrontRequest(.flush)) == .okay)

    for (path, size) in [(first, UInt64(2)), (second, 3), (first, 2)] {
      #expect(try world.changeMedium(to: "raw:\(path)") == nil)
      #expect(try frontend.waitForResize(timeoutMilliseconds: worldMilliseconds))
      #expect(frontend.disk?.sectorCount == size << 11)
      #expect(try world.node("params") == "raw:\(path)")
      #expect(try ImageTransfer().compare(path: path, with: frontend) == nil)
      #expect(try frontend.perform(BlockFrontRequest(.write, sectorCount: 1)) == .error, "it is read-only")
    }
    // What is under way at the exchange ends on one of the two.
    let handle = try #require(try frontend.submit(BlockFrontRequest(.read, sectorCount: 88)))
    try frontend.push()
    #expect(try world.changeMedium(to: nil) == nil)
    _ = try frontend.answer()
    frontend.release(handle)
    #expect(try frontend.waitForResize(timeoutMilliseconds: worldMilliseconds))
    #expect(frontend.disk?.sectorCount == 0)
    #expect(try world.node("params") == "")
    #expect(try frontend.perform(BlockFrontRequest(.read, sectorCount: 1)) == .error)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    #expect(world.mappedPageCount == 0)
    try world.stop()
  }

  @Test func theGuestEjectsOnceForEachWord() throws {
    let world = try FrontendWorld()
    let path = try image(world, "medium.iso", byte: 1, megabytes: 2)
    try world.addDisk(nodes: Self.drive.merging(["params": "raw:\(path)"]) { $1 })
    let frontend = try world.connected()
    for _ in 0..<3 {
      #expect(frontend.disk?.sectorCount == 2 << 11)
      try frontend.eject()
      #expect(try frontend.waitForResize(timeoutMilliseconds: worldMilliseconds))
      #expect(frontend.disk?.sectorCount == 0)
      #expect(try world.node("params") == "")
      // The word was taken back, so that the next medium stays.
      #expect(try frontend.directory.store.read("\(frontend.directory.path)/eject") == "")
      #expect(try world.changeMedium(to: "raw:\(path)") == nil)
      #expect(try frontend.waitForResize(timeoutMilliseconds: worldMilliseconds))
    }
    // Other words, and no text at all, mean nothing.
    for word in ["open", "EJECT", ""] {
      try frontend.directory.store.write("\(frontend.directory.path)/eject", word)
      #expect(try world.resize() == .success(2 << 11))
    }
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
  }

  @Test func aToolstackChangesTheMediumByItsNode() throws {
    let world = try FrontendWorld()
    let path = try image(world, "medium.iso", byte: 1, megabytes: 2)
    try world.addDisk(nodes: Self.drive.merging(["params": ""]) { $1 })
    let frontend = try world.connected()
    try world.write("params", "aio:\(path)")
    #expect(try frontend.waitForResize(timeoutMilliseconds: worldMilliseconds))
    #expect(frontend.disk?.sectorCount == 2 << 11)
    // A medium that is none is told, and the present one stays.
    try world.write("params", "aio:/nonexistent.iso")
    try world.waitForError { $0.contains("/nonexistent.iso") }
    #expect(try ImageTransfer().compare(path: path, with: frontend) == nil)
    // A daemon that starts later looks for the present one, not for the one that was refused.
    try world.wait(until: "params names the present medium") { try $0.node("params") == "aio:\(path)" }
    try world.write("params", "")
    #expect(try frontend.waitForResize(timeoutMilliseconds: worldMilliseconds))
    #expect(frontend.disk?.sectorCount == 0)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
  }

  /// What the toolstack has named while its last medium was found to be bad is not written over.
  @Test func aMediumThatIsNamedMeanwhileCounts() throws {
    let (asked, goOn) = (DispatchSemaphore(value: 0), DispatchSemaphore(value: 0))
    let world = try FrontendWorld { (disk) throws(VbdError) in
      guard disk.image.hasSuffix("bad.iso") else { return try disk.openStore() }
      asked.signal()
      _ = goOn.wait(timeout: .now() + 20)
      throw VbdError("bad.iso is bad")
    }
    let path = try image(world, "medium.iso", byte: 1, megabytes: 2)
    try world.addDisk(nodes: Self.drive.merging(["params": ""]) { $1 })
    let frontend = try world.connected()
    try world.write("params", "aio:/bad.iso")
    try #require(asked.wait(timeout: .now() + 20) == .success)
    try world.write("params", "aio:\(path)")
    goOn.signal()
    #expect(try frontend.waitForResize(timeoutMilliseconds: worldMilliseconds))
    #expect(frontend.disk?.sectorCount == 2 << 11)
    #expect(try world.node("params") == "aio:\(path)")
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
  }

  /// A medium that was refused is tried again when the toolstack names it again.
  @Test func aRefusedMediumThatIsMendedIsTaken() throws {
    let world = try FrontendWorld()
    let late = world.path("late.iso")
    try world.addDisk(nodes: Self.drive.merging(["params": ""]) { $1 })
    let frontend = try world.connected()
    try world.write("params", "aio:\(late)")
    try world.waitForError { $0.contains("late.iso") }
    try world.wait(until: "params names no medium") { try $0.node("params") == "" }
    _ = try image(world, "late.iso", byte: 1, megabytes: 2)
    try world.write("params", "aio:\(late)")
    #expect(try frontend.waitForResize(timeoutMilliseconds: worldMilliseconds))
    #expect(frontend.disk?.sectorCount == 2 << 11)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
  }

  /// In a driver domain `params` may not be its own to write: the refusal is told once all the same.
  @Test func aRefusalThatCannotBeSetBackIsToldOnce() throws {
    let world = try LibxlWorld(backend: DomainID(rawValue: 3))
    try world.addGuest()
    let (guest, device) = (LibxlWorld.guest, LibxlWorld.device)
    try world.toolstack.writeNodes(
      guest, device, params: "", mode: "r", more: [("device-type", "cdrom"), ("removable", "1")])
    try world.toolstack.waitForInitWait(guest, device)
    try world.toolstack.run(.connects, guest, device)
    let back = world.toolstack.backendPath(guest, device)
    try world.store.setPermissions(
      [
        StorePermission(domain: DomainID(rawValue: 0), canRead: false, canWrite: false),
        StorePermission(domain: world.backend, canRead: true, canWrite: false),
      ], of: "\(back)/params")
    try world.store.write("\(back)/params", "aio:/nonexistent.iso")
    _ = try world.waitForLine("could not be set back")
    for round in 0..<5 {
      try world.store.write("\(back)/unrelated", "\(round)")
      try world.settle()
    }
    let refusals = world.daemon.lines.filter { $0.message.contains("could not be changed") }
    #expect(refusals.count == 1, "\(refusals)")
    try world.toolstack.remove(guest, device, isForced: true)
    try world.daemon.stop()
  }

  @Test func aDiskThatIsFixedKeepsItsMedium() throws {
    let world = try FrontendWorld()
    let path = try image(world, "other.img", byte: 1, megabytes: 2)
    let own = try world.addDisk()
    let frontend = try world.connected()
    for medium in [nil, "raw:\(path)"] {
      let refusal = try world.changeMedium(to: medium)
      #expect(refusal?.description.contains("neither a CD-ROM nor removable") == true)
    }
    try frontend.eject()
    try world.write("params", "raw:\(path)")
    #expect(try world.resize() == .success(8 << 11), "neither the guest's word nor the node counts")
    #expect(try ImageTransfer().compare(path: own, with: frontend) == nil)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
  }

  @Test func aBadMediumIsRefusedAndTheOldOneStays() throws {
    let world = try FrontendWorld()
    let path = try image(world, "medium.img", byte: 1, megabytes: 2)
    let ragged = world.path("ragged.img")
    try Data(repeating: 1, count: 1000).write(to: URL(filePath: ragged))
    try world.addDisk(nodes: ["removable": "1", "params": "raw:\(path)"])
    let frontend = try world.connected()
    #expect(frontend.disk?.info == 2)
    for (medium, word) in [
      ("raw:/nonexistent", "/nonexistent"), ("raw:\(ragged)", "512"), ("what", "what"), ("raw:x", "absolute"),
    ] {
      let refusal = try world.changeMedium(to: medium)
      #expect(refusal?.description.contains(word) == true, "\(medium): \(String(describing: refusal))")
      #expect(try world.node("params") == "raw:\(path)")
      #expect(try ImageTransfer().compare(path: path, with: frontend) == nil)
    }
    #expect(try frontend.perform(BlockFrontRequest(.write, sectorCount: 8)) == .okay)
    #expect(try world.pause() == nil)
    #expect(try world.changeMedium(to: nil)?.description.contains("paused") == true)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
  }
}

extension FrontendWorld {
  /// Waits until a disk's error node says what it is to say.
  func waitForError(_ device: UInt32 = device, _ isReached: (String) -> Bool) throws {
    let deadline = ContinuousClock.now + .milliseconds(worldMilliseconds)
    while try !(errorText(Self.guest, device).map(isReached) ?? false) {
      guard .now < deadline else {
        throw WorldFailure(
          "the error node says \(try errorText(Self.guest, device) ?? "nothing"); the log: \(daemon.lines)")
      }
    }
  }
}

extension FrontendWorld {
  /// Waits until something is so, which only a broken program never makes so.
  fileprivate func wait(until what: String, _ isDone: (FrontendWorld) throws -> Bool) throws {
    let deadline = ContinuousClock.now + .milliseconds(worldMilliseconds)
    while try !isDone(self) {
      guard .now < deadline else { throw WorldFailure("waited until \(what); the log: \(daemon.lines)") }
    }
  }
}
