import Foundation
import Loopback
import RingKit
import Testing

@testable import ringback

/// Taps and guests' disks: who has the image when.
@Suite struct TapGuestTests {
  /// What block-tap does at its `add`; the minor.
  private func addTap(_ stage: TapStage, _ image: String, location: SourceLocation = #_sourceLocation) throws
    -> String
  {
    let name = try stage.tap("allocate", location: location)
    let minor = String(name.dropFirst(TapCommand.devicePrefix.count))
    let process = try stage.tap("spawn", location: location)
    try stage.tap("attach", "-p", process, "-m", minor, location: location)
    try stage.tap("open", "-p", process, "-m", minor, "-a", image, location: location)
    return minor
  }

  private func guest(_ stage: TapStage, milliseconds: Int) throws -> Command.Running {
    try Command.Running(
      [
        "guest", "--own-domain", "1", "--vdev", "xvda", "--load", "randrw", "--check", "--duration",
        "\(milliseconds)",
      ] + stage.stage.host)
  }

  @Test(.timeLimit(.minutes(10)))
  func aGuestRunsOnThroughAChangeOfFormat() throws {
    let stage = try TapStage()
    let presence = try LoopbackHypervisor(
      directory: "\(stage.directory)/machine", domain: DomainID(rawValue: 1))
    defer { withExtendedLifetime(presence) {} }
    let image = try stage.image("a.img")
    try stage.addDisk("aio:\(image)")
    // libxl waits for this before it runs the script.
    try stage.waitForState(.initWait)
    let minor = try addTap(stage, "aio:\(image)")
    try stage.connect(minor)
    let guest = try guest(stage, milliseconds: 8000)
    _ = try stage.daemon.wait(for: "-> Connected")
    let tap = ["-p", stage.process, "-m", minor]
    try stage.expect(EBUSY, "xvda of domain 1", "block-detach", from: ["destroy"] + tap)
    try stage.expect(EBUSY, "xvda of domain 1", from: ["close"] + tap)
    try stage.tap("pause", "-p", stage.process, "-m", minor, "-t", "60")
    let vhd = "\(stage.directory)/a.vhd"
    let converted = try Command.run(
      ["convert", "-f", "raw", "-O", "vpc", "-o", "force_size=on", image, vhd], as: "/usr/bin/qemu-img")
    #expect(converted.status == 0, "\(converted)")
    let large = try stage.image("large.img", size: "32M")
    try stage.expect(EINVAL, "32768", "65536", from: ["unpause"] + tap + ["-a", "aio:\(large)"])
    #expect(try stage.tap("list").hasSuffix(" state=0x2a args=aio:\(image)"))
    try stage.tap("unpause", "-p", stage.process, "-m", minor, "-a", "vhd:\(vhd)")
    #expect(try stage.tap("list").hasSuffix(" state=0 args=vhd:\(vhd)"))
    let text = try stage.tap("stats", "-p", stage.process, "-m", minor)
    let told = try JSONDecoder().decode(TapStatistics.self, from: Data(text.utf8))
    #expect(told.name == "vhd:\(vhd)" && told.secs[0] > 0 && told.secs[1] > 0, "\(text)")
    #expect(
      told.images.count == 1 && told.images[0].driver.type == 4 && told.images[0].fail == [0, 0], "\(text)")
    for key in [
      "ME_enospc_redirect_count\":0", "nbd_mirror_failed\":0", "read_caching\":\"false\"",
      "reqs_outstanding\":",
    ] {
      #expect(text.contains(key), "no \(key) in \(text)")
    }
    #expect(!text.contains("\n"))
    // The converted image has to be what the guest goes on with.
    try FileManager.default.removeItem(atPath: image)
    let outcome = guest.finish()
    #expect(outcome.status == 0, "\(outcome.output)")
    #expect(outcome.output.contains(" 0 errors") && outcome.output.contains(" 0 wrong"), "\(outcome.output)")
    try stage.removeDisk()
    // At once: it waits for the disk to let go.
    try stage.tap("destroy", "-p", stage.process, "-m", minor)
    #expect(try stage.tap("list").isEmpty)
    #expect(try stage.errorNode() == nil)
  }

