import Blkback
import Foundation
import Frontends
import RingKit
import Testing

/// Disks that become larger or smaller while they are used.
@Suite(.serialized, .timeLimit(.minutes(10))) struct DeviceResizeTests {
  private func truncate(_ path: String, to byteCount: Int) throws {
    let file = try FileHandle(forWritingTo: URL(filePath: path))
    try file.truncate(atOffset: UInt64(byteCount))
    try file.close()
  }

  private func lookAtSize(_ world: FrontendWorld) throws {
    let _: Bool = try world.daemon.ask(FrontendWorld.address) { disk, answer in
      disk.lookAtSize()
      answer(true)
    }
  }

  @Test func aFileThatGrowsIsNoticedAndUsed() throws {
    let world = try FrontendWorld()
    let image = try world.addDisk(byteCount: 4 << 20)
    let frontend = try world.connected()
    let last = BlockFrontRequest(.write, sector: (6 << 11) - 8, sectorCount: 8)
    #expect(try frontend.perform(last) == .error)
    try truncate(image, to: 6 << 20)
    try lookAtSize(world)
    #expect(try frontend.waitForResize(timeoutMilliseconds: worldMilliseconds))
    #expect(frontend.disk?.sectorCount == 6 << 11)
    #expect(try frontend.perform(last) == .okay)
    #expect(try frontend.directory.backendState() == .connected)

    // The last bytes of a file that is no whole number of the medium's blocks are left out.
    try truncate(image, to: (7 << 20) + 512)
    guard case .success(let count) = try world.resize() else {
      Issue.record("the resize failed")
      return
    }
    #expect(count == 7 << 11 || count == 7 << 11 + 1)
    #expect(
      try frontend.perform(BlockFrontRequest(.write, sector: UInt64(count) - 1, sectorCount: 1)) == .okay)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
  }

  @Test func shrinkingHasToBeAllowed() throws {
    let world = try FrontendWorld()
    let image = try world.addDisk(byteCount: 4 << 20)
    let frontend = try world.connected()
    try truncate(image, to: 2 << 20)
    for _ in 0..<3 { try lookAtSize(world) }
    #expect(try world.node("sectors") == "\(4 << 11)")
    let told = world.daemon.lines.filter { $0.severity == .warning && $0.message.contains("shrunk") }
    #expect(told.count == 1, "\(told)")
    guard case .failure(let error) = try world.resize() else {
      Issue.record("shrinking was not refused")
      return
    }
    #expect(error.description.contains("--allow-shrink"))
    // What is no longer there is no zeros either.
    #expect(try frontend.perform(BlockFrontRequest(.read, sector: 3 << 11, sectorCount: 8)) == .error)
    #expect(try world.resize(allowsShrink: true) == .success(2 << 11))
    #expect(try frontend.waitForResize(timeoutMilliseconds: worldMilliseconds))
    #expect(frontend.disk?.sectorCount == 2 << 11)
    #expect(try frontend.perform(BlockFrontRequest(.read, sector: (2 << 11) - 8, sectorCount: 8)) == .okay)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
  }

  @Test func aDiskWithoutAFrontendIsResizedForTheNextOne() throws {
    let world = try FrontendWorld()
    let image = try world.addDisk(byteCount: 4 << 20)
    var frontend = try world.connected()
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try truncate(image, to: 5 << 20)
    #expect(try world.resize() == .success(5 << 11))
    #expect(try world.node("sectors") == "\(5 << 11)")
    #expect(try world.pause() == nil)
    if case .success = try world.resize() { Issue.record("a paused disk has no size to look at") }
    #expect(try world.resume() == nil)
    frontend = try world.connected()
    #expect(frontend.disk?.sectorCount == 5 << 11)
    #expect(try frontend.perform(BlockFrontRequest(.read, sector: (5 << 11) - 1, sectorCount: 1)) == .okay)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
  }

  /// The state is rewritten in the transaction that tells the size: blkfront looks at the size only when the
  /// state's watch fires.
  @Test func theSizeIsThereWhenTheStatesWatchFires() throws {
    let world = try FrontendWorld()
    let image = try world.addDisk(byteCount: 4 << 20)
    let frontend = try world.connected()
    let state = "\(world.backendPath())/state"
    try world.toolstack.watch(state, token: "state")
    let deadline = ContinuousClock.now + .milliseconds(worldMilliseconds)
    func nextEvent() throws {
      while try world.toolstack.nextWatchEvent() == nil {
        guard .now < deadline else { throw WorldFailure("no event for the state") }
      }
    }
    try nextEvent()
    try truncate(image, to: 5 << 20)
    #expect(try world.resize() == .success(5 << 11))
    try nextEvent()
    #expect(try world.node("sectors") == "\(5 << 11)")
    #expect(try world.toolstack.state(state) == .connected)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
  }
}
