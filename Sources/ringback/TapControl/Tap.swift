/// What blktap's scripts know as a minor with a tapdisk behind it. Here it is a record: the daemon plays all
/// tapdisks, and the minor alone names the tap.
struct Tap: Codable, Equatable {
  /// The number, 0..<``TapTable/limit``.
  let minor: Int
  /// The process that `attach` was given; nil before. It is part of the name of the tap's socket, which outlives
  /// a daemon because xenstore nodes hold it.
  var process: Int32?
  /// What is open; nil before `open` and after `close`.
  var image: TapImage?
  /// An image was open and is no longer.
  var wasClosed = false

  /// How far it has come.
  enum Phase: String, CaseIterable {
    case allocated, attached, open, paused
  }

  var phase: Phase {
    guard process != nil else { return .allocated }
    guard let image else { return .attached }
    return image.isPaused ? .paused : .open
  }

  /// The state that `tap-ctl list` tells, in tapdisk's bits (tapdisk-vbd.h, TD_VBD_CLOSED, _QUIESCED, _PAUSED).
  /// Nil for a minor that no process has.
  var stateBits: Int? {
    switch phase {
    case .allocated: nil
    case .attached: wasClosed ? 0x2 : 0
    case .open: 0
    case .paused: 0x2 | 0x8 | 0x20
    }
  }
}

/// The image of a tap and how it was asked for.
struct TapImage: Codable, Equatable {
  /// As it was given: "aio:/PATH".
  var name: String
  var isReadOnly = false
  /// False when the host's page cache is to be used (`-D`).
  var isDirect = true
  var isPaused = false
  /// It was opened when a guest's disk had it already, as xl's script does: the tap ends with the last such disk.
  /// Nil in files of earlier versions.
  var isForDisks: Bool?
  /// Sectors of ``sectorByteCount`` bytes, when it was opened last.
  var sectorCount: UInt64 = 0
  var sectorByteCount: UInt32 = 512
}
