/// The state of one grant as every domain may read it: what a copy is checked against, without asking the
/// machine. It plays the part of the grant table's entries.
///
/// The number of the share is part of it, so a reference that was ended and used again differs.
struct GrantWord: RawRepresentable, Equatable {
  let rawValue: UInt32

  /// Wraps a word.
  init(rawValue: UInt32) { self.rawValue = rawValue }

  /// A live grant of share number `serial`.
  init(serial: UInt32, writable: Bool) {
    rawValue = (serial << 2) | (writable ? 2 : 0) | 1
  }

  /// No grant.
  static var none: GrantWord { GrantWord(rawValue: 0) }
  /// True when there is a grant.
  var isLive: Bool { rawValue & 1 != 0 }
  /// True when the grantee may write.
  var isWritable: Bool { rawValue & 2 != 0 }

  /// References in a domain's grant table (Xen's default for one guest is half of that).
  static var tableCount: Int { 65536 }
  /// Bytes of a domain's words.
  static var tableByteCount: Int { tableCount * 4 }
}
