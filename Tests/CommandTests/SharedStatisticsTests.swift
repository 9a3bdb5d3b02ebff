import Foundation
import RingKit
import Testing

@testable import Blkback
@testable import ringback

/// What xentop and xcp-rrdd read.
@Suite struct SharedStatisticsTests {
  private let base: String

  init() throws {
    base = FileManager.default.temporaryDirectory.path + "/ringback-shared-\(UUID().uuidString.prefix(8))"
    try FileManager.default.createDirectory(atPath: base, withIntermediateDirectories: false)
  }

  /// The file's twelve numbers, in the order of bytes that readers expect.
  static func words(_ path: String) throws -> [UInt64] {
    var words = [UInt64](repeating: 0, count: 12)
    for (index, byte) in try Data(contentsOf: URL(filePath: path)).prefix(96).enumerated() {
      words[index / 8] |= UInt64(byte) << UInt64(index % 8 * 8)
    }
    return words
  }

  private func directory(_ name: String, isOurs: Bool) throws {
    try FileManager.default.createDirectory(atPath: "\(base)/\(name)", withIntermediateDirectories: false)
    if isOurs { try Data().write(to: URL(filePath: "\(base)/\(name)/\(SharedStatistics.mark)")) }
  }

  /// A process that is no more: its number is not given to another at once.
  private func deadProcess() throws -> Int32 {
    let process = Process()
    process.executableURL = URL(filePath: "/bin/true")
    try process.run()
    process.waitUntilExit()
    return process.processIdentifier
  }

  @Test func whatDeadDaemonsLeftIsTakenAwayAndNothingElse() throws {
    defer { try? FileManager.default.removeItem(atPath: base) }
    let dead = try deadProcess()
    let ours = ProcessInfo.processInfo.processIdentifier
    try directory("td3-\(dead)", isOurs: true)
    // Of a tapdisk that died; of a daemon that lives; not what we look for.
    try directory("td3-\(dead)0", isOurs: false)
    try directory("td3-\(getppid())", isOurs: true)
    for name in ["td3-", "td3-x", "td3--5", "td3-99999999999", "other"] { try directory(name, isOurs: true) }
    try FileManager.default.createSymbolicLink(
      atPath: "\(base)/td3-\(dead)1", withDestinationPath: "\(base)/other")
    var statistics = try SharedStatistics(below: base)
    let left = try FileManager.default.contentsOfDirectory(atPath: base).sorted()
    #expect(
      left
        == [
          "other", "td3-", "td3--5", "td3-\(dead)0", "td3-\(dead)1", "td3-\(getppid())", "td3-\(ours)",
          "td3-99999999999", "td3-x",
        ].sorted())
    statistics.remove()
    #expect(!FileManager.default.fileExists(atPath: "\(base)/td3-\(ours)"))
  }

  @Test func filesComeAndGoWithTheDisks() throws {
    defer { try? FileManager.default.removeItem(atPath: base) }
    var statistics = try SharedStatistics(below: base)
    let disk = DeviceAddress(kind: "vbd3", domain: DomainID(rawValue: 4), device: 51728)
    let path = "\(base)/td3-\(ProcessInfo.processInfo.processIdentifier)/vbd-4-51728"
    var snapshot = BlockStatistics.Snapshot()
    snapshot.starvedCount = 3
    (snapshot.counters.readsTaken, snapshot.counters.writesTaken) = (5, 7)
    var tally = BlockTally()
    for (kind, status) in [
      (BlockRequestKind.read, BlockStatus.okay), (.read, .error), (.write, .okay), (.barrier, .okay),
      (.flush, .okay),
      (.flush, .okay), (.discard, .okay),
    ] {
      tally.note(BlockOutcome(kind: kind, status: status, sectorCount: 8, nanoseconds: 2_500_000))
    }
    try statistics.update(disk, [snapshot, snapshot], tally)
    let words = try Self.words(path)
    // Version 1 with its padding, then the turns that ended for want of memory; reads; writes; errors.
    #expect(words == [1, 6, 10, 2, 8, 5000, 14, 2, 32, 5000, 1, 0])
    // Other kinds are of no interest to the readers.
    try statistics.update(
      DeviceAddress(kind: "other", domain: DomainID(rawValue: 4), device: 51744), [], BlockTally())
    #expect(!FileManager.default.fileExists(atPath: path.replacing("51728", with: "51744")))
    statistics.forget(disk)
    #expect(!FileManager.default.fileExists(atPath: path))
    statistics.remove()
  }

  @Test func theKernelIsWaitedForBriefly() throws {
    defer { try? FileManager.default.removeItem(atPath: base) }
    let disk = DeviceAddress(kind: "vbd3", domain: DomainID(rawValue: 4), device: 51728)
    var wait = KernelDeviceWait(directory: base)
    let end = 1000 + KernelDeviceWait.longestNanoseconds
    for (now, isTaken) in [(1000, false), (end - 1, false), (end, true)] {
      let mayTake = wait.mayTake(disk, atNanoseconds: now)
      #expect(mayTake == isTaken, "\(now)")
      #expect(wait.waiting == (isTaken ? [] : [disk]))
    }
    // The kernel's device ends the wait; a kernel without such a bus causes none.
    let before = wait.mayTake(disk, atNanoseconds: 0)
    try directory("vbd3-4-51728", isOurs: false)
    let after = wait.mayTake(disk, atNanoseconds: 1)
    #expect(!before && after && wait.waiting.isEmpty)
    var without = KernelDeviceWait(directory: "\(base)/nothing")
    let mayTake = without.mayTake(disk, atNanoseconds: 0)
    #expect(mayTake && without.waiting.isEmpty)
  }
}
