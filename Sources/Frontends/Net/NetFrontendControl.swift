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

  private var ring: FrontRing
  /// Types of the requests in flight, by id.
  private var inFlight: [NetControlType?]
  private var nextID: UInt16 = 0
  private var fault: NetFrontendError?

  init(ringPages: SharedPages, dataPages: SharedPages, port: Port, firstRingIndex: UInt32) {
    self.ringPages = ringPages
    self.dataPages = dataPages
    self.port = port
    ring = FrontRing(
      pages: ringPages.pages, slotByteCount: NetControlRequest.byteCount, startingAt: firstRingIndex)
    inFlight = Array(repeating: nil, count: ring.slotCount)
  }

  /// Requests pushed whose responses were not taken.
  public var outstanding: Int { ring.outstanding }

  /// The data page's reference.
  public var dataReference: GrantReference { dataPages.references[0] }

  /// Places a request; its id, or nil when the ring is full.
  public func place(
    _ type: NetControlType, _ first: UInt32 = 0, _ second: UInt32 = 0, _ third: UInt32 = 0
  ) throws(NetFrontendError) -> UInt16? {
    if let fault { throw fault }
    guard ring.freeSlotCount > 0, let id = freeID() else { return nil }
    inFlight[Int(id)] = type
    ring.place(NetControlRequest(id: id, type: type, first, second, third).encode())
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
  func push() -> Bool { ring.push() }

  /// Takes the next response; nil when there is none. One that breaks the rules disables the ring.
  public func nextResponse() throws(NetFrontendError) -> NetControlResponse? {
    if ring.unconsumed == 0 {
      guard try hasResponses() else { return nil }
    }
    var slot = SlotCopy()
    guard ring.takeResponse(into: &slot, byteCount: NetControlResponse.byteCount) else { return nil }
    let response = NetControlResponse(slot)
    let id = Int(response.id)
    guard id < inFlight.count, let asked = inFlight[id] else {
      throw disable(.controlIDNotInUse(response))
    }
    guard asked == response.type else { throw disable(.controlType(response, asked: asked)) }
    guard NetControlStatus(rawValue: response.status) != nil else { throw disable(.controlStatus(response)) }
    inFlight[id] = nil
    return response
  }

  private func hasResponses() throws(NetFrontendError) -> Bool {
    if let fault { throw fault }
    do throws(RingError) {
      return try ring.refreshResponses() > 0
    } catch {
      throw disable(.ring(error))
    }
  }

  /// True when a response can be taken; when there are none, the next one brings an event.
  func requestEvent() throws(NetFrontendError) -> Bool {
    if let fault { throw fault }
    do throws(RingError) {
      return try ring.finalCheckResponses()
    } catch {
      throw disable(.ring(error))
    }
  }

  private func disable(_ violation: NetViolation) -> NetFrontendError {
    let error = NetFrontendError.violation(violation, queue: nil)
    fault = error
    return error
  }
}
