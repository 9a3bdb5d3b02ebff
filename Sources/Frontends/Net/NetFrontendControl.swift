public import Netback
public import RingKit

/// A frontend's end of the control ring (netif.h, "Control ring"): requests, and the answers in any order.
public final class NetFrontendControl {
  /// The ring's page.
  public let ringPages: SharedPages
  /// A page for keys, tables and lists, which the backend may write to.
  public let dataPages: SharedPages
  /// Our end of the event channel.
  public let port: Port

  private var ring: NetFrontendRing
  /// Types of the requests in flight, by id.
  private var inFlight: [NetControlType?]
  private var nextID: UInt16 = 0

  init(ringPages: SharedPages, dataPages: SharedPages, port: Port, firstRingIndex: UInt32) {
    self.ringPages = ringPages
    self.dataPages = dataPages
    self.port = port
    ring = NetFrontendRing(
      pages: ringPages.pages, slotByteCount: NetControlRequest.byteCount, startingAt: firstRingIndex,
      queue: nil)
    inFlight = Array(repeating: nil, count: ring.slots.slotCount)
  }

  /// Requests pushed whose responses were not taken.
  public var outstanding: Int { ring.slots.outstanding }

  /// The data page's reference.
  public var dataReference: GrantReference { dataPages.references[0] }

  /// Places a request; its id, or nil when the ring is full.
  public func place(
    _ type: NetControlType, _ first: UInt32 = 0, _ second: UInt32 = 0, _ third: UInt32 = 0
  ) throws(NetFrontendError) -> UInt16? {
    try ring.check()
    guard ring.slots.freeSlotCount > 0, let id = freeID() else { return nil }
    inFlight[Int(id)] = type
    ring.slots.place(NetControlRequest(id: id, type: type, first, second, third).encode())
    return id
  }

  private func freeID() -> UInt16? {
    for _ in inFlight.indices {
      let id = nextID % UInt16(inFlight.count)
      nextID = id + 1
      if inFlight[Int(id)] == nil { return id }
    }
    return nil
  }

  /// Lets the backend see what was placed; true if it wants an event for that.
  func push() -> Bool { ring.slots.push() }

  /// Takes the next response; nil when there is none. One that breaks the rules disables the ring.
  public func nextResponse() throws(NetFrontendError) -> NetControlResponse? {
    if ring.slots.unconsumed == 0 {
      guard try ring.hasResponses() else { return nil }
    }
    var slot = SlotCopy()
    guard ring.slots.takeResponse(into: &slot, byteCount: NetControlResponse.byteCount) else { return nil }
    let response = NetControlResponse(slot)
    let id = Int(response.id)
    guard id < inFlight.count, let asked = inFlight[id] else {
      throw ring.disable(.controlIDNotInUse(response))
    }
    guard asked == response.type else { throw ring.disable(.controlType(response, asked: asked)) }
    guard NetControlStatus(rawValue: response.status) != nil else {
      throw ring.disable(.controlStatus(response))
    }
    inFlight[id] = nil
    return response
  }

  /// True when a response can be taken; when there are none, the next one brings an event.
  func requestEvent() throws(NetFrontendError) -> Bool { try ring.requestEvent() }
}
