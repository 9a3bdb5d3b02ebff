import RingKit

/// Discards: a hint of the guest's, done in pieces so that other requests go on between them.
extension BlockQueueEngine where Host: ~Copyable {
  /// Rounds the range inwards to the medium's units and begins with its first piece.
  mutating func beginDiscard(_ index: Int, _ discard: BlockDiscard, host: inout Host) {
    table.entries[index].sectorCount = discard.byteCount / UInt64(wireSectorByteCount)
    guard let support = host.discardSupport, !discard.isSecure || support.isSecurePossible else {
      finish(index, status: .notSupported, host: &host)
      return
    }
    let unit = UInt64(support.unitByteCount)
    let end = discard.byteOffset + discard.byteCount
    let first = (discard.byteOffset + unit - 1) & ~(unit - 1)
    let last = end & ~(unit - 1)
    // What lies in a unit only in part stays as it is, which a hint allows but a promise to destroy does not.
    if discard.isSecure && (first != discard.byteOffset || last != end) {
      finish(index, status: .error, host: &host)
      return
    }
    table.entries[index].offset = first
    table.entries[index].discardEnd = last
    table.entries[index].isSecure = discard.isSecure
    continueDiscard(index, host: &host)
  }

  /// Begins the next piece, or answers when there is none.
  mutating func continueDiscard(_ index: Int, host: inout Host) {
    if host.isFenced {
      finish(index, status: .error, host: &host)
      return
    }
    let first = table.entries[index].offset
    let end = table.entries[index].discardEnd
    guard first < end else {
      finish(index, status: .okay, host: &host)
      return
    }
    guard let support = host.discardSupport else {
      finish(index, status: .notSupported, host: &host)
      return
    }
    table.entries[index].phase = .discard
    host.discard(
      token: table.token(index), offset: first, byteCount: min(end - first, support.chunkByteCount),
      isSecure: table.entries[index].isSecure)
  }

  /// Carries on with a discard whose piece ended.
  mutating func completeDiscard(_ index: Int, result: Int32, host: inout Host) {
    if result < 0 {
      if retries(index, errno: -result) {
        continueDiscard(index, host: &host)
      } else {
        // A medium that cannot do it at all says so in one of several ways; the frontend then stops asking.
        finish(index, status: Self.isUnsupported(-result) ? .notSupported : .error, host: &host)
      }
      return
    }
    guard let support = host.discardSupport else {
      finish(index, status: .notSupported, host: &host)
      return
    }
    let left = table.entries[index].discardEnd - table.entries[index].offset
    table.entries[index].offset += min(left, support.chunkByteCount)
    table.entries[index].retryCount = 0
    // Nobody waits for the rest of a hint that may be terabytes long, when the disk is to stand still.
    if (isPaused || isClosing) && !table.entries[index].isSecure {
      table.entries[index].discardEnd = table.entries[index].offset
    }
    continueDiscard(index, host: &host)
  }

  /// True for EINVAL, ENOTTY, ENOSYS and EOPNOTSUPP (errno-base.h, errno.h).
  static func isUnsupported(_ errno: Int32) -> Bool {
    errno == 22 || errno == 25 || errno == 38 || errno == 95
  }
}
