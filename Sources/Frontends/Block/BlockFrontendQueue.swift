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
  private let abi: BlockABI
  private let device: UInt16
  private let pages: RequestPages
  // Persistent grants are always writable, whatever the first request does (blkif.h, note on
  // feature-persistent).
  private let grantsForWriting: Bool
  private var entries: [Entry]
  private var free: [UInt16]
  private var freeCount: Int
  /// Slots promised to prepared requests.
  private var reservedSlotCount = 0
  private var rawOutstanding = 0
  private var fault: BlockFrontendError?

  init(
    number: Int, ringPages: SharedPages, port: Port, device: UInt32, pages: RequestPages,
    options: BlockFrontendOptions
  ) {
    self.number = number
    self.ringPages = ringPages
    self.port = port
    abi = options.abi
    grantsForWriting = options.persistentGrants
    // As Linux does; backends ignore it.
    self.device = UInt16(truncatingIfNeeded: device)
    self.pages = pages
    ring = FrontRing(
      pages: ringPages.pages, slotByteCount: options.abi.requestByteCount, startingAt: options.firstRingIndex)
    let count = ring.slotCount
    // Near the end of the 32 bits, so that every bit of an id is seen to come back.
    entries = Array(repeating: Entry(generation: 0xFFFF_FFF0), count: count)
    free = (0..<count).reversed().map { UInt16($0) }
    freeCount = count
  }

  /// Slots in the ring.
  public var slotCount: Int { ring.slotCount }
  /// Requests pushed whose responses were not taken.
  public var outstanding: Int { ring.outstanding }

  /// True when no request is prepared, in flight, or waits to be released.
  public var isIdle: Bool { freeCount == entries.count }

  // MARK: Requests

  /// Gives a request a place and pages; nil when there is no slot, place or page for it just now.
  public func prepare(_ request: BlockFrontRequest) throws(BlockFrontendError) -> RequestHandle? {
    if let fault { throw fault }
    let pageCount = request.pageCount
    precondition(pageCount <= maximumDirectSegments, "more data than a request carries")
    guard freeCount > 0, ring.freeSlotCount > reservedSlotCount else { return nil }
    let index = Int(free[freeCount - 1])
    do throws(GrantError) {
      let access: GrantAccess = grantsForWriting || request.operation == .read ? .readWrite : .readOnly
      guard try pages.acquire(pageCount, for: index, access: access) else { return nil }
    } catch {
      throw .grant(error)
    }
    freeCount -= 1
    reservedSlotCount += 1
    let generation = entries[index].generation &+ 1
    entries[index] = Entry(state: .prepared, request: request, generation: generation)
    return RequestHandle(queue: number, index: index)
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
    pages.release(entries[index].request.pageCount, of: index)
    entries[index].state = .free
    free[freeCount] = UInt16(index)
    freeCount += 1
  }

  private func slot(for index: Int) -> SlotCopy {
    let request = entries[index].request
    let id = id(of: index)
    if request.operation == .discard {
      return BlockRequest(
        discarding: UInt64(request.sectorCount), id: id, sectorNumber: request.sector, handle: device,
        abi: abi
      ).encode()
    }
    let pageCount = request.pageCount
    let fixed = BlockRequest(
      operation: request.operation, segmentCount: UInt8(pageCount), id: id, sectorNumber: request.sector,
      handle: device, abi: abi)
    var slot = fixed.encode()
    var first = request.firstPageSector
    var left = request.sectorCount
    for position in 0..<pageCount {
      let count = min(left, 8 - first)
      let segment = BlockSegment(
        reference: pages.page(position, of: index).reference, firstSector: UInt8(first),
        lastSector: UInt8(first + count - 1))
      fixed.setSegment(segment, at: position, in: &slot)
      left -= count
      first = 0
    }
    return slot
  }

  private func id(of index: Int) -> UInt64 { UInt64(entries[index].generation) << 32 | UInt64(index) }

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

  /// Goes on with a new ring and submits again what was in flight in the old one, oldest id first of all, as
  /// Linux does after a reconnection (blkif_recover). Answers to raw slots are no longer expected.
  func restart(ringPages: SharedPages, port: Port, firstRingIndex: UInt32) throws(BlockFrontendError) {
    var ring = FrontRing(
      pages: ringPages.pages, slotByteCount: abi.requestByteCount, startingAt: firstRingIndex)
    guard ring.slotCount == entries.count else {
      throw .ringShrank(from: entries.count, to: ring.slotCount)
    }
    for index in entries.indices where entries[index].state == .inFlight { ring.place(slot(for: index)) }
    self.ring = ring
    self.ringPages = ringPages
    self.port = port
    rawOutstanding = 0
    fault = nil
  }
}
