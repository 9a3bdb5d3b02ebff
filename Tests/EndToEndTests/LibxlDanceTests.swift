import Blkback
import Foundation
import Frontends
import RingKit
import Testing

/// libxl's dance with a disk of backendtype=tap, in every order that its user may cause.
@Suite(.serialized, .timeLimit(.minutes(10))) struct LibxlDanceTests {
  static let (guest, device) = (LibxlWorld.guest, LibxlWorld.device)
  /// Domain 0, and a driver domain.
  static let backends = [DomainID(rawValue: 0), DomainID(rawValue: 3)]

  @Test(arguments: backends)
  func aFrontendThatIsEarlyWaitsForTheScript(backend: DomainID) throws {
    let world = try LibxlWorld(backend: backend)
    let before = try world.allNodes()
    try world.addGuest()
    let home = try world.allNodes()
    try world.toolstack.writeNodes(Self.guest, Self.device, params: try world.makeImage())
    let connecting = try world.connecting()
    try world.wait(for: "the frontend to be ready") {
      try world.store.state("\(world.toolstack.frontendPath(Self.guest, Self.device))/state") == .initialised
    }
    try world.settle()
    // Only now does libxl look; the state must not have gone on.
    try world.toolstack.waitForInitWait(Self.guest, Self.device)
    try world.toolstack.run(.connects, Self.guest, Self.device)
    let frontend = try connecting.result()
    #expect(try frontend.perform(BlockFrontRequest(.write, sectorCount: 8)) == .okay)
    #expect(try frontend.perform(BlockFrontRequest(.flush)) == .okay)
    #expect(try world.errorText() == nil)
    try detach(frontend, world)
    #expect(try world.difference(since: home) == [])
    world.removeGuest()
    try world.daemon.stop()
    #expect(try before.isSubset(of: world.allNodes()))
  }

  @Test(arguments: backends)
  func aFrontendThatIsLateFindsTheDisk(backend: DomainID) throws {
    let world = try LibxlWorld(backend: backend)
    try world.addGuest()
    try world.toolstack.attach(Self.guest, Self.device, params: try world.makeImage())
    try world.settle()
    #expect(try world.backendState() == .initWait)
    let frontend = try world.frontend()
    try frontend.connect(timeoutMilliseconds: worldMilliseconds)
    #expect(try frontend.perform(BlockFrontRequest(.read, sectorCount: 8)) == .okay)
    try detach(frontend, world)
    try world.daemon.stop()
  }

  /// The guest closes when it sees our Closing; libxl waits for Closed.
  private func detach(_ frontend: BlockFrontend, _ world: LibxlWorld) throws {
    try world.toolstack.beginRemoving(Self.guest, Self.device)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.toolstack.remove(Self.guest, Self.device)
    try world.wait(for: "nothing to be mapped") { world.mappedPageCount() == 0 }
  }

  static let badImages: [(params: String, words: String)] = [
    ("aio:/nonexistent/disk.img", "/nonexistent/disk.img"),
    ("vhd:/nonexistent/disk.vhd", "/nonexistent/disk.vhd"),
    ("cow:/srv/disk.cow", "cow"), ("aio:disk.img", "absolute"),
  ]

  /// libxl runs the script only after InitWait, and only its words reach the user: the backend gets there
  /// with an image that cannot be opened, says so too, and leaves nothing behind.
  @Test(arguments: badImages.indices, backends)
  func anImageThatCannotBeOpenedIsTheScriptsToReport(index: Int, backend: DomainID) throws {
    let (params, words) = Self.badImages[index]
    let world = try LibxlWorld(backend: backend)
    try world.addGuest()
    let before = try world.allNodes()
    #expect(throws: LibxlToolstack.Failure.script("Could not open \"\(params)\"")) {
      try world.toolstack.attach(
        Self.guest, Self.device, params: params, script: .fails("Could not open \"\(params)\""))
    }
    let line = try world.waitForLine("hotplug script failed", "Could not open")
    #expect(world.daemon.lines.contains { $0.severity == .failure && $0.message == line })
    #expect(world.daemon.lines.contains { $0.severity == .failure && $0.message.contains(words) })
    try world.wait(for: "the error node") { try world.errorText()?.contains("hotplug script failed") == true }
    #expect(try world.backendState() == .initWait)
    #expect(try world.node("sectors") == nil, "a size of what could not be opened")
    try world.toolstack.remove(Self.guest, Self.device)
    try world.wait(for: "the error to be taken back") { try world.errorText() == nil }
    #expect(try world.difference(since: before) == [])
    // A driver domain's was there before, and it cannot make it again.
    #expect(try world.store.exists("/local/domain/\(backend)/error"), "the toolstack's directory has gone")
    try world.daemon.stop()
  }

  @Test func aScriptThatSaysNothingLeavesTheDiskUnserved() throws {
    let world = try LibxlWorld()
    try world.addGuest()
    let params = try world.makeImage()
    #expect(throws: LibxlToolstack.Failure.script(nil)) {
      try world.toolstack.attach(Self.guest, Self.device, params: params, script: .isSilent)
    }
    let connecting = try world.connecting()
    try world.wait(for: "the frontend to be ready") {
      try world.store.state("\(world.toolstack.frontendPath(Self.guest, Self.device))/state") == .initialised
    }
    _ = try world.waitForLine("hotplug-status", "block-tap")
    #expect(try world.backendState() == .initWait)
    #expect(world.mappedPageCount() == 0)
    try world.toolstack.beginRemoving(Self.guest, Self.device)
    try world.toolstack.remove(Self.guest, Self.device)
    _ = try? connecting.result()
    try world.daemon.stop()
  }

  /// The script may mend it: an image that comes later is opened when the disk connects.
  @Test func anImageThatComesWithTheScriptIsServed() throws {
    let world = try LibxlWorld()
    try world.addGuest()
    let params = "aio:\(world.path("late.img"))"
    try world.toolstack.writeNodes(Self.guest, Self.device, params: params)
    try world.toolstack.waitForInitWait(Self.guest, Self.device)
    #expect(try world.errorText()?.contains("late.img") == true)
    #expect(try world.makeImage("late.img") == params)
    try world.toolstack.run(.connects, Self.guest, Self.device)
    let frontend = try world.frontend()
    try frontend.connect(timeoutMilliseconds: worldMilliseconds)
    #expect(frontend.disk?.sectorCount == 2048)
    #expect(try frontend.perform(BlockFrontRequest(.write, sectorCount: 8)) == .okay)
    #expect(try world.errorText() == nil)
    try detach(frontend, world)
    try world.daemon.stop()
  }

  /// A script that said it is done with an image that is still not there: the guest is told, and the reason
  /// too.
  @Test func anImageThatNeverComesEndsInClosed() throws {
    let world = try LibxlWorld()
    try world.addGuest()
    try world.toolstack.attach(Self.guest, Self.device, params: "aio:/nonexistent/disk.img")
    try world.wait(for: "Closed") { try world.backendState() == .closed }
    #expect(try world.errorText()?.contains("/nonexistent/disk.img") == true)
    try world.toolstack.remove(Self.guest, Self.device)
    try world.wait(for: "the error to be taken back") { try world.errorText() == nil }
    try world.daemon.stop()
  }

  /// An image whose script failed is not kept from others while the device's nodes are still there.
  @Test func aFailedScriptsImageIsFree() throws {
    let world = try LibxlWorld()
    try world.addGuest()
    let params = try world.makeImage()
    #expect(throws: LibxlToolstack.Failure.script("no")) {
      try world.toolstack.attach(Self.guest, Self.device, params: params, script: .fails("no"))
    }
    _ = try world.waitForLine("hotplug script failed")
    try world.toolstack.attach(Self.guest, Self.device + 16, params: params)
    let frontend = try world.frontend(Self.guest, Self.device + 16)
    try frontend.connect(timeoutMilliseconds: worldMilliseconds)
    #expect(try frontend.perform(BlockFrontRequest(.write, sectorCount: 8)) == .okay)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.daemon.stop()
  }

  /// A guest that does not answer: after its patience libxl takes the frontend's directory away.
  @Test(arguments: backends)
  func aGuestThatDoesNotAnswerIsDetachedByForce(backend: DomainID) throws {
    let world = try LibxlWorld(backend: backend)
    try world.addGuest()
    let before = try world.allNodes()
    try world.toolstack.attach(Self.guest, Self.device, params: try world.makeImage())
    let frontend = try world.frontend()
    try frontend.connect(timeoutMilliseconds: worldMilliseconds)
    while let handle = try frontend.prepare(BlockFrontRequest(.read, sectorCount: 8)) {
      frontend.submit(handle)
    }
    try frontend.push()
    try world.toolstack.remove(Self.guest, Self.device, patience: 50)
    #expect(world.mappedPageCount() == 0, "Closed, and pages are still mapped")
    #expect(try world.difference(since: before) == [])
    try world.daemon.stop()
  }

  /// xenopsd names no script; it writes its nodes when it is done with the storage, and reads the state
  /// never.
  @Test func xenopsdsWayWaitsForHotplugStatus() throws {
    let world = try LibxlWorld()
    try world.addGuest()
    let image = try world.makeImage()
    try world.toolstack.writeNodes(
      Self.guest, Self.device, params: "/dev/sm/backend/sr/vdi", scriptName: nil,
      more: [("polling-duration", "8000"), ("polling-idle-threshold", "50")])
    let connecting = try world.connecting()
    try world.wait(for: "the frontend to be ready") {
      try world.store.state("\(world.toolstack.frontendPath(Self.guest, Self.device))/state") == .initialised
    }
    try world.settle()
    #expect(try world.backendState() == .initWait)
    let back = world.toolstack.backendPath(Self.guest, Self.device)
    for (name, value) in [
      ("params", image), ("physical-device", "fd:0"), ("physical-device-path", "/run/blktap-control/nbd1.0"),
      ("hotplug-status", "connected"),
    ] {
      try world.store.write("\(back)/\(name)", value)
    }
    let frontend = try connecting.result()
    #expect(try frontend.perform(BlockFrontRequest(.write, sectorCount: 8)) == .okay)
    // Its removal has no InitWait and no script either; the last node to go is hotplug-status.
    try detach(frontend, world)
    try world.daemon.stop()
  }

  /// All of the script's nodes are there before the daemon starts (xapi-project/blktap, pull request 441).
  @Test func nodesThatAreOlderThanTheDaemonCount() throws {
    let world = try LibxlWorld()
    try world.daemon.stop()
    try world.addGuest()
    try world.toolstack.writeNodes(Self.guest, Self.device, params: try world.makeImage())
    try world.toolstack.run(.connects, Self.guest, Self.device)
    _ = try world.startAnother()
    let frontend = try world.frontend()
    try frontend.connect(timeoutMilliseconds: worldMilliseconds)
    #expect(try frontend.perform(BlockFrontRequest(.read, sectorCount: 8)) == .okay)
    try detach(frontend, world)
    try world.daemon.stop()
  }

  /// Whoever sees Closed may use the image: libxl's script, another guest's disk, another program.
  @Test func closedIsWrittenAfterTheImageIsClosed() throws {
    let lingering = Lingering()
    let world = try LibxlWorld { (_) throws(VbdError) in try LingeringStore(lingering) }
    try world.addGuest()
    try world.toolstack.attach(Self.guest, Self.device, params: "ram:1M")
    let frontend = try world.frontend()
    try frontend.connect(timeoutMilliseconds: worldMilliseconds)
    try world.toolstack.beginRemoving(Self.guest, Self.device, isForced: true)
    try world.wait(for: "the image to be closed") { lingering.count == 1 }
    try world.settle()
    #expect(world.mappedPageCount() == 0)
    #expect(try world.backendState() == .closing, "the image is not closed yet")
    lingering.end()
    try world.toolstack.remove(Self.guest, Self.device)
    try world.daemon.stop()
  }

  /// A guest that closes and comes back, as at a kexec, finds its image kept from others meanwhile.
  @Test func aDiskThatStaysKeepsItsImage() throws {
    let lingering = Lingering()
    let world = try LibxlWorld { (_) throws(VbdError) in try LingeringStore(lingering) }
    try world.addGuest()
    try world.toolstack.attach(Self.guest, Self.device, params: "ram:1M")
    let frontend = try world.frontend()
    for _ in 0..<2 {
      try frontend.connect(timeoutMilliseconds: worldMilliseconds)
      try frontend.close(timeoutMilliseconds: worldMilliseconds)
    }
    #expect(lingering.count == 0, "the image was let go")
    try world.toolstack.beginRemoving(Self.guest, Self.device)
    try world.wait(for: "the image to be closed") { lingering.count == 1 }
    lingering.end()
    try world.toolstack.remove(Self.guest, Self.device)
    try world.daemon.stop()
  }

  /// A daemon that is told to stop meanwhile waits for it all the same.
  @Test func aDaemonThatStopsWaitsForTheImageToBeClosed() throws {
    let lingering = Lingering()
    let world = try LibxlWorld { (_) throws(VbdError) in try LingeringStore(lingering) }
    try world.addGuest()
    try world.toolstack.attach(Self.guest, Self.device, params: "ram:1M")
    try world.toolstack.beginRemoving(Self.guest, Self.device, isForced: true)
    try world.wait(for: "the image to be closed") { lingering.count == 1 }
    let daemon = world.daemon
    let ended = DispatchSemaphore(value: 0)
    Thread {
      try? daemon.stop()
      ended.signal()
    }.start()
    // The daemon has heard of the stop when it answers a command that came after it.
    for _ in 0..<200 { try world.settle() }
    #expect(try world.backendState() == .closing, "the image is not closed yet")
    lingering.end()
    try #require(ended.wait(timeout: .now() + 20) == .success)
    let state = try world.backendState()
    #expect(state == .closed, "\(daemon.lines)")
  }

  /// Both directories vanish while an image takes its time, and the next guest's disk is there already: it
  /// waits, and is served when the image is free.
  @Test func aDiskWaitsForAnImageThatIsBeingClosed() throws {
    let lingering = Lingering()
    let world = try LibxlWorld { (_) throws(VbdError) in try LingeringStore(lingering) }
    try world.addGuest()
    let next = DomainID(rawValue: 8)
    try world.addGuest(next)
    try world.toolstack.attach(Self.guest, Self.device, params: "ram:1M")
    for path in [
      world.toolstack.frontendPath(Self.guest, Self.device),
      world.toolstack.backendPath(Self.guest, Self.device),
    ] {
      try world.store.remove(path)
    }
    try world.wait(for: "the image to be closed") { lingering.count == 1 }
    try world.toolstack.writeNodes(next, Self.device, params: "ram:1M")
    try world.settle()
    #expect(try world.backendState(next) == .initialising, "the image is not free yet")
    // Who wants another image does not wait.
    let other = Self.device + 16
    try world.toolstack.attach(next, other, params: "ram:2M")
    try world.toolstack.beginRemoving(next, other, isForced: true)
    try world.wait(for: "the other image to be closed") { lingering.count == 2 }
    #expect(try world.backendState(next) == .initialising, "the image is not free yet")
    lingering.end()
    try world.toolstack.remove(next, other)
    try world.toolstack.waitForInitWait(next, Self.device)
    try world.toolstack.run(.connects, next, Self.device)
    let frontend = try world.frontend(next)
    try frontend.connect(timeoutMilliseconds: worldMilliseconds)
    try world.toolstack.beginRemoving(next, Self.device, isForced: true)
    try world.wait(for: "the image to be closed") { lingering.count == 1 }
    lingering.end()
    try world.toolstack.remove(next, Self.device)
    try world.daemon.stop()
  }

  /// What an earlier daemon has told of a device that went while no daemon ran.
  @Test func aReportedDiskThatGoesLeavesNoError() throws {
    let world = try LibxlWorld()
    try world.addGuest()
    let before = try world.allNodes()
    try world.toolstack.writeNodes(Self.guest, Self.device, params: "aio:/nonexistent/disk.img")
    try world.toolstack.waitForInitWait(Self.guest, Self.device)
    #expect(try world.errorText()?.contains("/nonexistent/disk.img") == true)
    for path in [
      world.toolstack.frontendPath(Self.guest, Self.device),
      world.toolstack.backendPath(Self.guest, Self.device),
      world.toolstack.libxlPath(Self.guest, Self.device),
    ] {
      try world.store.remove(path)
    }
    try world.wait(for: "the error to be taken back") { try world.errorText() == nil }
    try world.daemon.stop()
    let left = try world.difference(since: before).filter { $0.contains("/error") }
    #expect(left == [])
  }
}
