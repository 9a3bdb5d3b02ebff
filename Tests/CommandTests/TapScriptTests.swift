import Foundation
import RingKit
import Testing

@testable import ringback

/// Xen's own script for backendtype=tap, unchanged, on a loopback machine.
@Suite struct TapScriptTests {
  /// Where the lab keeps Debian's files (Lab/place.sh), and where Xen's package puts them.
  private static let scripts: String? = {
    let environment = ProcessInfo.processInfo.environment
    let cache =
      environment["RINGBACK_LAB_CACHE"]
      ?? "\(environment["XDG_CACHE_HOME"] ?? "\(NSHomeDirectory())/.cache")/ringback-lab"
    return ["\(cache)/root/etc/xen/scripts", "/etc/xen/scripts"].first {
      FileManager.default.fileExists(atPath: "\($0)/block-tap")
    }
  }()

  /// The script writes below /var and /run, so that it gets its own ones.
  private static let canUnshare = (try? Command.run(["-rm", "true"], as: "/usr/bin/unshare"))?.status == 0
  private static let hasTools = FileManager.default.isExecutableFile(atPath: "/usr/bin/xenstore-read")

  /// Runs the script as libxl does (libxl_linux.c, libxl__get_hotplug_script_info); gives its status and its log.
  private func run(_ command: String, _ stage: TapStage, domain: Int = 1) throws -> Command.Outcome {
    let scripts = try #require(Self.scripts)
    let commands = """
      mount -t tmpfs none /var && mkdir -p /var/log/xen && mount -t tmpfs none /run && ln -s /run /var/run &&
      bash \(scripts)/block-tap \(command); status=$?; cat /var/log/xen/xen-hotplug.log; exit $status
      """
    return try Command.run(
      ["-rm", "sh", "-c", commands], as: "/usr/bin/unshare",
      environment: [
        "PATH": "\(stage.directory)/bin:/usr/sbin:/usr/bin:/sbin:/bin", "script": "\(scripts)/block-tap",
        "XENBUS_TYPE": "vbd3", "XENBUS_PATH": "backend/vbd3/\(domain)/51712", "XENBUS_BASE_PATH": "backend",
        "XENSTORED_PATH": "\(stage.directory)/machine/xenstored", TapCommand.socketVariable: stage.socket,
      ])
  }

  private func node(_ name: String, _ stage: TapStage, domain: Int = 1) throws -> String? {
    try stage.store.read("\(stage.backend(domain))/\(name)")
  }

  @Test(
    .enabled(if: scripts != nil, "Xen's script block-tap is not on this machine; the lab fetches it"),
    .enabled(if: hasTools, "the script needs Debian's package xenstore-utils"),
    .enabled(if: canUnshare, "this machine allows no mount namespaces"), .timeLimit(.minutes(10)),
    arguments: [("aio", "raw"), ("vhd", "vpc")])
  func disksComeAndGo(type: String, format: String) throws {
    let stage = try TapStage(domains: [1, 2])
    // The script lets the domains of one guest, such as its stub domain, share.
    for domain in 1...2 { try stage.store.write("/local/domain/\(domain)/vm", "/vm/guest-\(domain)") }
    let image = try stage.image("disk.img", format: format)
    for round in 0..<2 {
      try stage.addDisk("\(type):\(image)")
      try stage.waitForState(.initWait)
      let added = try run("add", stage)
      #expect(added.status == 0, "\(added)")
      #expect(try node("hotplug-status", stage) == "connected")
      #expect(try node("minor", stage) == "0" && node("pid", stage) == stage.process, "round \(round)")
      #expect(try node("physical-device-path", stage) == "/run/blktap-control/nbd\(stage.process).0")
      #expect(try stage.tap("list") == "pid=\(stage.process) minor=0 state=0 args=\(type):\(image)")
      #expect(try node("sectors", stage) == "32768")

      // Another guest's writer is refused by the script itself.
      try stage.addDisk("\(type):\(image)", domain: 2)
      try stage.waitForState(.initWait, domain: 2)
      // Xen 4.20's calls a function there that only its script `block` has, so that the reason is not told by it.
      let refused = try run("add", stage, domain: 2)
      #expect(refused.status != 0, "\(refused)")
      #expect(try node("hotplug-status", stage, domain: 2) != "connected")
      let told = try node("hotplug-error", stage, domain: 2) ?? ""
      #expect(told.contains(image) && !told.contains("Could not open"), "\(told)")
      #expect(try stage.tap("list").split(separator: "\n").count == 1)
      try stage.removeDisk(domain: 2)
      try stage.waitForState(.closed, domain: 2)
      try stage.store.remove(stage.backend(2))

      try stage.removeDisk()
      let removed = try run("remove", stage)
      #expect(removed.status == 0, "\(removed)")
      #expect(try stage.tap("list").isEmpty)
      try stage.store.remove(stage.backend())
    }
  }

