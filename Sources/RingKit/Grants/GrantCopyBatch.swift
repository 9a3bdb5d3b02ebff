public import CXen

/// Grant copies to be done together, each with a status of its own (GNTTABOP_copy through gntdev).
///
/// Statuses are preset to a failure; only the hypervisor's own GNTST_okay turns one into success. The batch
/// keeps copies into private memory apart from all others, so that a host hands each kind over by itself; the
/// two kinds are done in no particular order, copies of one kind in the order in which they were added.
@safe
public struct GrantCopyBatch: ~Copyable {
  /// What one copy moves and where.
  @frozen
  public struct Segment: BitwiseCopyable, Sendable {
    /// True when the guest's page is the destination.
    public var toGuest: Bool
    /// The domain that granted the page.
    public var domain: DomainID
    /// The granted page.
    public var reference: GrantReference
    /// First byte within the page, 0...4095.
    public var pageOffset: Int
    /// Private memory, the other side; its length is the copy's, and the copy stays in the page.
    public var local: IOSegment

    /// Describes a copy.
    @inlinable
    public init(
      toGuest: Bool, domain: DomainID, reference: GrantReference, pageOffset: Int, local: IOSegment
    ) {
      self.toGuest = toGuest
      self.domain = domain
      self.reference = reference
      self.pageOffset = pageOffset
      self.local = local
    }
  }

  /// Where a copy between two granted pages begins in one of them.
  @frozen
  public struct GrantedBytes: BitwiseCopyable, Sendable, Equatable {
    /// The domain that granted the page.
    public var domain: DomainID
    /// The granted page.
    public var reference: GrantReference
    /// First byte within the page, 0...4095.
    public var pageOffset: Int

    /// Names a place.
    @inlinable
    public init(domain: DomainID, reference: GrantReference, pageOffset: Int) {
      self.domain = domain
      self.reference = reference
      self.pageOffset = pageOffset
    }
  }

  /// A copy from one granted page to another, of the same domain or of two (grant_table.h, GNTTABOP_copy with
  /// both flags). No byte of it can be looked at on the way.
  @frozen
  public struct GuestToGuest: BitwiseCopyable, Sendable, Equatable {
    /// Where the bytes come from.
    public var source: GrantedBytes
    /// Where they go.
    public var destination: GrantedBytes
    /// Bytes, 1...4096; they stay in the page on both sides.
    public var byteCount: Int

    /// Describes a copy.
    @inlinable
    public init(source: GrantedBytes, destination: GrantedBytes, byteCount: Int) {
      self.source = source
      self.destination = destination
      self.byteCount = byteCount
    }
  }

  /// The status before the host has spoken, and of a copy it did not report (GNTST_general_error).
  public static var failed: Int16 { -1 }

  // Sound: `capacity` elements are allocated for each kind, only the first ones are initialised, as many as
  // were added of it, and indices are checked.
  private let segments: UnsafeMutablePointer<xengnttab_grant_copy_segment_t>
  // Where in `segments` each copy is, by its index.
  private let places: UnsafeMutablePointer<UInt32>
  /// Copies that fit.
  public let capacity: Int
  // Copies into private memory, and others.
  private var inCount = 0
  private var outCount = 0

  /// Makes room for `capacity` copies, once.
  public init(capacity: Int) {
    precondition(capacity > 0 && capacity <= 1 << 24)
    self.capacity = capacity
    // Each kind has room for all: what is never used costs no memory, and both keep their order.
    unsafe segments = .allocate(capacity: capacity * 2)
    unsafe places = .allocate(capacity: capacity)
  }

  deinit {
    unsafe segments.deallocate()
    unsafe places.deallocate()
  }

  /// Copies in the batch.
  public var count: Int { inCount + outCount }

  /// True when no further copy fits.
  public var isFull: Bool { count == capacity }

  /// Adds a copy and returns its index. The private memory must stay until the batch was done.
  @discardableResult
  public mutating func append(_ segment: Segment) -> Int {
    precondition(segment.pageOffset >= 0 && segment.local.length > 0)
    precondition(segment.pageOffset + Int(segment.local.length) <= pageByteCount)
    var raw = unsafe xengnttab_grant_copy_segment_t()
    // Sound: only an address is stored; the host dereferences it while the owner keeps the memory alive.
    let local = unsafe UnsafeMutableRawPointer(bitPattern: segment.local.address)
    let granted = GrantedBytes(
      domain: segment.domain, reference: segment.reference, pageOffset: segment.pageOffset)
    if segment.toGuest {
      unsafe raw.source.virt = local
      unsafe raw.dest.set(granted)
      unsafe raw.flags = UInt16(GNTCOPY_dest_gref)
    } else {
      unsafe raw.dest.virt = local
      unsafe raw.source.set(granted)
      unsafe raw.flags = UInt16(GNTCOPY_source_gref)
    }
    unsafe raw.len = UInt16(segment.local.length)
    return unsafe append(raw, isIn: !segment.toGuest)
  }

