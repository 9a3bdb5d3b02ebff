import Blkback
import Foundation
import Frontends
import RingKit
import Synchronization
import Testing

/// Pauses under load, and daemons that change while a disk is paused.
@Suite(.serialized, .timeLimit(.minutes(10))) struct DeviceLifeTests {
  @Test(arguments: [true, false])
  func aLoadOnManyQueuesSeesOnlyLatency(persistent: Bool) throws {
    var offer = VbdOffer()
    offer.maximumQueues = 4
    let world = try FrontendWorld(offer: offer, threadCount: 2)
    let image = try world.addDisk()
    let copy = world.path("copy.img")
    var options = BlockFrontendOptions()
    options.queueCount = 4
    options.ringPageOrder = 1
    options.persistentGrants = persistent
    let frontend = try world.connected(options)
    let isRunning = Atomic(true)
    let paused = Mutex<Result<Int, WorldFailure>>(.success(0))
    let ended = DispatchSemaphore(value: 0)
    let daemon = world.daemon
    let pauser = Thread {
      do {
        var count = 0
        while isRunning.load(ordering: .acquiring) || count < 3 {
          if let failure = try daemon.pause(FrontendWorld.address) { throw failure }
          // While it is paused nothing changes the image: a copy goes on in its place.
          let (from, to) = count % 2 == 0 ? (image, copy) : (copy, image)
          try? FileManager.default.removeItem(atPath: to)
          try FileManager.default.copyItem(atPath: from, toPath: to)
          if let failure = try daemon.resume(FrontendWorld.address, image: "raw:\(to)") { throw failure }
          count += 1
        }
        paused.withLock { [count] in $0 = .success(count) }
      } catch {
        paused.withLock { $0 = .failure(WorldFailure("\(error)")) }
      }
      ended.signal()
    }
    pauser.start()
    var load = BlockWorkload()
    load.readPercent = 50
    load.queueDepth = 16
    load.requestCount = 4000
    load.writesBetweenFlushes = 64
    load.stallMilliseconds = worldMilliseconds
    let model = DiskModel(sectorCount: 8 << 11, seed: 3, initial: .zero)
    let result = try load.run(on: frontend, model: model)
    isRunning.store(false, ordering: .releasing)
    try #require(ended.wait(timeout: .now() + 20) == .success)
    result.expectIntegrity()
    let count = try paused.withLock { $0 }.get()
    #expect(count >= 3)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    #expect(world.mappedPageCount == 0)
    try world.stop()
  }

  @Test func aDaemonThatStartsLeavesAPausedDiskPaused() throws {
    let world = try FrontendWorld()
    let image = try world.addDisk()
    let frontend = try world.connected()
    #expect(try world.pause() == nil)
    let handle = try #require(try frontend.submit(BlockFrontRequest(.read, sectorCount: 8)))
    try frontend.push()
    try world.stop()
    // Whoever had it paused is not done: the image is not even there.
    let away = world.path("away.img")
    try FileManager.default.moveItem(atPath: image, toPath: away)
    try world.startAgain()
    try world.waitUntilServed()
    try world.kickAndWait(frontend)
    #expect(try frontend.nextCompletion() == nil)
    #expect(try world.isPaused())
    let refusal = try world.resume()
    #expect(refusal?.description.contains(image) == true)
    #expect(try world.resume(image: "raw:\(away)") == nil)
    #expect(try frontend.answer().handle == handle)
    frontend.release(handle)
    try world.stop()

    // The next one serves the image it was resumed with.
    try world.startAgain()
    #expect(try frontend.perform(BlockFrontRequest(.write, sectorCount: 8)) == .okay)
    #expect(try !world.isPaused())
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
  }

  /// A helper process may need a while to let an image go; until then it is not to be changed.
  @Test func aPauseEndsWhenTheImageIsClosed() throws {
    let lingering = Lingering()
    let world = try FrontendWorld { (_) throws(VbdError) in try LingeringStore(lingering) }
    try world.addDisk()
    let frontend = try world.connected()
    let daemon = world.daemon
    let isPaused = Atomic(false)
    let ended = DispatchSemaphore(value: 0)
    Thread {
      let failure = try? daemon.pause(FrontendWorld.address)
      isPaused.store(failure == .some(nil), ordering: .releasing)
      ended.signal()
    }.start()
    let deadline = ContinuousClock.now + .milliseconds(worldMilliseconds)
    while lingering.count == 0 { try #require(.now < deadline, "the image is not closed") }
    #expect(try world.isPaused())
    // An answer to the pause would come before that to a later question, and the thread that waits for it is
    // given the time of some.
    for _ in 0..<200 { _ = try world.limits() }
    let isEarly = isPaused.load(ordering: .acquiring)
    #expect(!isEarly)
    lingering.end()
    try #require(ended.wait(timeout: .now() + 20) == .success)
    let isDone = isPaused.load(ordering: .acquiring)
    #expect(isDone)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
  }

  /// What pausing is for: QEMU's tools refuse an image that is in use, and a snapshot has to hold all that the
  /// guest was told is written.
  @Test func aPausedQcow2ImageCanBeChangedAtOnce() throws {
    let world = try FrontendWorld()
    let image = world.path("disk.qcow2")
    try run("/usr/bin/qemu-img", ["create", "-q", "-f", "qcow2", image, "8M"])
    try world.addDisk(nodes: ["params": "qcow2:\(image)"])
    let frontend = try world.connected()
    var load = BlockWorkload()
    load.readPercent = 30
    load.queueDepth = 8
    load.requestCount = 200
    load.stallMilliseconds = worldMilliseconds
    let model = DiskModel(sectorCount: 8 << 11, seed: 11, initial: .zero)
    for round in 0..<3 {
      try load.run(on: frontend, model: model).expectIntegrity()
      #expect(servers(of: image) > 0)
      #expect(try world.pause() == nil)
      #expect(servers(of: image) == 0, "somebody still has the image")
      try run("/usr/bin/qemu-img", ["snapshot", "-c", "round\(round)", image])
      try run("/usr/bin/qemu-img", ["check", "-q", "-f", "qcow2", image])
      #expect(try world.resume() == nil)
    }
    try load.run(on: frontend, model: model).expectIntegrity()
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try world.stop()
  }

  /// Processes that were started for an image.
  private func servers(of image: String) -> Int {
    let processes = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
    return processes.filter { name in
      guard Int32(name) != nil,
        let command = try? String(contentsOfFile: "/proc/\(name)/cmdline", encoding: .utf8)
      else { return false }
      return command.contains(image)
    }.count
  }

  /// Runs a program and throws what it says when it fails.
  private func run(_ program: String, _ arguments: [String]) throws {
    let process = Process()
    process.executableURL = URL(filePath: program)
    process.arguments = arguments
    let errors = Pipe()
    process.standardError = errors
    try process.run()
    let said = String(decoding: errors.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    process.waitUntilExit()
    guard process.terminationStatus == 0 else {
      throw WorldFailure("\(program) \(arguments.joined(separator: " ")): \(said)")
    }
  }

  @Test func aDiskThatGoesAnswersThoseWhoWaitForIt() throws {
    let world = try FrontendWorld()
    try world.addDisk()
    let frontend = try world.connected()
    #expect(try world.pause() == nil)
    try world.detach()
    // A paused disk can be detached: nothing of it is in flight.
    _ = try? frontend.poll()
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    #expect(world.mappedPageCount == 0)
    try world.stop()
  }
}

extension FrontendWorld {
  /// Whether the usual disk is paused.
  func isPaused() throws -> Bool {
    try daemon.ask(Self.address) { disk, answer in answer(disk.isPaused) }
  }

  /// Waits until the daemon has the usual disk's connection up.
  func waitUntilServed() throws {
    let deadline = ContinuousClock.now + .milliseconds(worldMilliseconds)
    func isReached() -> Bool {
      (try? daemon.ask(Self.address) { disk, answer in
        answer(disk.state == .connected && disk.connectionNumbers != nil)
      }) ?? false
    }
    while !isReached() {
      guard .now < deadline else { throw WorldFailure("the disk is not served; the log: \(daemon.lines)") }
    }
  }
}
