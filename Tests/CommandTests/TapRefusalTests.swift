import Foundation
import RingKit
import Testing

@testable import ringback

/// Disks that cannot be served although their image is good: their hotplug script has to fail.
@Suite struct TapRefusalTests {
  static let refused: [(nodes: [(String, String)], words: String)] = [
    ([("logical-sector-size", "700")], "logical-sector-size is 700"),
    ([("discard-enable", "yes")], "discard-enable"),
    ([("mode", "x")], "r, w or w!"),
    ([("logical-sector-size", "4096")], "no whole number of sectors of 4096"),
  ]

  /// The steps of block-tap before `open`; the process and the minor, as its options.
  private func attach(_ stage: TapStage, _ domain: Int) throws -> [String] {
    let name = try stage.tap("allocate", scriptOf: domain)
    let minor = String(name.dropFirst(TapCommand.devicePrefix.count))
    let process = try stage.tap("spawn", scriptOf: domain)
    try stage.tap("attach", "-p", process, "-m", minor, scriptOf: domain)
    return ["-p", process, "-m", minor]
  }

  @Test(.timeLimit(.minutes(10)), arguments: refused.indices)
  func theScriptOfADiskThatCannotBeServedFails(index: Int) throws {
    let (nodes, words) = Self.refused[index]
    let stage = try TapStage(domains: [1, 2])
    let path = try stage.image("a.img", size: "\(16 << 20 | 512)")
    let image = "aio:\(path)"
    try stage.addDisk(image, more: nodes)
    try stage.waitForState(.initWait)
    let tap = try attach(stage, 1)
    let open = ["open"] + tap + ["-a", image]
    try stage.expect(EINVAL, "xvda of domain 1", words, from: open, scriptOf: 1)
    try stage.expect(EINVAL, "xvda of domain 1", words, from: ["create", "-a", image], scriptOf: 1)
    // As the script ends then.
    #expect(try stage.run(["detach"] + tap, scriptOf: 1).status == 0)
    #expect(try stage.run(["free", "-m", tap[3]], scriptOf: 1).status == 0)
    #expect(try stage.tap("list").isEmpty)
    let writer = try Command.run(["-f", "raw", "-c", "write 0 512", path], as: "/usr/bin/qemu-io")
    #expect(writer.status == 0, "the image is still held: \(writer)")
    try stage.store.write("\(stage.backend())/hotplug-status", "error")
    // The image was never the reason, so that another disk is served.
    try stage.addDisk(image, domain: 2)
    try stage.waitForState(.initWait, domain: 2)
    let other = try attach(stage, 2)
    #expect(try stage.run(["open"] + other + ["-a", image], scriptOf: 2).status == 0)
    try stage.removeDisk()
    try stage.waitForState(.closed)
  }

  /// The disk that the script is for decides, not one that waits with the same image.
  @Test(.timeLimit(.minutes(10)))
  func onlyTheScriptsOwnDiskCounts() throws {
    let stage = try TapStage(domains: [1, 2])
    let path = try stage.image("a.img")
    let image = "aio:\(path)"
    try stage.addDisk(image, mode: "r", more: [("logical-sector-size", "700")])
    try stage.addDisk(image, domain: 2, mode: "r")
    for domain in [1, 2] { try stage.waitForState(.initWait, domain: domain) }
    let list = ["list", "-t", "aio", "-f", path]
    // There is nothing to find yet; what the script opens then is refused.
    #expect(try stage.run(list, scriptOf: 1).status == 0)
    let tap = try attach(stage, 2)
    try stage.expect(EINVAL, "xvda of domain 1", from: ["open"] + tap + ["-a", image], scriptOf: 1)
    #expect(try stage.run(["open"] + tap + ["-a", image], scriptOf: 2).status == 0)
    // A script that finds a tap does not open one.
    try stage.expect(EINVAL, "xvda of domain 1", "logical-sector-size", from: list, scriptOf: 1)
    for domain in [2, 3, nil] {
      let found = try stage.run(list, scriptOf: domain)
      #expect(found.status == 0 && found.output.hasSuffix(" args=\(image)\n"), "\(found)")
    }
    #expect(try stage.tap("list", scriptOf: 1).hasSuffix(" args=\(image)"), "it is asked for all taps")
    #expect(try stage.run(["destroy"] + tap, scriptOf: 1).status == EBUSY, "domain 2 uses it")
  }

  /// What was mended before the script ran does not count any more.
  @Test(.timeLimit(.minutes(10)))
  func whatIsMendedMeanwhileIsServed() throws {
    let stage = try TapStage()
    let image = "aio:\(try stage.image("a.img"))"
    try stage.addDisk(image, more: [("logical-sector-size", "700")])
    try stage.waitForState(.initWait)
    #expect(try stage.store.read("\(stage.backend())/hotplug-error") != nil)
    let tap = try attach(stage, 1)
    try stage.store.write("\(stage.backend())/logical-sector-size", "4096")
    let opened = try stage.run(["open"] + tap + ["-a", image], scriptOf: 1)
    #expect(opened.status == 0, "\(opened)")
    #expect(try stage.store.read("\(stage.backend())/sectors") == "32768")
    #expect(try stage.errorNode() == nil)
    #expect(try stage.store.read("\(stage.backend())/hotplug-error") == nil)
    try stage.connect(tap[3])
    try stage.removeDisk()
    try stage.waitForState(.closed)
    #expect(try stage.run(["destroy"] + tap, scriptOf: 1).status == 0)
  }

  @Test(arguments: [
    ("backend/vbd3/1/51712", "vbd3/1/51712"), ("/local/domain/0/backend/vbd3/1/51712", "vbd3/1/51712"),
    ("device/vbd/51712", nil), ("backend/vbd3/1", nil), ("backend/vbd3/01/51712", nil), ("", nil), (nil, nil),
  ])
  func theScriptsDeviceIsTold(path: String?, device: String?) {
    for verb in TapQuestion.Verb.allCases {
      var question = TapQuestion(verb)
      question.nameCaller(path)
      #expect(question.device == ([.list, .open, .create].contains(verb) ? device : nil))
    }
  }
}
