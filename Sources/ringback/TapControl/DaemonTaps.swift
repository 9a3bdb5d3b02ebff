import Blkback
import RingKit

/// What the daemon keeps for the taps.
struct DaemonTaps {
  var table = TapTable()
  let file: TapFile
  /// Where sockets of taps are.
  let directory: String
  /// Images that are open for a tap because no guest's disk has them: what keeps other writers out.
  var holds: [Int: any BlockStore] = [:]
  /// When holds that are missing are taken, in nanoseconds of CLOCK_MONOTONIC; nil when none is missing.
  var holdsDue: UInt64?
  /// Taps that are about to go on: their disks may open the image again.
  var unpausing: Set<Int> = []
  /// Commands that wait for guests' disks.
  var waits: [TapWait] = []
  /// Who lends images out, if anybody does.
  var door: (any TapDoor)?

  init(file: TapFile, directory: String) {
    self.file = file
    self.directory = directory
  }

  /// The open taps, paused or not, of an image.
  func taps(of image: String) -> [Tap] {
    guard let wanted = ImageIdentity(image) else { return [] }
    return table.taps.filter { $0.image.flatMap { ImageIdentity($0.name) } == wanted }
  }

  /// Changes the table in the file and here, or in neither.
  mutating func change<Result>(
    _ body: (inout TapTable) throws(TapError) -> Result
  ) throws(TapError) -> Result {
    var changed = table
    let result = try body(&changed)
    if changed != table {
      try file.write(changed)
      table = changed
    }
    return result
  }

  /// Where a tap's image can be had over NBD (libxl_disk.c makes QEMU's option of it).
  func socketPath(minor: Int, process: Int32) -> String { "\(directory)/nbd\(process).\(minor)" }

  /// The tap whose socket a node names. The directory does not matter: scripts have it built in.
  func tap(atSocket path: String) -> Tap? {
    guard let name = path.split(separator: "/").last,
      let match = name.wholeMatch(of: /nbd[0-9]{1,10}\.([0-9]{1,5})/), let minor = Int(match.1)
    else { return nil }
    return table[minor]
  }
}

/// Somebody who waits for guests' disks.
struct TapWait {
  /// In nanoseconds of CLOCK_MONOTONIC.
  let deadline: UInt64
  /// Looks again, or says what is in the way when the time is over; true when the waiting has ended.
  let look: (_ isOver: Bool) -> Bool
}
