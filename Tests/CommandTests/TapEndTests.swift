import Foundation
import RingKit
import Testing

@testable import ringback

/// Taps that their script does not destroy.
@Suite struct TapEndTests {
  /// What the daemon's absence at the end of a disk, or a script that failed, leaves of it.
  @Test(.timeLimit(.minutes(10)), arguments: [false, true])
  func aTapOpenedForADiskEndsWithTheLastOne(whileTheDaemonIsAway: Bool) throws {
    let stage = try TapStage(domains: [1, 2])
    let (image, other) = (try stage.image("a.img"), try stage.image("b.img"))
    // The storage manager's: it comes before any disk.
    try stage.tap("create", "-a", "aio:\(other)")
    for domain in [1, 2] {
      try stage.addDisk("aio:\(image)", domain: domain, mode: "r")
      try stage.waitForState(.initWait, domain: domain)
    }
    try stage.tap("create", "-a", "aio:\(image)")
    try remove(1, stage)
    // What is there as long as one disk needs it stays.
    #expect(try stage.tap("list", "-m", "1").hasSuffix("args=aio:\(image)"))
    if whileTheDaemonIsAway {
      try stage.restartDaemon(killing: true) { try stage.store.remove(stage.backend(2)) }
    } else {
      try remove(2, stage)
    }
    let deadline = ContinuousClock.now + .seconds(60)
    while try !stage.tap("list", "-m", "1").isEmpty, ContinuousClock.now < deadline {}
    #expect(try stage.tap("list", "-m", "1").isEmpty)
    #expect(try stage.tap("list").hasSuffix("args=aio:\(other)"))
    try stage.tap("destroy", "-p", "1", "-m", "0")
  }

  @Test(.timeLimit(.minutes(10)))
  func anImageThatCannotBeHadIsToldWhereLibxlLooks() throws {
    let stage = try TapStage(domains: [1, 2, 3])
    let image = try stage.image("a.img")
    try stage.addDisk("aio:\(image)", domain: 1)
    try stage.waitForState(.initWait, domain: 1)
    #expect(try stage.store.read("\(stage.backend(1))/hotplug-error") == nil)
    for (domain, name, words) in [(2, image, "in use"), (3, "\(image).no", "does not exist")] {
      try stage.addDisk("aio:\(name)", domain: domain)
      try stage.waitForState(.initWait, domain: domain)
      let told = try stage.store.read("\(stage.backend(domain))/hotplug-error") ?? ""
      #expect(told.contains(name) && told.contains(words), "domain \(domain): \(told)")
    }
  }

  /// A daemon takes back what an earlier one has told of a disk: at once of one that has gone, and otherwise when it
  /// goes, although it is not served any more.
  @Test(.timeLimit(.minutes(10)), arguments: [false, true])
  func errorsOfAnEarlierDaemonAreTakenBack(afterTheStart: Bool) throws {
    let stage = try TapStage()
    let errors = "/local/domain/0/error/backend"
    try stage.addDisk("aio:\(stage.directory)/no.img", script: nil, more: [("hotplug-status", "connected")])
    try stage.waitForState(.closed)
    #expect(try stage.errorNode() != nil)
    let gone = [stage.backend(), stage.frontend(1)]
    try stage.restartDaemon(killing: true) {
      if afterTheStart {
        try stage.removeDisk()
        try stage.store.write("\(stage.backend())/state", XenbusState.closed.text)
      } else {
        for path in gone { try stage.store.remove(path) }
      }
    }
    if afterTheStart {
      // It answers when it has looked at everything.
      try stage.tap("list")
      #expect(try stage.errorNode() != nil, "the disk is still there")
      for path in gone { try stage.store.remove(path) }
    }
    let deadline = ContinuousClock.now + .seconds(60)
    while try stage.store.exists(errors), ContinuousClock.now < deadline {}
    #expect(try !stage.store.exists(errors))
  }

  /// As libxl does, without its script.
  private func remove(_ domain: Int, _ stage: TapStage) throws {
    try stage.removeDisk(domain: domain)
    try stage.waitForState(.closed, domain: domain)
    try stage.store.remove(stage.backend(domain))
  }
}
