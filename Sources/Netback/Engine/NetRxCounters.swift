/// What the receive direction of a queue has done since it connected. Plain numbers, owned by the queue's
/// thread.
public struct NetRxCounters: BitwiseCopyable, Sendable, Equatable {
  /// Packets that reached the frontend whole; each segment counts that was cut here.
  public var packets: UInt64 = 0
  /// Their bytes.
  public var bytes: UInt64 = 0
  /// Slots answered, with data, an error or an extra info.
  public var slots: UInt64 = 0
  /// Extra infos among them.
  public var extras: UInt64 = 0
  /// Slots answered with an error because a copy failed.
  public var copyErrors: UInt64 = 0
  /// Slots whose data went by grant copy, or should have.
  public var grantCopies: UInt64 = 0
  /// Slots whose data went into a page that the frontend has granted for good.
  public var stagedCopies: UInt64 = 0
  /// Checksums completed here.
  public var checksums: UInt64 = 0
  /// Segments cut here.
  public var segments: UInt64 = 0
  /// Events sent to the frontend.
  public var notifications: UInt64 = 0
  /// Packets that did not reach the frontend, by reason.
  public var drops = RxDropCounts()

  /// All zero.
  public init() {}
}

/// Packets lost, by reason.
public struct RxDropCounts: BitwiseCopyable, Sendable, Equatable {
  /// One number for each reason, at its raw value.
  private var counts = InlineArray<11, UInt64>(repeating: 0)

  /// All zero.
  public init() {}

  /// Packets lost for `reason`.
  public subscript(reason: RxDropReason) -> UInt64 {
    get { counts[Int(reason.rawValue)] }
    set { counts[Int(reason.rawValue)] = newValue }
  }

  /// Packets lost for any reason.
  public var total: UInt64 { RxDropReason.allCases.reduce(0) { $0 + self[$1] } }

  /// Whether all numbers are the same.
  public static func == (left: RxDropCounts, right: RxDropCounts) -> Bool {
    RxDropReason.allCases.allSatisfy { left[$0] == right[$0] }
  }
}