  @Test(.timeLimit(.minutes(10)))
  func aPauseOutlivesTheDaemon() throws {
    let stage = try TapStage()
    let presence = try LoopbackHypervisor(
      directory: "\(stage.directory)/machine", domain: DomainID(rawValue: 1))
    defer { withExtendedLifetime(presence) {} }
    let (image, copy) = (try stage.image("a.img"), "\(stage.directory)/copy.img")
    try stage.addDisk("aio:\(image)")
    try stage.waitForState(.initWait)
    let minor = try addTap(stage, "aio:\(image)")
    try stage.connect(minor)
    let guest = try guest(stage, milliseconds: 10_000)
    _ = try stage.daemon.wait(for: "-> Connected")
    try stage.tap("pause", "-p", "1", "-m", minor)
    try stage.restartDaemon(killing: false)
    try FileManager.default.copyItem(atPath: image, toPath: copy)
    try FileManager.default.removeItem(atPath: image)
    // As soon as the new daemon has taken the disk up.
    _ = try stage.daemon.wait(for: "connecting")
    try stage.tap("unpause", "-p", "1", "-m", minor, "-a", "aio:\(copy)")
    #expect(try stage.tap("list").hasSuffix(" state=0 args=aio:\(copy)"))
    let outcome = guest.finish()
    #expect(outcome.status == 0, "\(outcome.output)")
    #expect(outcome.output.contains(" 0 errors") && outcome.output.contains(" 0 wrong"), "\(outcome.output)")
  }

  @Test(.timeLimit(.minutes(10)))
  func aForcedClosingPausesTheDisk() throws {
    let stage = try TapStage()
    let presence = try LoopbackHypervisor(
      directory: "\(stage.directory)/machine", domain: DomainID(rawValue: 1))
    defer { withExtendedLifetime(presence) {} }
    let image = try stage.image("a.img")
    try stage.addDisk("aio:\(image)")
    try stage.waitForState(.initWait)
    let minor = try addTap(stage, "aio:\(image)")
    try stage.connect(minor)
    let guest = try guest(stage, milliseconds: 3000)
    _ = try stage.daemon.wait(for: "-> Connected")
    try stage.tap("close", "-p", "1", "-m", minor, "-f", "-t", "120")
    let writer = try Command.run(["-f", "raw", "-c", "write 0 0", image], as: "/usr/bin/qemu-io")
    #expect(writer.status == 0, "\(writer)")
    #expect(try stage.tap("list").hasSuffix("state=0x2"))
    let resumed = try Command.run(["resume", "-d", "1", "-v", "xvda"] + stage.stage.host)
    #expect(resumed.status == 0, "\(resumed)")
    let outcome = guest.finish()
    #expect(outcome.output.contains(" 0 wrong"), "\(outcome.output)")
  }

  @Test(.timeLimit(.minutes(10)))
  func aDiskTakesTheImageFromItsTapAndGivesItBack() throws {
    let stage = try TapStage()
    let image = try stage.image("a.vhd", format: "vpc")
    let minor = try addTap(stage, "vhd:\(image)")
    // xenopsd's params name what the storage manager calls the disk.
    try stage.addDisk(
      "/dev/sm/backend/1234/5678", script: nil,
      more: [
        ("physical-device-path", "/run/blktap-control/nbd\(stage.process).\(minor)"),
        ("hotplug-status", "connected"),
      ])
    try stage.waitForState(.initWait)
    #expect(try stage.store.read("\(stage.backend())/sectors") == "32768")
    let numbers = try Command.run(["stats", "--json"] + stage.stage.host)
    let disks = try JSONDecoder().decode([DiskNumbers].self, from: Data(numbers.output.utf8))
    #expect(disks.map(\.image) == ["vhd:\(image)"])
    try stage.expect(EBUSY, "minor \(minor)", from: ["create", "-a", "vhd:\(image)"])
    try stage.removeDisk()
    try stage.waitForState(.closed)
    // The tap keeps others out again, after a while.
    let deadline = ContinuousClock.now + .seconds(60)
    var attempt = Command.Outcome(status: 0, output: "", errors: "")
    while attempt.status == 0, ContinuousClock.now < deadline {
      attempt = try Command.run(["-f", "raw", "-c", "write 0 0", image], as: "/usr/bin/qemu-io")
    }
    #expect(attempt.errors.contains("lock"), "\(attempt)")
    try stage.tap("destroy", "-p", "1", "-m", minor)
  }

  @Test(.timeLimit(.minutes(10)))
  func aDiskWithoutATapBehindItsSocketIsToldSo() throws {
    let stage = try TapStage()
    try stage.addDisk(
      "/dev/sm/backend/1234/5678", script: nil,
      more: [("physical-device-path", "/run/blktap-control/nbd1.5"), ("hotplug-status", "connected")])
    try stage.waitForEnd()
    #expect(try #require(try stage.errorNode()).contains("/dev/sm/backend/1234/5678"))
  }

