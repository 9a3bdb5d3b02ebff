import Blkback
import Foundation
import Frontends
import RingKit
import Synchronization
import Testing

/// A medium that loses what was written to it.
@Suite(.serialized, .timeLimit(.minutes(10))) struct DeviceLossTests {
  @Test func lossesAreToldOnceAndAGoodImageEndsThem() throws {
    let fails = Atomic(true)
    let world = try FrontendWorld { (disk) throws(VbdError) in
      ForgetfulStore(try disk.openStore(), isForgetful: fails.load(ordering: .acquiring))
    }
    let image = try world.addDisk()
    let frontend = try world.connected()
    #expect(try frontend.perform(BlockFrontRequest(.write, sectorCount: 8)) == .okay)
    let flushes = try (0..<3).map { _ in try #require(try frontend.submit(BlockFrontRequest(.flush))) }
    try frontend.push()
    try world.waitForError { $0.contains("error 5") && $0.contains("resume") }
    let write = try #require(try frontend.submit(BlockFrontRequest(.write, sectorCount: 8)))
    try frontend.push()
    let completion = try frontend.answer()
    #expect(completion.handle == write && completion.response.status == .error)
    frontend.release(write)
    #expect(try frontend.perform(BlockFrontRequest(.read, sectorCount: 8)) == .okay, "reads go on")
    let told = world.daemon.lines.filter { $0.severity == .failure }
    #expect(told.count == 1, "\(told)")

    // Neither another size, nor a pause for whatever reason, nor another connection makes it good.
    fails.store(false, ordering: .releasing)
    #expect(try world.resize() == .success(8 << 11))
    #expect(try world.pause() == nil)
    #expect(try world.resume() == nil)
    #expect(try world.errorText()?.contains("error 5") == true)
    #expect(try frontend.perform(BlockFrontRequest(.write, sectorCount: 8)) == .error)
    #expect(try frontend.nextCompletion() == nil, "a flush was answered")

    #expect(try world.pause() == nil)
    #expect(try world.resume(image: "raw:\(image)") == nil)
    #expect(try world.errorText() == nil)
    for _ in flushes {
      let completion = try frontend.answer()
      #expect(completion.response.status == .okay)
      frontend.release(try #require(completion.handle))
    }
    #expect(try frontend.perform(BlockFrontRequest(.write, sectorCount: 8)) == .okay)
    #expect(try frontend.perform(BlockFrontRequest(.flush)) == .okay)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
  }

  @Test func anotherConnectionHearsOfAnEarlierLoss() throws {
    let world = try FrontendWorld { (disk) throws(VbdError) in
      ForgetfulStore(try disk.openStore(), isForgetful: true)
    }
    try world.addDisk()
    let frontend = try world.connected()
    _ = try frontend.submit(BlockFrontRequest(.flush))
    try frontend.push()
    try world.waitForError { $0.contains("error 5") }
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try frontend.connect(timeoutMilliseconds: worldMilliseconds)
    try world.waitForError { $0.contains("error 5") }
    #expect(try frontend.perform(BlockFrontRequest(.write, sectorCount: 8)) == .error)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
  }
}

/// A store whose flushes fail with EIO.
final class ForgetfulStore: StoreAround {
  let below: any BlockStore
  private let isForgetful: Bool

  init(_ below: any BlockStore, isForgetful: Bool) {
    self.below = below
    self.isForgetful = isForgetful
  }

  func openChannel(_ place: StoreChannelPlace) throws(VbdError) -> any StoreChannel {
    let channel = try below.openChannel(place)
    return isForgetful ? ForgetfulChannel(channel) : channel
  }
}

private final class ForgetfulChannel: ChannelAround {
  let below: any StoreChannel
  private var failed: [UInt32] = []

  init(_ below: any StoreChannel) { self.below = below }

  func flush(token: UInt32) { failed.append(token) }

  func nextCompletion() -> StoreCompletion? {
    if let token = failed.popLast() { return StoreCompletion(token: token, result: -5) }
    return below.nextCompletion()
  }

  var hasCompletions: Bool { !failed.isEmpty || below.hasCompletions }
}
