import Blkback
import Foundation
import Frontends
import RingKit
import Testing

/// A disk whose image is let go and taken up again under a running guest.
@Suite(.serialized, .timeLimit(.minutes(10))) struct DevicePauseTests {
  /// Descriptors of this process that are open on a file.
  private func openCount(of path: String) throws -> Int {
    let links = try FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd")
    return links.filter {
      (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/fd/\($0)")) == path
    }.count
  }

  @Test(arguments: [true, false])
  func aPausedDiskAnswersNothingAndThenEverything(persistent: Bool) throws {
    let world = try FrontendWorld()
    let image = try world.addDisk()
    var options = BlockFrontendOptions()
    options.persistentGrants = persistent
    let frontend = try world.connected(options)
    #expect(try frontend.perform(BlockFrontRequest(.write, sectorCount: 8)) == .okay)
    #expect(try openCount(of: image) > 0)

    #expect(try world.pause() == nil)
    #expect(try openCount(of: image) == 0, "others may change the image now")
    #expect(try world.node("paused") == "1")
    #expect(try world.pause() == nil, "a paused disk is left as it is")
    #expect(try frontend.directory.backendState() == .connected)
    let handle = try #require(try frontend.submit(BlockFrontRequest(.read, sectorCount: 8)))
    try frontend.push()
    try world.kickAndWait(frontend)
    #expect(try frontend.nextCompletion() == nil)

    #expect(try world.resume() == nil)
    let completion = try frontend.answer()
    #expect(completion.handle == handle && completion.response.status == .okay)
    frontend.release(handle)
    #expect(try world.node("paused") == nil)
    #expect(try world.resume() == nil)
    #expect(try frontend.perform(BlockFrontRequest(.flush)) == .okay)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    #expect(world.mappedPageCount == 0)
    try world.stop()
  }

  @Test func anotherImageIsServedFromThenOn() throws {
    let world = try FrontendWorld()
    let first = try world.addDisk(byteCount: 4 << 20)
    let second = world.path("second.img")
    try Data(repeating: 2, count: 4 << 20).write(to: URL(filePath: second))
    let small = world.path("small.img")
    try Data(repeating: 3, count: 2 << 20).write(to: URL(filePath: small))
    let frontend = try world.connected()

    let running = try world.resume(image: "raw:\(second)")
    #expect(running?.description.contains("pause it first") == true)
    #expect(try world.pause() == nil)
    for (image, word) in [
      ("raw:\(small)", "--allow-resize"), ("raw:/nonexistent", "/nonexistent"), ("raw:x", "absolute"),
      ("nothing", "nothing"), ("", "params"),
    ] {
      let refusal = try world.resume(image: image)
      #expect(refusal?.description.contains(word) == true, "\(image): \(String(describing: refusal))")
      #expect(try world.node("paused") == "1")
      #expect(try world.node("params") == "raw:\(first)")
    }
    #expect(try world.resume(image: "raw:\(second)") == nil)
    #expect(try world.node("params") == "raw:\(second)")
    let transfer = ImageTransfer()
    #expect(try transfer.compare(path: second, with: frontend) == nil)

    #expect(try world.pause() == nil)
    #expect(try world.resume(image: "raw:\(small)", allowsResize: true) == nil)
    #expect(try world.node("sectors") == "\(2 << 11)")
    #expect(try frontend.perform(BlockFrontRequest(.read, sector: 4095, sectorCount: 1)) == .okay)
    #expect(try frontend.perform(BlockFrontRequest(.read, sector: 4096, sectorCount: 1)) == .error)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
    #expect(try Data(contentsOf: URL(filePath: first)).allSatisfy { $0 == 0 })
  }

  @Test func aFrontendThatConnectsToAPausedDiskWaits() throws {
    let world = try FrontendWorld()
    let image = try world.addDisk()
    let frontend = try world.frontend()
    // Its directory was seen, and nothing more.
    let known = try world.connected()
    try known.close(timeoutMilliseconds: worldMilliseconds)
    #expect(try world.pause() == nil)
    #expect(try openCount(of: image) == 0)
    try frontend.connect(timeoutMilliseconds: worldMilliseconds)
    #expect(frontend.disk?.sectorCount == 8 << 11)
    #expect(try openCount(of: image) == 0)
    let handle = try #require(try frontend.submit(BlockFrontRequest(.read, sectorCount: 8)))
    try frontend.push()
    try world.kickAndWait(frontend)
    #expect(try frontend.nextCompletion() == nil)
    #expect(try world.resume() == nil)
    #expect(try frontend.answer().response.status == .okay)
    frontend.release(handle)

    // A paused disk can be let go.
    #expect(try world.pause() == nil)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    #expect(world.mappedPageCount == 0)
    try world.stop()
  }
}
