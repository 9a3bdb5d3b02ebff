public import CXen

/// Grant copies to be done together, each with a status of its own (GNTTABOP_copy through gntdev).
///
/// Statuses are preset to a failure; only the hypervisor's own GNTST_okay turns one into success.
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

  /// The status before the host has spoken, and of a copy it did not report (GNTST_general_error).
  public static var failed: Int16 { -1 }

  // Sound: `capacity` elements are allocated, only 0..<count are initialised, indices are checked.
  private let segments: UnsafeMutablePointer<xengnttab_grant_copy_segment_t>
  /// Copies that fit.
  public let capacity: Int
  /// Copies in the batch.
  public private(set) var count = 0

  /// Makes room for `capacity` copies, once.
  public init(capacity: Int) {
    precondition(capacity > 0)
    self.capacity = capacity
    unsafe segments = .allocate(capacity: capacity)
  }

  deinit { unsafe segments.deallocate() }

  /// True when no further copy fits.
  public var isFull: Bool { count == capacity }

  /// Adds a copy and returns its index. The private memory must stay until the batch was done.
  @discardableResult
  public mutating func append(_ segment: Segment) -> Int {
    precondition(count < capacity)
    precondition(segment.pageOffset >= 0 && segment.local.length > 0)
    precondition(segment.pageOffset + Int(segment.local.length) <= pageByteCount)
    var raw = unsafe xengnttab_grant_copy_segment_t()
    // Sound: only an address is stored; the host dereferences it while the owner keeps the memory alive.
    let local = unsafe UnsafeMutableRawPointer(bitPattern: segment.local.address)
    if segment.toGuest {
      unsafe raw.source.virt = local
      unsafe raw.dest.foreign.ref = segment.reference.rawValue
      unsafe raw.dest.foreign.offset = UInt16(segment.pageOffset)
      unsafe raw.dest.foreign.domid = segment.domain.rawValue
      unsafe raw.flags = UInt16(GNTCOPY_dest_gref)
    } else {
      unsafe raw.dest.virt = local
      unsafe raw.source.foreign.ref = segment.reference.rawValue
      unsafe raw.source.foreign.offset = UInt16(segment.pageOffset)
      unsafe raw.source.foreign.domid = segment.domain.rawValue
      unsafe raw.flags = UInt16(GNTCOPY_source_gref)
    }
    unsafe raw.len = UInt16(segment.local.length)
    unsafe raw.status = Self.failed
    unsafe (segments + count).initialize(to: raw)
    count += 1
    return count - 1
  }

  /// The copy at `index`, for hosts that do the copying themselves.
  public subscript(index: Int) -> Segment {
    precondition(index >= 0 && index < count)
    let raw = unsafe segments[index]
    let toGuest = unsafe raw.flags & UInt16(GNTCOPY_dest_gref) != 0
    let foreign = unsafe toGuest ? raw.dest.foreign : raw.source.foreign
    let local = unsafe toGuest ? raw.source.virt : raw.dest.virt
    return unsafe Segment(
      toGuest: toGuest, domain: DomainID(rawValue: foreign.domid),
      reference: GrantReference(rawValue: foreign.ref), pageOffset: Int(foreign.offset),
      local: IOSegment(address: UInt(bitPattern: local), length: UInt(raw.len)))
  }

  /// The host's verdict on the copy at `index`: 0 (GNTST_okay) or a negative GNTST code.
  public func status(at index: Int) -> Int16 {
    precondition(index >= 0 && index < count)
    return unsafe segments[index].status
  }

  /// Sets a verdict, for hosts that do the copying themselves.
  public mutating func setStatus(_ status: Int16, at index: Int) {
    precondition(index >= 0 && index < count)
    unsafe segments[index].status = status
  }

  /// Empties the batch.
  public mutating func removeAll() { count = 0 }

  /// The raw array for libxengnttab; sound while the batch is not changed.
  @unsafe public var unsafeSegments: UnsafeMutablePointer<xengnttab_grant_copy_segment_t> { unsafe segments }
}
