import RingKit

/// A call of the engine's, or one of the channel's own, until it ended.
struct NBDCall {
  enum Kind {
    case free
    case read
    case write
    case flush
    case discard
    /// A flush of our own, so that the journal does not fill up.
    case ownFlush
    /// A write of the journal, done again.
    case replay
    /// A discard of the journal, done again.
    case replayDiscard
  }

  var kind = Kind.free
  /// The engine's name for it.
  var token: UInt32 = 0
  /// Order of arrival.
  var number: UInt64 = 0
  var offset: UInt64 = 0
  var byteCount: UInt64 = 0
  var segment = IOSegment(address: 0, length: 0)
  /// What the server has done of it.
  var done: UInt64 = 0
  /// Bytes of the command under way.
  var piece: UInt64 = 0
  /// libnbd's name for the command under way; 0 when there is none.
  var cookie: UInt64 = 0
  /// True when the journal has room for it.
  var isReserved = false
  /// The journal's end when a flush began: all before it is covered.
  var mark: UInt64 = 0

  /// True when it belongs to the connection and means nothing without it.
  var isOwn: Bool { kind == .ownFlush || kind == .replay || kind == .replayDiscard }
}