  /// Adds a copy between two granted pages and returns its index.
  @discardableResult
  public mutating func append(_ copy: GuestToGuest) -> Int {
    precondition(copy.byteCount > 0 && copy.source.pageOffset >= 0 && copy.destination.pageOffset >= 0)
    precondition(copy.source.pageOffset <= pageByteCount - copy.byteCount)
    precondition(copy.destination.pageOffset <= pageByteCount - copy.byteCount)
    var raw = unsafe xengnttab_grant_copy_segment_t()
    unsafe raw.source.set(copy.source)
    unsafe raw.dest.set(copy.destination)
    unsafe raw.flags = UInt16(GNTCOPY_source_gref | GNTCOPY_dest_gref)
    unsafe raw.len = UInt16(copy.byteCount)
    return unsafe append(raw, isIn: false)
  }

  @unsafe
  private mutating func append(_ segment: xengnttab_grant_copy_segment_t, isIn: Bool) -> Int {
    precondition(count < capacity)
    let index = count
    let place = isIn ? inCount : capacity + outCount
    unsafe (segments + place).initialize(to: segment)
    unsafe segments[place].status = Self.failed
    unsafe (places + index).initialize(to: UInt32(place))
    if isIn { inCount += 1 } else { outCount += 1 }
    return index
  }

  /// The copy at `index`, which has private memory on one side, for hosts that do the copying themselves.
  public subscript(index: Int) -> Segment {
    let raw = unsafe segments[place(at: index)]
    let toGuest = unsafe raw.flags & UInt16(GNTCOPY_dest_gref) != 0
    precondition(unsafe !toGuest || raw.flags & UInt16(GNTCOPY_source_gref) == 0, "no private memory")
    let granted = unsafe toGuest ? raw.dest.granted : raw.source.granted
    let local = unsafe toGuest ? raw.source.virt : raw.dest.virt
    return unsafe Segment(
      toGuest: toGuest, domain: granted.domain, reference: granted.reference,
      pageOffset: granted.pageOffset,
      local: IOSegment(address: UInt(bitPattern: local), length: UInt(raw.len)))
  }

  /// The copy at `index`, if it is one between two granted pages, for hosts that do the copying themselves.
  public func guestToGuest(at index: Int) -> GuestToGuest? {
    let raw = unsafe segments[place(at: index)]
    guard unsafe raw.flags == UInt16(GNTCOPY_source_gref | GNTCOPY_dest_gref) else { return nil }
    return unsafe GuestToGuest(
      source: raw.source.granted, destination: raw.dest.granted, byteCount: Int(raw.len))
  }

  /// The host's verdict on the copy at `index`: 0 (GNTST_okay) or a negative GNTST code.
  public func status(at index: Int) -> Int16 { unsafe segments[place(at: index)].status }

  /// Sets a verdict, for hosts that do the copying themselves.
  public mutating func setStatus(_ status: Int16, at index: Int) {
    unsafe segments[place(at: index)].status = status
  }

  /// Empties the batch.
  public mutating func removeAll() {
    inCount = 0
    outCount = 0
  }

  private func place(at index: Int) -> Int {
    precondition(index >= 0 && index < count)
    return Int(unsafe places[index])
  }

  /// The raw copies into private memory for libxengnttab; sound while the batch is not changed.
  @unsafe public var unsafeCopiesIn: UnsafeMutableBufferPointer<xengnttab_grant_copy_segment_t> {
    unsafe UnsafeMutableBufferPointer(start: segments, count: inCount)
  }

  /// The raw copies out of private memory, and those between guests; sound while the batch is not changed.
  @unsafe public var unsafeCopiesOut: UnsafeMutableBufferPointer<xengnttab_grant_copy_segment_t> {
    unsafe UnsafeMutableBufferPointer(start: segments + capacity, count: outCount)
  }
}

extension xengnttab_copy_ptr {
  fileprivate var granted: GrantCopyBatch.GrantedBytes {
    let place = unsafe foreign
    return GrantCopyBatch.GrantedBytes(
      domain: DomainID(rawValue: place.domid), reference: GrantReference(rawValue: place.ref),
      pageOffset: Int(place.offset))
  }

  fileprivate mutating func set(_ bytes: GrantCopyBatch.GrantedBytes) {
    unsafe foreign.ref = bytes.reference.rawValue
    unsafe foreign.offset = UInt16(bytes.pageOffset)
    unsafe foreign.domid = bytes.domain.rawValue
  }
}
