import Netback
import RingKit
import Simulator
import Testing

/// Two guests, one of which sends to the other past private memory, and the few moves that tests make.
final class DirectFixture {
  let sender: SimulatedGuest
  let receiver: SimulatedGuest
  let host: SimulatedNetDirectHost
  let frontend: SimulatedNetRxFrontend
  private var front: FrontRing
  private var engine: NetTxEngine<SimulatedNetDirectHost>
  private var proxy: SimulatedNetDirectHost
  private(set) var responses: [NetTxResponse] = []
  private var nextID: UInt16 = 0
  private var nextPage = 0

  static let start: UInt32 = 0xFFFF_FFF0

  init(
    accepted: NetOffloads = [.scatterGather, .checksumIPv4, .checksumIPv6], headroom: Int = 0
  ) throws {
    sender = try SimulatedGuest(pageCount: 256, domain: DomainID(rawValue: 9))
    receiver = try SimulatedGuest(pageCount: NetLimits.ringSlotCount)
    let transmitPages = try MappedPages.anonymous(pageCount: 1)
    let receivePages = try MappedPages.anonymous(pageCount: 1)
    front = FrontRing(
      pages: transmitPages, slotByteCount: NetTxRequest.byteCount, startingAt: Self.start)
    frontend = SimulatedNetRxFrontend(guest: receiver, pages: receivePages, startingAt: Self.start)
    frontend.accepted = accepted
    host = try SimulatedNetDirectHost(
      sender: sender, receiver: receiver,
      ring: BackRing(attaching: receivePages, slotByteCount: NetRxRequest.byteCount),
      configuration: NetRxConfiguration(accepted: accepted, headroom: headroom))
    proxy = host
    engine = try NetTxEngine(
      ring: BackRing(attaching: transmitPages, slotByteCount: NetTxRequest.byteCount),
      domain: sender.domain)
  }

  var counters: NetTxCounters { engine.counters }
  var freeSlotCount: Int { front.freeSlotCount }

  /// Posts receive slots.
  func post(_ count: Int, _ kind: SimulatedNetRxFrontend.Page = .granted) {
    frontend.post(count, kind)
    _ = frontend.push()
  }

  /// Places a frame in pieces of these sizes, each on a page of its own, beginning at `offset` of the page; gives
  /// the references.
  @discardableResult
  func place(
    _ frame: [UInt8], pieces: [Int], offset: Int = 0, flags: NetTxFlags = [], extra: NetExtraInfo? = nil
  ) -> [GrantReference] {
    precondition(pieces.reduce(0, +) == frame.count)
    var references: [GrantReference] = []
    var at = 0
    for (index, count) in pieces.enumerated() {
      let page = nextPage
      nextPage = (nextPage + 1) % sender.memory.pageCount
      let pageOffset = min(offset, pageByteCount - count)
      sender.memory.setBytes(Array(frame[at..<at + count]), at: page * pageByteCount + pageOffset)
      at += count
      let reference = sender.grant(page: page, readOnly: true)
      references.append(reference)
      var slotFlags: NetTxFlags = index < pieces.count - 1 ? .moreData : []
      if index == 0 {
        slotFlags.formUnion(flags)
        if extra != nil { slotFlags.insert(.extraInfo) }
      }
      let request = NetTxRequest(
        reference: reference, offset: UInt16(pageOffset), flags: slotFlags, id: nextID,
        size: UInt16(index == 0 ? frame.count : count))
      nextID += 1
      front.place(request.encode())
      if index == 0, let extra { front.place(extra.encode()) }
    }
    return references
  }

  /// Pieces of a page each, the first one of `first` bytes.
  static func pieces(_ count: Int, first: Int) -> [Int] {
    var pieces = [min(first, count)]
    var rest = count - pieces[0]
    while rest > 0 {
      pieces.append(min(pageByteCount, rest))
      rest -= pieces[pieces.count - 1]
    }
    return pieces
  }

  /// Publishes, and gives the sender turns until it has none left to take.
  func send() throws {
    _ = front.push()
    while engine.run(host: &proxy) == .more {}
    try collect()
  }

  /// Gives the receiver a turn; what it received since the last time.
  func received() throws -> [SimulatedNetRxFrontend.Frame] {
    while host.runReceiver() == .more {}
    try frontend.collect()
    defer { frontend.frames = [] }
    return frontend.frames
  }

  private func collect() throws {
    var slot = SlotCopy()
    _ = try front.refreshResponses()
    while front.takeResponse(into: &slot, byteCount: NetTxResponse.byteCount) {
      responses.append(NetTxResponse(slot))
    }
  }

  /// The statuses of the answers since the last time.
  func takeStatuses() -> [NetStatus] {
    defer { responses = [] }
    return responses.map(\.status)
  }

  /// No rule was broken, and no buffer is held.
  func expectClean(_ location: SourceLocation = #_sourceLocation) {
    #expect(host.violations.isEmpty, "\(host.violations)", sourceLocation: location)
    #expect(host.receiverHost.violations.isEmpty, sourceLocation: location)
    #expect(frontend.violations.isEmpty, "\(frontend.violations)", sourceLocation: location)
    #expect(host.liveBufferCount == 0 && host.receiverHost.liveByteCount == 0, sourceLocation: location)
  }
}
