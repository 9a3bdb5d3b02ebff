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
  /// Pages of each queue with grants for the connection, for data and descriptors; nil for as many as all
  /// slots can use, at most 704 for all queues together unless one request needs more (gntalloc allows 1024
  /// pages a domain unless told otherwise).
  public var dataPageCount: Int?
  /// Segments of an indirect request at most, 0...4096; lowered to the backend's
  /// `feature-max-indirect-segments`. Linux asks for 32 unless its `max_indirect_segments` says otherwise.
  public var maximumIndirectSegments = 32
  /// Segments that a read or write carries in its slot at most, 0...11; with more it becomes an indirect
  /// request where the backend takes those.
  public var directSegments = maximumDirectSegments
  /// Lets requests through that are no multiple of the disk's sector, or discards that begin off the
  /// granularity. For tests of a backend's checks.
  public var allowsMisalignedRequests = false
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