  @Test(
    .enabled(if: scripts != nil, "Xen's script block-tap is not on this machine; the lab fetches it"),
    .enabled(if: hasTools, "the script needs Debian's package xenstore-utils"),
    .enabled(if: canUnshare, "this machine allows no mount namespaces"), .timeLimit(.minutes(10)))
  func badImagesAreToldByTheScript() throws {
    let stage = try TapStage()
    let image = try stage.image("disk.img")
    for (parameters, said) in [
      ("aio:\(image).no", "does not exist"), ("vhd:\(image)", "VPC"), ("foo:\(image)", "\"foo\""),
      ("aio:\(stage.directory)", "directory"),
    ] {
      try stage.addDisk(parameters)
      try stage.waitForState(.initWait)
      let added = try run("add", stage)
      #expect(added.status == 1 && added.output.contains(said), "\(added)")
      #expect(try node("hotplug-status", stage) == "error")
      #expect(try node("hotplug-error", stage) == "Could not open \"\(parameters)\"")
      try stage.removeDisk()
      try stage.waitForState(.closed)
      try stage.store.remove(stage.backend())
      #expect(try stage.tap("list").isEmpty, "a tap is left of \(parameters)")
    }
  }

  /// The image is good, and what is wrong with the disk the script does not look at.
  @Test(
    .enabled(if: scripts != nil, "Xen's script block-tap is not on this machine; the lab fetches it"),
    .enabled(if: hasTools, "the script needs Debian's package xenstore-utils"),
    .enabled(if: canUnshare, "this machine allows no mount namespaces"), .timeLimit(.minutes(10)),
    arguments: [false, true])
  func aDiskThatCannotBeServedFailsTheScript(sharesATap: Bool) throws {
    let stage = try TapStage(domains: [1, 2])
    for domain in 1...2 { try stage.store.write("/local/domain/\(domain)/vm", "/vm/guest-\(domain)") }
    let image = "aio:\(try stage.image("disk.img"))"
    if sharesATap {
      try stage.addDisk(image, domain: 2, mode: "r")
      try stage.waitForState(.initWait, domain: 2)
      #expect(try run("add", stage, domain: 2).status == 0)
    }
    let before = try stage.tap("list")
    try stage.addDisk(image, mode: "r", more: [("logical-sector-size", "700")])
    try stage.waitForState(.initWait)
    let added = try run("add", stage)
    #expect(added.status == 1 && added.output.contains("logical-sector-size is 700"), "\(added)")
    #expect(try node("hotplug-status", stage) == "error")
    #expect(try node("hotplug-error", stage) == "Could not open \"\(image)\"")
    #expect(try node("physical-device-path", stage) == nil)
    try stage.removeDisk()
    try stage.waitForState(.closed)
    try stage.store.remove(stage.backend())
    #expect(try stage.tap("list") == before)
  }

  @Test(
    .enabled(if: scripts != nil, "Xen's script block-tap is not on this machine; the lab fetches it"),
    .enabled(if: hasTools, "the script needs Debian's package xenstore-utils"),
    .enabled(if: canUnshare, "this machine allows no mount namespaces"), .timeLimit(.minutes(10)))
  func aTapOutlivesTheDaemonForTheScriptsEnd() throws {
    let stage = try TapStage()
    let image = try stage.image("disk.img")
    try stage.addDisk("aio:\(image)")
    try stage.waitForState(.initWait)
    #expect(try run("add", stage).status == 0)
    try stage.restartDaemon(killing: true)
    try stage.removeDisk()
    let removed = try run("remove", stage)
    #expect(removed.status == 0, "\(removed)")
    #expect(try stage.tap("list").isEmpty)
  }
}
