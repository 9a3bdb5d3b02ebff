public import Netback
public import RingKit

/// A frontend's receive side that follows netif.h to the letter: posts pages, and puts packets together from
/// the responses. What no backend may do is written to ``violations``.
public final class SimulatedNetRxFrontend {
  /// What it received.
  public struct Frame: Equatable {
    /// All bytes.
    public var bytes: [UInt8]
    /// Flags of the first slot, without those that only chain slots.
    public var flags: NetRxFlags
    /// The extra infos, in their order.
    public var extras: [NetExtraInfo]
    /// Bytes in each data slot.
    public var slots: [Int]
  }

  /// What kind of page is posted.
  public enum Page: Sendable {
    /// A granted one.
    case granted
    /// One whose grant is read-only.
    case readOnly
    /// A reference that was never granted.
    case bad
  }

  /// Bytes of a page before it is filled.
  public static let poisonByte: UInt8 = 0xC3

  /// What it takes beside plain frames of one slot.
  public var accepted: NetOffloads = []
  /// Whether it set a hash algorithm.
  public var wantsHashes = false
  /// Whether each page is compared beyond the data.
  public var comparesPages = true
  /// Packets received, in their order. A test empties it.
  public var frames: [Frame] = []
  /// Packets dropped because a slot had an error.
  public private(set) var failedCount = 0
  /// Slots answered.
  public private(set) var answeredCount = 0
  /// What the backend did that it must not do.
  public private(set) var violations: [String] = []

  private struct Slot {
    var id: UInt16
    var page: Int
  }

  private let guest: SimulatedGuest
  private var front: FrontRing
  private var slots: [Slot?]
  private var freePages: [Int]
  private let references: [GrantReference]
  private let readOnly: [GrantReference]
  private var requestIndex: UInt32
  private var responseIndex: UInt32
  private let poison = [UInt8](repeating: SimulatedNetRxFrontend.poisonByte, count: pageByteCount)

  /// A frontend on `pages` whose counters start at `index`; it uses the guest's pages from 0 on, one for each
  /// slot of the ring.
  public init(guest: SimulatedGuest, pages: MappedPages, startingAt index: UInt32) {
    self.guest = guest
    front = FrontRing(pages: pages, slotByteCount: NetRxRequest.byteCount, startingAt: index)
    requestIndex = index
    responseIndex = index
    let count = front.slotCount
    slots = [Slot?](repeating: nil, count: count)
    freePages = Array(0..<count)
    references = (0..<count).map { guest.grant(page: $0) }
    readOnly = (0..<count).map { guest.grant(page: $0, readOnly: true) }
  }

  /// Slots that can be posted.
  public var freeSlotCount: Int { min(front.freeSlotCount, freePages.count) }

  /// Slots posted and not answered yet.
  public var postedCount: Int { slots.count - freePages.count }

  /// The reference under which page `page` is granted.
  public func reference(ofPage page: Int) -> GrantReference { references[page] }

  /// Posts up to `count` pages, which ``push()`` shows to the backend.
  public func post(_ count: Int, _ kind: Page = .granted) {
    for _ in 0..<min(count, freeSlotCount) {
      let page = freePages.removeFirst()
      guest.memory.setBytes(poison, at: page * pageByteCount)
      let reference: GrantReference =
        switch kind {
        case .granted: references[page]
        case .readOnly: readOnly[page]
        case .bad: GrantReference(rawValue: 0xFFFF_0000 + UInt32(page))
        }
      // An id that is neither the page nor the slot.
      let id = UInt16(truncatingIfNeeded: requestIndex &* 7 &+ 3)
      front.place(NetRxRequest(id: id, reference: reference).encode())
      slots[Int(requestIndex) % slots.count] = Slot(id: id, page: page)
      requestIndex &+= 1
    }
  }

  /// Shows what was posted; true if the backend is to be sent an event.
  public func push() -> Bool { front.push() }

  /// Takes all responses and puts packets together.
  public func collect() throws(RingError) {
    while try front.finalCheckResponses() {
      while takePacket() {}
    }
  }

  // MARK: Packets

  private func violate(_ what: String) { violations.append("slot \(responseIndex): \(what)") }

