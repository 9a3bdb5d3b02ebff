import Blkback
public import RingKit

/// One ring with the requests it carries.
///
/// A request is prepared (it has a place in the table and pages), submitted, completed, and released. No step
/// allocates when pages come from a pool.
public final class BlockFrontendQueue {
  struct Entry: BitwiseCopyable {
    enum State: UInt8, BitwiseCopyable { case free, prepared, inFlight, completed }

    var state = State.free
    var request = BlockFrontRequest(.read)
    /// Pages of data and descriptors it has.
    var pageCount: UInt16 = 0
    /// Counts the uses of the entry; the upper half of the request's id.
    var generation: UInt32
  }

  /// The queue's number.
  public let number: Int
  /// The ring's pages: whoever attacks the backend writes here.
  public private(set) var ringPages: SharedPages
  /// Our end of the event channel.
  public private(set) var port: Port

  private var ring: FrontRing
  let abi: BlockABI
  let handle: UInt16
  private(set) var pages = RequestPages()
  private let directSegments: Int
  private let allowsMisalignedRequests: Bool
  /// Segments of an indirect request at most; 0 when there are none.
  private var indirectSegments = 0
  /// What there are pages for, whatever a later backend takes.
  private var laidOutSegments = 0
  private var sectorByteCount = wireSectorByteCount
  private var discardGranularity = wireSectorByteCount
  private var discardAlignment = 0
  // Persistent grants are always writable, whatever the first request does (blkif.h, note on
  // feature-persistent).
  private let grantsForWriting: Bool
  private(set) var entries: [Entry]
  private var free: [UInt16]
  private var freeCount: Int
  /// Slots promised to prepared requests.
  private var reservedSlotCount = 0
  private var rawOutstanding = 0
  private var fault: BlockFrontendError?

  init(
    number: Int, ringPages: SharedPages, port: Port, device: UInt32, options: BlockFrontendOptions
  ) {
    self.number = number
    self.ringPages = ringPages
    self.port = port
    abi = options.abi
    grantsForWriting = options.persistentGrants
    // As Linux does; backends ignore it.
    handle = UInt16(truncatingIfNeeded: device)
    directSegments = min(max(0, options.directSegments), maximumDirectSegments)
    allowsMisalignedRequests = options.allowsMisalignedRequests
    ring = FrontRing(
      pages: ringPages.pages, slotByteCount: options.abi.requestByteCount, startingAt: options.firstRingIndex)
    let count = ring.slotCount
    // Near the end of the 32 bits, so that every bit of an id is seen to come back.
    entries = Array(repeating: Entry(generation: 0xFFFF_FFF0), count: count)
    free = (0..<count).reversed().map { UInt16($0) }
    freeCount = count
  }

  /// Learns what the connected backend takes, and places what was in flight in an old ring, oldest place
  /// first, as Linux does after a reconnection (blkif_recover). `newPages` are made for the first connection;
  /// later there may be requests in the old ones, which stay.
  func begin(
    _ limits: RequestLimits, newPages: () throws(BlockFrontendError) -> RequestPages
  ) throws(BlockFrontendError) {
    if !pages.exist {
      pages = try newPages()
      laidOutSegments = limits.indirectSegments
    }
    indirectSegments = min(limits.indirectSegments, laidOutSegments)
    sectorByteCount = limits.sectorByteCount
    discardGranularity = limits.discardGranularity
    discardAlignment = limits.discardAlignment
    for index in entries.indices where entries[index].state == .inFlight {
      let count = entries[index].request.pageCount
      guard count <= capacity(of: entries[index].request.operation) else {
        throw .segmentsShrank(from: count, to: segmentCapacity)
      }
      ring.place(slot(for: index))
    }
  }

  /// Segments of a read or write at most.
  public var segmentCapacity: Int { max(maximumDirectSegments, indirectSegments) }
  /// Sectors of a read or write at most, when it begins with its first page.
  public var maximumSectorCount: Int { segmentCapacity * 8 }

  private func capacity(of operation: BlockOperation) -> Int {
    operation == .read || operation == .write ? segmentCapacity : maximumDirectSegments
  }

  /// Descriptor pages of a request; 0 for one whose segments stand in its slot.
  func descriptorPageCount(of request: BlockFrontRequest) -> Int {
    guard request.operation == .read || request.operation == .write else { return 0 }
    let count = request.pageCount
    guard count > directSegments, count <= indirectSegments else { return 0 }
    return (count + segmentsPerIndirectPage - 1) / segmentsPerIndirectPage
  }

