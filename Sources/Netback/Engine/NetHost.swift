public import RingKit

/// The world as both directions of a network queue see it.
public protocol NetHost: ~Copyable {
  /// The time by the host's clock in nanoseconds; may stand still during a turn.
  var now: UInt64 { get }
  /// Private page-aligned memory, or nil when the pool or the guest's share of it is used up; the host runs
  /// the queue again once there is some.
  mutating func allocateBuffer(byteCount: Int) -> IOBuffer?
  /// Gives memory back.
  mutating func releaseBuffer(_ buffer: IOBuffer)
  /// The bytes of a buffer that is held.
  func bytes(of buffer: IOBuffer) -> PrivateBytes
  /// Does the grant copies, all in one direction, and sets each one's status.
  mutating func copy(_ batch: inout GrantCopyBatch)
  /// The page that the frontend has granted for good under `reference` (netif.h,
  /// XEN_NETIF_CTRL_TYPE_ADD_GREF_MAPPING), if it may be used that way; nil for all others.
  func stagedPage(_ reference: GrantReference, writable: Bool) -> IOSegment?
  /// Copies bytes between a staged page and private memory at full speed; nothing is decided on the page's
  /// side.
  mutating func copyStaged(from source: IOSegment, to destination: IOSegment)
}

/// What the transmit direction, guest to backend, needs beside.
public protocol NetTxHost: NetHost, ~Copyable {
  /// Whether a packet of `byteCount` bytes may be taken now; charges for it if so. After a no the host runs
  /// the queue again when it may: requests that stay in the ring bring no event.
  mutating func mayTake(byteCount: Int) -> Bool
  /// Adds or removes a multicast address of the frontend's filter; false when the filter is full.
  mutating func changeMulticast(_ address: EthernetAddress, isAdded: Bool) -> Bool
  /// Takes the packet over, and its buffer with it: sends it to the link, or drops it.
  mutating func forward(_ packet: NetPacket)
  /// Signals the frontend that transmit responses have come.
  mutating func notifyTransmit()

  // MARK: Past private memory

  /// Bytes of a packet of `byteCount` bytes that are copied before anything is decided: all of them, unless the
  /// rest may go from page to page. Not more than `byteCount`, not less than 14.
  func leadingByteCount(ofPacket byteCount: Int) -> Int
  /// Takes slots of another frontend's for a packet of which the first bytes are in private memory. Nil if it
  /// has to come whole: ``forward(_:)`` follows then.
  mutating func reserve(_ packet: NetDirectPacket) -> NetDirectPath?
  /// The destination of the data slot `index` of a path, 0 and on.
  func place(_ index: Int, of path: NetDirectPath) -> NetDirectPlace
  /// What was to go to the data slot `index` of a path did not.
  mutating func fail(_ index: Int, of path: NetDirectPath)
}

/// Most links take packets out of private memory.
extension NetTxHost where Self: ~Copyable {
  /// All bytes.
  @inlinable public func leadingByteCount(ofPacket byteCount: Int) -> Int { byteCount }
  /// Nobody's slots.
  @inlinable public mutating func reserve(_ packet: NetDirectPacket) -> NetDirectPath? { nil }
  /// There are no paths.
  @inlinable public func place(_ index: Int, of path: NetDirectPath) -> NetDirectPlace {
    // Paths are those of reserve(_:), which gives none here.
    preconditionFailure("a path that was not given")
  }
  /// There are no paths.
  @inlinable public mutating func fail(_ index: Int, of path: NetDirectPath) {}
}

/// What the receive direction, backend to guest, needs beside.
public protocol NetRxHost: NetHost, ~Copyable {
  /// Signals the frontend that receive responses have come.
  mutating func notifyReceive()
}
