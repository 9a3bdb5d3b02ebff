import Blkback
import Foundation
import Frontends
import RingKit
import Testing

/// Rate limits of a disk, changed while it is served.
@Suite(.serialized, .timeLimit(.minutes(10))) struct DeviceLimitTests {
  /// So slow that one large request leaves a debt of ten seconds.
  private static let slow = "4096"

  /// A request that has to wait, after one that passed.
  private func requestThatWaits(_ frontend: BlockFrontend, _ world: FrontendWorld) throws -> RequestHandle {
    #expect(try frontend.perform(BlockFrontRequest(.read, sectorCount: 88)) == .okay)
    let handle = try #require(try frontend.submit(BlockFrontRequest(.read, sectorCount: 8)))
    try frontend.push()
    try world.kickAndWait(frontend)
    #expect(try frontend.nextCompletion() == nil, "the limit does not hold")
    return handle
  }

  @Test func limitsHoldAndAreLiftedUnderARunningGuest() throws {
    let world = try FrontendWorld()
    try world.addDisk(nodes: ["limit-bytes": Self.slow])
    let frontend = try world.connected()
    let handle = try requestThatWaits(frontend, world)
    #expect(try world.setLimits(.unlimited) == nil)
    #expect(try world.node("limit-bytes") == nil)
    #expect(try frontend.answer().handle == handle)
    frontend.release(handle)

    let limits = try RateLimits(
      bytesPerSecond: 4096, bytesBurst: 8192, requestsPerSecond: 1000, requestsBurst: 10)
    #expect(try world.setLimits(limits) == nil)
    for (name, value) in [
      ("limit-bytes", "4096"), ("limit-bytes-burst", "8192"), ("limit-requests", "1000"),
      ("limit-requests-burst", "10"),
    ] {
      #expect(try world.node(name) == value)
    }
    #expect(try world.limits() == limits)
    _ = try requestThatWaits(frontend, world)
    // What waits does not keep the disk from going.
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
  }

  @Test func limitsAreFollowedInTheStoreAndSurviveTheDaemon() throws {
    let world = try FrontendWorld()
    try world.addDisk()
    let frontend = try world.connected()
    try world.write("limit-bytes", Self.slow)
    try world.waitForLimits { $0.bytesPerSecond == 4096 }
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
    try world.startAgain()
    try frontend.connect(timeoutMilliseconds: worldMilliseconds)
    #expect(try world.limits().bytesPerSecond == 4096)
    let handle = try requestThatWaits(frontend, world)
    try world.write("limit-bytes", "0")
    #expect(try frontend.answer().handle == handle)
    frontend.release(handle)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
  }

  @Test(arguments: ["fast", "4095", "-1", "", "99999999999999999999"])
  func limitsWithoutSenseAreToldOnceAndTheOldOnesStay(value: String) throws {
    let world = try FrontendWorld()
    try world.addDisk(nodes: ["limit-requests": "1000000"])
    let frontend = try world.connected()
    try world.write("limit-bytes", value)
    #expect(try frontend.perform(BlockFrontRequest(.read, sectorCount: 88)) == .okay)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try frontend.connect(timeoutMilliseconds: worldMilliseconds)
    #expect(try world.limits().requestsPerSecond == 1_000_000)
    #expect(try world.limits().bytesPerSecond == 0)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
    let told = world.daemon.lines.filter { $0.severity == .warning && $0.message.contains("limit-") }
    #expect(told.count == 1, "\(told)")
  }
}

extension FrontendWorld {
  /// Sets the usual disk's limits.
  func setLimits(_ limits: RateLimits) throws -> VbdError? {
    try daemon.ask(Self.address) { disk, answer in disk.setLimits(limits) { answer($0) } }
  }

  /// The limits in force.
  func limits() throws -> RateLimits {
    try daemon.ask(Self.address) { disk, answer in answer(disk.limits) }
  }

  /// Waits until the limits are as they are to be.
  func waitForLimits(_ isReached: (RateLimits) -> Bool) throws {
    let deadline = ContinuousClock.now + .milliseconds(worldMilliseconds)
    while try !isReached(limits()) {
      guard .now < deadline else { throw WorldFailure("the limits are not followed: \(daemon.lines)") }
    }
  }
}
