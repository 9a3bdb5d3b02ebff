import Blkback
import Foundation
import Frontends
import RingKit
import Testing

/// Two backends for one kind: one serves, the other one says so and keeps its hands off.
@Suite(.serialized, .timeLimit(.minutes(10))) struct LibxlRivalTests {
  static let (guest, device) = (LibxlWorld.guest, LibxlWorld.device)

  /// A writer's image is locked; a reader's is not, so that nothing but the state tells.
  @Test(arguments: ["w", "r"])
  func ofTwoDaemonsOneServes(mode: String) throws {
    let world = try LibxlWorld()
    let first = world.daemon
    let second = try world.startAnother()
    try world.addGuest()
    let params = try world.makeImage()
    for number in 0..<4 as Range<UInt32> {
      let device = Self.device + 16 * number
      let image = number == 0 ? params : try world.makeImage("disk\(number).img")
      try world.toolstack.attach(Self.guest, device, params: image, mode: mode)
      let frontend = try world.frontend(Self.guest, device)
      try frontend.connect(timeoutMilliseconds: worldMilliseconds)
      for _ in 0..<20 { #expect(try frontend.perform(BlockFrontRequest(.read, sectorCount: 8)) == .okay) }
      // Both have looked at everything, and it is still served.
      try world.settle(first)
      try world.settle(second)
      #expect(try world.backendState(Self.guest, device) == .connected)
      #expect(try frontend.perform(BlockFrontRequest(.read, sectorCount: 8)) == .okay)
      let told = (first.lines + second.lines).filter {
        $0.severity == .failure && $0.disk.device == device && $0.message.contains("serves this disk too")
      }
      #expect(told.count == 1, "\(first.lines) \(second.lines)")
      try world.toolstack.beginRemoving(Self.guest, device)
      try frontend.close(timeoutMilliseconds: worldMilliseconds)
      try world.toolstack.remove(Self.guest, device)
    }
    #expect(world.mappedPageCount() == 0)
    try first.stop()
    try second.stop()
  }

  /// A daemon that is started while another one serves takes its disks over when that one ends, not before.
  @Test func aSecondDaemonTakesOverWhenTheFirstEnds() throws {
    let world = try LibxlWorld()
    let first = world.daemon
    try world.addGuest()
    try world.toolstack.attach(Self.guest, Self.device, params: try world.makeImage())
    let frontend = try world.frontend()
    try frontend.connect(timeoutMilliseconds: worldMilliseconds)
    let second = try world.startAnother()
    _ = try world.waitForLine("another ringback (process \(first.name))")
    #expect(try frontend.perform(BlockFrontRequest(.write, sectorCount: 8)) == .okay)
    #expect(try world.backendState() == .connected)
    try first.stop()
    _ = try world.waitForLine("the other backend is gone")
    #expect(try frontend.perform(BlockFrontRequest(.write, sectorCount: 8)) == .okay)
    #expect(try frontend.perform(BlockFrontRequest(.flush)) == .okay)
    // The queues serve before the control thread has heard that they do.
    try world.wait(for: "the second daemon's name") { try world.node("ringback-server") == second.name }
    try world.toolstack.beginRemoving(Self.guest, Self.device)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.toolstack.remove(Self.guest, Self.device)
    try second.stop()
    #expect(world.mappedPageCount() == 0)
  }

  /// tapback, say, which names itself nowhere: it writes states that only a backend writes.
  @Test(arguments: [XenbusState.initWait, .initialised, .connected])
  func aStateThatAnotherBackendWroteEndsOurs(state: XenbusState) throws {
    let world = try LibxlWorld()
    try world.addGuest()
    let params = try world.makeImage()
    try world.toolstack.attach(Self.guest, Self.device, params: params)
    let path = "\(world.toolstack.backendPath(Self.guest, Self.device))/state"
    if state == .initWait {
      let frontend = try world.frontend()
      try frontend.connect(timeoutMilliseconds: worldMilliseconds)
    }
    try world.store.write(path, state.text)
    _ = try world.waitForLine("another backend serves this disk too", "ringback doctor")
    try world.wait(for: "nothing to be mapped") { world.mappedPageCount() == 0 }
    try world.settle(world.daemon)
    #expect(try world.backendState() == state, "the rival's state was written over")
    // Made anew by the toolstack, it is ours again; the image was let go.
    try world.toolstack.writeNodes(Self.guest, Self.device, params: params)
    try world.toolstack.waitForInitWait(Self.guest, Self.device)
    try world.toolstack.run(.connects, Self.guest, Self.device)
    let frontend = try world.frontend()
    try frontend.connect(timeoutMilliseconds: worldMilliseconds)
    #expect(try frontend.perform(BlockFrontRequest(.write, sectorCount: 8)) == .okay)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.daemon.stop()
  }

  @Test func aDiskThatIsLeftToARivalEndsWithItsDirectory() throws {
    let world = try LibxlWorld()
    try world.addGuest()
    let before = try world.allNodes()
    try world.toolstack.attach(Self.guest, Self.device, params: try world.makeImage())
    let path = world.toolstack.backendPath(Self.guest, Self.device)
    try world.store.write("\(path)/state", XenbusState.connected.text)
    _ = try world.waitForLine("another backend serves this disk too")
    for gone in [path, world.toolstack.frontendPath(Self.guest, Self.device)] { try world.store.remove(gone) }
    try world.store.remove(world.toolstack.libxlPath(Self.guest, Self.device))
    try world.settle(world.daemon)
    try world.toolstack.attach(Self.guest, Self.device, params: try world.makeImage())
    try world.toolstack.remove(Self.guest, Self.device)
    try world.daemon.stop()
    #expect(try world.difference(since: before).filter { !$0.hasPrefix("/libxl") } == [])
  }
}