  @Test(.timeLimit(.minutes(10)))
  func whatATapForbidsADiskDoesNotDo() throws {
    let stage = try TapStage(domains: [1, 2])
    let (image, other) = (try stage.image("a.img"), try stage.image("b.img"))
    try stage.tap("create", "-R", "-a", "aio:\(image)")
    try stage.addDisk("raw:\(image)", script: nil, more: [("hotplug-status", "connected")])
    try stage.waitForEnd()
    #expect(try #require(try stage.errorNode()).contains("read-only as tap 0"))
    try stage.tap("create", "-a", "aio:\(other)")
    try stage.tap("pause", "-p", "1", "-m", "1")
    try stage.addDisk("aio:\(other)", domain: 2, script: nil, more: [("hotplug-status", "connected")])
    try stage.waitForEnd(domain: 2)
    #expect(try #require(try stage.errorNode(domain: 2)).contains("tap-ctl unpause"))
  }

  @Test(.timeLimit(.minutes(10)))
  func aBadImageWaitsForTheScriptToSayWhatIsWrong() throws {
    let stage = try TapStage(domains: [1, 2])
    let missing = "\(stage.directory)/late.img"
    try stage.addDisk("aio:\(missing)")
    try stage.waitForState(.initWait)
    #expect(try #require(try stage.errorNode()).contains("does not exist"))
    #expect(try stage.store.read("\(stage.backend())/sectors") == nil)
    try stage.expect(ENOENT, missing, from: ["create", "-a", "aio:\(missing)"])
    // It is there by the time that the script has come to its end.
    _ = try stage.image("late.img")
    try stage.connect(try addTap(stage, "aio:\(missing)"))
    try stage.waitForNode("sectors") { $0 == "32768" }
    // A second guest may not have it, and its script would not succeed either.
    try stage.addDisk("aio:\(missing)", domain: 2)
    try stage.waitForState(.initWait, domain: 2)
    #expect(try stage.store.read("\(stage.backend(2))/sectors") == nil)
    #expect(try #require(try stage.errorNode(domain: 2)).contains("another writer"))
    // A script that does not look at the image.
    try stage.connect("0", domain: 2)
    try stage.waitForEnd(domain: 2)
  }

  /// A guest is destroyed, and the next one has its image at once: that one's disk waits until the requests in flight
  /// have ended and the image is closed, and then is served. Nothing else wakes it.
  @Test(.timeLimit(.minutes(10)), arguments: [("aio", "raw"), ("vhd", "vpc")])
  func anImageIsHandedOn(type: String, format: String) throws {
    let stage = try TapStage(domains: [1, 2])
    let presence = try LoopbackHypervisor(
      directory: "\(stage.directory)/machine", domain: DomainID(rawValue: 1))
    defer { withExtendedLifetime(presence) {} }
    let image = "\(type):\(try stage.image("a.img", format: format))"
    let connected = [("hotplug-status", "connected")]
    try stage.addDisk(image, script: nil, more: connected)
    let guest = try guest(stage, milliseconds: 60_000)
    defer { guest.process.terminate() }
    _ = try stage.daemon.wait(for: "-> Connected")
    try stage.addDisk(image, domain: 2, script: nil, more: connected, replacing: 1)
    try stage.waitForNode("state", domain: 2) { $0 != XenbusState.initialising.text }
    #expect(try stage.store.read("\(stage.backend(2))/state") == XenbusState.initWait.text)
    #expect(try stage.store.read("\(stage.backend(2))/sectors") == "32768")
    #expect(try stage.errorNode(domain: 2) == nil)
  }

  @Test(.timeLimit(.minutes(10)))
  func aTapFollowsADiskThatGoesOnWithAnotherImage() throws {
    let stage = try TapStage()
    let (image, other) = (try stage.image("a.img"), try stage.image("b.img"))
    try stage.addDisk("aio:\(image)")
    try stage.waitForState(.initWait)
    let minor = try addTap(stage, "aio:\(image)")
    try stage.connect(minor)
    func run(_ words: String...) throws {
      let outcome = try Command.run(
        [words[0], "-d", "1", "-v", "xvda"] + words.dropFirst() + stage.stage.host)
      #expect(outcome.status == 0, "\(outcome)")
    }
    try run("pause")
    try run("resume", "--image", "aio:\(other)")
    #expect(try stage.tap("list").hasSuffix(" args=aio:\(other)"))
  }
}
