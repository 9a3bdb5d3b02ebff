import Blkback
import Foundation
import RingKit

/// The shared-memory statistics, version 1, that libxenstat (xentop) and xcp-rrdd read of userspace backends:
/// `DIRECTORY/td3-<pid>/vbd-<domid>-<devid>`, with our pid in the node `kthread-pid` (xenstat_linux.c).
struct SharedStatistics {
  /// Where the kernel keeps shared memory, and where readers look.
  static let usualDirectory = "/dev/shm"
  /// The kind whose disks readers look for.
  static let kind = "vbd3"
  /// A file that tells our directories from those of a tapdisk.
  static let mark = ".ringback"

  private let directory: String
  private var pages: [DeviceAddress: SharedPage] = [:]

  /// Makes the directory of this process, and takes away what daemons that were killed have left.
  init(below base: String, process: Int32 = ProcessInfo.processInfo.processIdentifier) throws {
    directory = "\(base)/td3-\(process)"
    Self.removeStale(below: base, except: process)
    do {
      try FileManager.default.createDirectory(
        atPath: directory, withIntermediateDirectories: false, attributes: [.posixPermissions: 0o755])
      try Data().write(to: URL(filePath: "\(directory)/\(Self.mark)"))
    } catch {
      throw CommandError("the directory \(directory) for the statistics that xentop reads: \(error)")
    }
  }

  /// Takes everything away.
  mutating func remove() {
    pages = [:]
    try? FileManager.default.removeItem(atPath: directory)
  }

  /// Directories below `base` that a daemon of this program has made, of a process that is no more, and of the
  /// user that we are. `process` is our own number, which a dead daemon may have had before.
  static func removeStale(below base: String, except process: Int32) {
    let files = FileManager.default
    for name in (try? files.contentsOfDirectory(atPath: base)) ?? [] {
      guard name.hasPrefix("td3-"), let owner = Int32(name.dropFirst(4)), owner > 0 else { continue }
      let path = "\(base)/\(name)"
      // Of a link, these are the link's own: nobody else's tree is ever walked.
      guard let attributes = try? files.attributesOfItem(atPath: path),
        attributes[.type] as? FileAttributeType == .typeDirectory,
        attributes[.ownerAccountID] as? NSNumber == NSNumber(value: geteuid()),
        files.fileExists(atPath: "\(path)/\(mark)"),
        owner == process || (kill(owner, 0) != 0 && errno == ESRCH)
      else { continue }
      try? files.removeItem(atPath: path)
    }
  }

  /// Writes a disk's numbers, making its file when there is none.
  mutating func update(_ disk: DeviceAddress, _ snapshots: [BlockStatistics.Snapshot], _ tally: BlockTally)
    throws
  {
    guard disk.kind == Self.kind else { return }
    let page: SharedPage
    if let present = pages[disk] {
      page = present
    } else {
      page = try SharedPage(path: "\(directory)/vbd-\(disk.domain)-\(disk.device)")
      pages[disk] = page
    }
    page.set(Self.words(snapshots, tally))
  }

  /// Takes a disk's file away.
  mutating func forget(_ disk: DeviceAddress) { pages[disk] = nil }

  /// struct stats of blktap's tapdisk-metrics-stats.h: version and padding share the first word.
  static func words(_ snapshots: [BlockStatistics.Snapshot], _ tally: BlockTally) -> [UInt64] {
    // Of each direction: requests taken, answered, their sectors, and microseconds.
    var words: [UInt64] = [1, snapshots.reduce(0) { $0 + $1.starvedCount }]
    let reads = tally[.read]
    let taken = snapshots.reduce(into: (reads: UInt64(0), writes: UInt64(0))) {
      $0.reads += $1.counters.readsTaken
      $0.writes += $1.counters.writesTaken
    }
    // In the midst of a turn, more may be answered than the last turn's end has told as taken.
    words += [max(taken.reads, reads.answered), reads.answered, reads.sectors, reads.latency.total / 1000]
    // A barrier's data and a flush's are written; a flush without data is no write.
    let (writes, barriers) = (tally[.write], tally[.barrier])
    let written = writes.answered + barriers.answered
    words += [
      max(taken.writes, written), written,
      writes.sectors &+ barriers.sectors &+ tally[.flush].sectors,
      (writes.latency.total &+ barriers.latency.total) / 1000,
    ]
    words += [tally.errorCount, 0]
    return words
  }
}