  /// The next response and the slot that it answers; nil if there is none.
  private func next() -> (SlotCopy, Slot)? {
    var copy = SlotCopy()
    guard front.takeResponse(into: &copy, byteCount: NetRxResponse.byteCount) else { return nil }
    let index = Int(responseIndex) % slots.count
    guard let slot = slots[index] else {
      violate("answered without a request")
      return nil
    }
    slots[index] = nil
    freePages.append(slot.page)
    responseIndex &+= 1
    answeredCount += 1
    return (copy, slot)
  }

  private func takePacket() -> Bool {
    guard let (copy, slot) = next() else { return false }
    var response = NetRxResponse(copy)
    let flags = response.flags
    var frame = Frame(
      bytes: [], flags: flags.subtracting([.moreData, .extraInfo]), extras: [], slots: [])
    if flags.contains(.extraInfo) {
      guard takeExtras(&frame) else { return false }
    }
    let headroom = frame.extras.first { $0.type == .headroom }.map { Int($0.headroom) } ?? 0
    var isWhole = take(response, slot, headroom: headroom, &frame)
    while response.flags.contains(.moreData) {
      guard let (copy, slot) = next() else {
        violate("half a packet")
        return false
      }
      response = NetRxResponse(copy)
      if !response.flags.subtracting(.moreData).isEmpty { violate("flags \(response.flags) on a later slot") }
      if !take(response, slot, headroom: headroom, &frame) { isWhole = false }
    }
    guard isWhole else {
      failedCount += 1
      return true
    }
    judge(frame)
    frames.append(frame)
    return true
  }

  private func takeExtras(_ frame: inout Frame) -> Bool {
    while true {
      guard let (copy, _) = next() else {
        violate("an extra info is missing")
        return false
      }
      let extra = NetExtraInfo(copy)
      if frame.extras.contains(where: { $0.type.rawValue >= extra.type.rawValue }) {
        violate("extra info \(extra.type.rawValue) twice or out of order")
      }
      frame.extras.append(extra)
      if !extra.hasMore { return true }
    }
  }

  /// Takes the data of a slot; false if it has an error.
  private func take(_ response: NetRxResponse, _ slot: Slot, headroom: Int, _ frame: inout Frame) -> Bool {
    if response.id != slot.id { violate("id \(response.id) in the slot of \(slot.id)") }
    guard response.status >= 0 else {
      if response.status != NetStatus.error.rawValue { violate("status \(response.status)") }
      frame.slots.append(0)
      return false
    }
    let count = Int(response.status)
    let offset = Int(response.offset)
    guard count > 0, offset + count <= pageByteCount else {
      violate("\(count) bytes at \(offset)")
      return false
    }
    if offset != headroom { violate("data at \(offset), headroom \(headroom)") }
    let bytes = guest.memory.copyBytes(at: slot.page * pageByteCount, count: pageByteCount)
    frame.bytes += bytes[offset..<offset + count]
    frame.slots.append(count)
    if comparesPages,
      bytes[..<offset] != poison[..<offset] || bytes[(offset + count)...] != poison[(offset + count)...]
    {
      violate("bytes of the page beyond the data were written")
    }
    return true
  }

  /// The rules for a packet as a whole.
  private func judge(_ frame: Frame) {
    if let first = frame.slots.first, first < NetLimits.ethernetHeaderByteCount {
      violate("\(first) bytes in the first slot")
    }
    if frame.slots.count > NetLimits.slotCount { violate("\(frame.slots.count) data slots") }
    if frame.slots.count > 1 && !accepted.contains(.scatterGather) { violate("several slots, no feature-sg") }
    for extra in frame.extras {
      switch extra.type {
      case .segmentation:
        let wanted: NetOffloads =
          extra.segmentationType == .tcpIPv6 ? .segmentationIPv6 : .segmentationIPv4
        if !accepted.contains(wanted) { violate("segmentation that was not asked for") }
        if !frame.flags.isSuperset(of: [.checksumBlank, .dataValidated]) {
          violate("segmentation with flags \(frame.flags)")
        }
      case .hash: if !wantsHashes { violate("a hash that was not asked for") }
      case .headroom: if extra.headroom == 0 { violate("a headroom of 0") }
      default: violate("extra info \(extra.type.rawValue)")
      }
    }
  }
}