  /// Slots in the ring.
  public var slotCount: Int { ring.slotCount }
  /// Requests pushed whose responses were not taken.
  public var outstanding: Int { ring.outstanding }

  /// True when no request is prepared, in flight, or waits to be released.
  public var isIdle: Bool { freeCount == entries.count }

  // MARK: Requests

  /// Gives a request a place and pages; nil when there is no slot, place or page for it just now. One that
  /// breaks the disk's alignment is refused, unless the options let it through.
  public func prepare(_ request: BlockFrontRequest) throws(BlockFrontendError) -> RequestHandle? {
    if let fault { throw fault }
    precondition(
      request.pageCount <= capacity(of: request.operation), "more data than a request carries")
    if !allowsMisalignedRequests { try checkAlignment(request) }
    guard freeCount > 0, ring.freeSlotCount > reservedSlotCount else { return nil }
    let index = Int(free[freeCount - 1])
    do throws(GrantError) {
      let access: GrantAccess = grantsForWriting || request.operation == .read ? .readWrite : .readOnly
      let count = request.pageCount + descriptorPageCount(of: request)
      guard try pages.acquire(count, for: index, access: access) else { return nil }
      entries[index].pageCount = UInt16(count)
    } catch {
      throw .grant(error)
    }
    freeCount -= 1
    reservedSlotCount += 1
    let generation = entries[index].generation &+ 1
    entries[index].state = .prepared
    entries[index].request = request
    entries[index].generation = generation
    return RequestHandle(queue: number, index: index)
  }

  /// blkif.h of Xen 4.20, notes on `sector-size` and BLKIF_OP_DISCARD.
  private func checkAlignment(_ request: BlockFrontRequest) throws(BlockFrontendError) {
    let unit = UInt64(sectorByteCount / wireSectorByteCount)
    var isAligned = request.sector % unit == 0 && UInt64(request.sectorCount) % unit == 0
    if request.operation == .discard {
      let (offset, overflow) = request.sector.multipliedReportingOverflow(by: UInt64(wireSectorByteCount))
      let granularity = UInt64(discardGranularity)
      isAligned =
        isAligned && !overflow && offset % granularity == UInt64(discardAlignment) % granularity
    } else {
      isAligned = isAligned && UInt64(request.firstPageSector) % unit == 0
    }
    guard isAligned else {
      throw .misaligned(
        request.operation, sector: request.sector, sectorCount: request.sectorCount,
        sectorByteCount: sectorByteCount, granularity: discardGranularity)
    }
  }

  /// Places a prepared request in the ring, where the backend sees it after ``push()``.
  public func submit(_ handle: RequestHandle) {
    precondition(entries[handle.index].state == .prepared)
    entries[handle.index].state = .inFlight
    reservedSlotCount -= 1
    ring.place(slot(for: handle.index))
  }

  /// Places any bytes at all in the ring; false when no slot is free. Its response is reported without a
  /// handle.
  public func submitRaw(_ slot: SlotCopy) -> Bool {
    guard ring.freeSlotCount > reservedSlotCount else { return false }
    ring.place(slot)
    rawOutstanding += 1
    return true
  }

  /// Lets the backend see what was placed; true if it wants an event for that.
  func push() -> Bool { ring.push() }

  /// Gives the place and pages of a completed request back, or those of one prepared and not submitted.
  public func release(_ handle: RequestHandle) {
    let index = handle.index
    switch entries[index].state {
    case .prepared: reservedSlotCount -= 1
    case .completed: break
    case .free, .inFlight: preconditionFailure("the request is not to be released")
    }
    pages.release(Int(entries[index].pageCount), of: index)
    entries[index].state = .free
    free[freeCount] = UInt16(index)
    freeCount += 1
  }

  func id(of index: Int) -> UInt64 { UInt64(entries[index].generation) << 32 | UInt64(index) }

  // MARK: Responses

