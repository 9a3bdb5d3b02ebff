public import RingKit

/// What a disk makes of the ranges that its guest gives back.
public enum DiscardMode: String, Sendable, CaseIterable {
  /// The medium gets them back; what they read as afterwards is the medium's affair.
  case unmap
  /// They read as zeros afterwards, by whatever means the medium has.
  case zeroes
  /// The guest is not offered to give ranges back.
  case off
}

/// What a store is opened with.
public struct StoreRequest: Sendable {
  /// What stands behind the prefix: a path, an address or a size.
  public var location: String
  /// True when the guest may only read.
  public var isReadOnly: Bool
  /// True when another writer is expected (mode w!).
  public var isShared: Bool
  /// Whether the host's page cache is bypassed.
  public var direct: DirectPolicy
  /// What becomes of ranges that the guest gives back.
  public var discardMode = DiscardMode.unmap
  /// Where a store keeps what lasts no longer than the daemon.
  public var runDirectory = "/run/ringback"

  /// Gathers a request.
  public init(
    location: String, isReadOnly: Bool = false, isShared: Bool = false, direct: DirectPolicy = .preferred
  ) {
    self.location = location
    self.isReadOnly = isReadOnly
    self.isShared = isShared
    self.direct = direct
  }
}

/// One kind of store: the prefixes that name it in `params`, and how it is opened.
public struct StoreKind: Sendable {
  /// Prefixes without their colon, the usual one first.
  public var prefixes: [String]
  /// What follows the colon, for messages: "/PATH" or "SIZE".
  public var locationForm: String
  /// Says what is wrong with a location, nil when nothing is; looks at the text only.
  public var check: @Sendable (String) -> String?
  /// True where ``DiscardMode/zeroes`` is kept.
  public var canZero = false
  /// Opens it. Control thread; may block shortly.
  public var open: @Sendable (StoreRequest) throws(VbdError) -> any BlockStore
}

/// All stores there are. There is no probing: a guest writes an image's bytes, so they never decide how they
/// are read (XSA-48's class); the prefix does.
public enum StoreTable {
  /// Programs that stores of other formats than raw run, and the packages that have them.
  public static var helperPrograms: [(path: String, package: String)] {
    [(QEMUImage.program, QEMUImage.package), (QEMUImage.wrapper, "util-linux")]
  }

  /// The kinds, in the order in which messages list them.
  public static let kinds: [StoreKind] =
    [
      .file,
      .memory,
      .null,
      .nbd,
    ] + StoreKind.nbdURIs + StoreKind.qemu

  /// The kind that a prefix names.
  public static func kind(of prefix: some StringProtocol) -> StoreKind? {
    kinds.first { $0.prefixes.contains { $0 == prefix } }
  }

  /// The prefixes in words, as in "raw:/PATH, ram:SIZE".
  public static var summary: String {
    kinds.map { "\($0.prefixes.joined(separator: "|")):\($0.locationForm)" }.joined(separator: ", ")
  }

  /// Splits `params` into a kind and a location: libxl writes "<format>:<path>" for tap and a bare path for
  /// phy. Behind "aio:", libxl's name of a raw tap, any image may stand: xl puts it in front of every target.
  public static func parse(_ parameters: String) throws(VbdError) -> (kind: StoreKind, location: String) {
    if parameters.hasPrefix("/") { return (.file, parameters) }
    guard let colon = parameters.firstIndex(of: ":") else {
      throw VbdError(
        "the image is given as \"\(parameters)\"; it has to be an absolute path or one of: \(summary)")
    }
    let prefix = parameters[..<colon]
    let location = String(parameters[parameters.index(after: colon)...])
    guard let kind = kind(of: prefix) else {
      throw VbdError("there is no kind of image \"\(prefix)\"; known are: \(summary)")
    }
    if prefix == "aio", let colon = location.firstIndex(of: ":"),
      let inner = Self.kind(of: location[..<colon]), !inner.prefixes.contains("aio")
    {
      return try parse(location)
    }
    if let wrong = kind.check(location) { throw VbdError("\"\(parameters)\": \(wrong)") }
    return (kind, location)
  }

  /// Checks for locations that are paths.
  @Sendable public static func checkPath(_ location: String) -> String? {
    location.hasPrefix("/") ? nil : "the path has to be absolute"
  }

  /// Checks for locations that are sizes.
  @Sendable public static func checkSize(_ location: String) -> String? {
    byteCount(location) == nil ? "the size has to be a multiple of 4096 bytes, such as 64M" : nil
  }

  /// Bytes of a disk without a file: a decimal number, with K, M or G for 2^10, 2^20 or 2^30 of them. Nil for
  /// anything else, and for what is no positive multiple of 4096.
  public static func byteCount(_ text: String) -> UInt64? {
    let shifts: [Character: UInt64] = ["K": 10, "M": 20, "G": 30]
    let shift = text.last.flatMap { shifts[$0] }
    let digits = shift == nil ? text : String(text.dropLast())
    guard let number = StoreValue.decimal(digits, in: 1...UInt64(1) << 40) else { return nil }
    let (bytes, overflow) = number.multipliedReportingOverflow(by: 1 << (shift ?? 0))
    return overflow || bytes % 4096 != 0 || bytes > 1 << 50 ? nil : bytes
  }
}
