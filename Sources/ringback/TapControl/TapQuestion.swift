import Foundation

/// What `tap-ctl` asks the daemon: the part `tap` of a ``ControlQuestion``, as in
/// `{"do":"tap","tap":{"verb":"open","minor":0,"process":4711,"image":"aio:/srv/disk.img"}}`.
struct TapQuestion: Codable, Equatable {
  /// The verbs of blktap's `tap-ctl`.
  enum Verb: String, Codable, CaseIterable {
    case list, allocate, free, create, destroy, spawn, attach, detach, open, close, pause, unpause, stats
    case info
  }

  var verb: Verb
  /// The tap. All verbs but list, allocate, create and spawn need it.
  var minor: Int?
  /// The process that the asker takes to be the tapdisk: any process of a daemon, this one's or an earlier one's.
  var process: Int32?
  /// open, create: the image as "PREFIX:LOCATION". unpause: the image to go on with. list: the one that is looked
  /// for, if it is one.
  var image: String?
  /// list, open, create: the disk whose hotplug script asks, as "KIND/DOMAIN/NUMBER".
  var device: String?
  /// open, create: nobody may write through this tap.
  var isReadOnly: Bool?
  /// open, create: false for the host's page cache instead of direct I/O.
  var isDirect: Bool?
  /// close, destroy: although a guest uses it. Its disk is paused.
  var force: Bool?
  /// close, destroy, pause: give up after so many seconds.
  var timeoutSeconds: Int?

  /// Bytes of ``image``: a type and the longest path of Linux.
  static let longestName = 4096 + 16
  /// Of ``timeoutSeconds``.
  static let longestTimeout = 999_999

  init(_ verb: Verb) { self.verb = verb }
}

/// What the daemon answers.
struct TapReply: Codable, Equatable {
  /// The daemon's process.
  var process: Int32
  /// allocate, create: the new tap.
  var minor: Int?
  /// list: all taps.
  var taps: [Tap]?
  /// info.
  var info: TapInfo?
  /// stats.
  var stats: TapStatistics?
}

/// What `tap-ctl info` tells of an image.
struct TapInfo: Codable, Equatable {
  var sectorCount: UInt64
  var sectorByteCount: UInt32
  /// Bits of blkif's node `info`: 4 for read-only (blkif.h, VDISK_READONLY).
  var flags: UInt32
}