  /// Takes the next response; nil when there is none. A response that breaks the rules disables the queue.
  public func nextCompletion() throws(BlockFrontendError) -> BlockCompletion? {
    if ring.unconsumed == 0 {
      guard try hasResponses() else { return nil }
    }
    var slot = SlotCopy()
    guard ring.takeResponse(into: &slot, byteCount: abi.responseByteCount) else { return nil }
    let response = BlockResponse(slot)
    let index = Int(UInt32(truncatingIfNeeded: response.id))
    guard index < entries.count, entries[index].state == .inFlight, id(of: index) == response.id else {
      guard rawOutstanding > 0 else { throw disable(.unknownResponse(response)) }
      rawOutstanding -= 1
      return BlockCompletion(handle: nil, tag: 0, response: response)
    }
    let request = entries[index].request
    guard request.operation == response.operation else {
      throw disable(.wrongOperation(response, asked: request.operation))
    }
    entries[index].state = .completed
    return BlockCompletion(
      handle: RequestHandle(queue: number, index: index), tag: request.tag, response: response)
  }

  /// True when a response can be taken.
  func hasResponses() throws(BlockFrontendError) -> Bool {
    if let fault { throw fault }
    do throws(RingError) {
      return try ring.refreshResponses() > 0
    } catch {
      throw disable(.ring(error))
    }
  }

  /// ``hasResponses()``, and when there are none the next one brings an event.
  func finalCheck() throws(BlockFrontendError) -> Bool {
    if let fault { throw fault }
    do throws(RingError) {
      return try ring.finalCheckResponses()
    } catch {
      throw disable(.ring(error))
    }
  }

  private func disable(_ error: BlockFrontendError) -> BlockFrontendError {
    fault = error
    return error
  }

  // MARK: Data

  /// The request that a handle names.
  public func request(_ handle: RequestHandle) -> BlockFrontRequest { entries[handle.index].request }

  /// Copies data into the request's pages, `offset` bytes after the data's begin; it must not cross a page's
  /// end.
  public func copyIn(_ bytes: RawSpan, to handle: RequestHandle, at offset: Int) {
    let (page, start) = place(offset, byteCount: bytes.byteCount, of: handle)
    page.pages.copyIn(offset: page.offset + start, from: bytes)
  }

  /// Copies data out of the request's pages, `offset` bytes after the data's begin, not across a page's end.
  public func copyOut(_ bytes: inout MutableRawSpan, from handle: RequestHandle, at offset: Int) {
    let (page, start) = place(offset, byteCount: bytes.byteCount, of: handle)
    page.pages.copyOut(offset: page.offset + start, into: &bytes)
  }

  /// Names the request's data in one of its pages, for a transfer between the page and a file. It stays until
  /// the request is released.
  func dataSegment(_ position: Int, of handle: RequestHandle) -> IOSegment {
    let request = entries[handle.index].request
    precondition(position >= 0 && position < request.pageCount)
    let page = pages.page(position, of: handle.index)
    let start = position == 0 ? request.firstPageSector : 0
    let before = position == 0 ? 0 : position * 8 - request.firstPageSector
    let count = min(8 - start, request.sectorCount - before)
    return page.pages.segment(
      offset: page.offset + start * wireSectorByteCount, length: count * wireSectorByteCount)
  }

  /// The page that holds `byteCount` bytes of the data from `offset` on, and where they begin in it.
  private func place(
    _ offset: Int, byteCount: Int, of handle: RequestHandle
  ) -> (RequestPages.Page, start: Int) {
    let request = entries[handle.index].request
    precondition(entries[handle.index].state != .free)
    precondition(offset >= 0 && byteCount <= request.sectorCount * wireSectorByteCount - offset)
    let position = request.firstPageSector * wireSectorByteCount + offset
    let start = position % pageByteCount
    precondition(byteCount <= pageByteCount - start, "the bytes cross a page's end")
    return (pages.page(position / pageByteCount, of: handle.index), start)
  }

  // MARK: Connections

  /// Goes on with a new ring, in which ``begin(_:newPages:)`` places what was in flight in the old one.
  /// Answers to raw slots are no longer expected.
  func restart(ringPages: SharedPages, port: Port, firstRingIndex: UInt32) throws(BlockFrontendError) {
    let ring = FrontRing(
      pages: ringPages.pages, slotByteCount: abi.requestByteCount, startingAt: firstRingIndex)
    guard ring.slotCount == entries.count else {
      throw .ringShrank(from: entries.count, to: ring.slotCount)
    }
    self.ring = ring
    self.ringPages = ringPages
    self.port = port
    rawOutstanding = 0
    fault = nil
  }
}
