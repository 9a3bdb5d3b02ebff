public import Blkback

/// How a ``BlockFrontend`` negotiates and waits.
public struct BlockFrontendOptions: Sendable {
  /// How long a data page stays granted.
  public enum GrantLifetime: Sendable {
    /// Pages are shared once and used again and again, the one used last first: what Linux does with
    /// persistent grants, and the cheapest way in any case.
    case connection
    /// Pages are shared for one request and the grants end with it: what Linux does without persistent
    /// grants.
    case request
  }

  /// Pages of a ring as a power of two; lowered to the backend's `max-ring-page-order`.
  public var ringPageOrder = 0
  /// The slots' layout, whatever machine this is.
  public var abi = BlockABI.x86_64
  /// Whether `feature-persistent` is written as 1.
  public var persistentGrants = true
  /// Rings; lowered to the backend's `multi-queue-max-queues`.
  public var queueCount = 1
  /// Writes `ring-page-order` and `ring-ref0` for a ring of one page too, where Linux writes only `ring-ref`.
  public var writesZeroRingPageOrder = false
  /// How long data pages stay granted.
  public var grantLifetime = GrantLifetime.connection
  /// Data pages of each queue with grants for the connection; nil for 11 a slot, at most 704 (gntalloc allows
  /// 1024 pages a domain unless told otherwise).
  public var dataPageCount: Int?
  /// Where the ring's counters start: anything but 0 needs a backend that attaches at `rsp_prod`, as Linux
  /// does.
  public var firstRingIndex: UInt32 = 0
  /// Nanoseconds to look for responses before asking for an event; 0 for none.
  public var spinNanoseconds: UInt64 = 0
  /// Frontend nodes to write otherwise than negotiated, by name below the frontend's directory; nil leaves
  /// the node out. Names not negotiated at all are added. For tests of a backend's checks.
  public var keys: [String: String?] = [:]

  /// What Linux does by default.
  public init() {}
}
