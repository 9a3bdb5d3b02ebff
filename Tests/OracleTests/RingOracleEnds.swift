import COracle
import RingKit

/// One end of a ring as the comparison drives it, ours or ring.h's; messages are byte arrays.
protocol ComparedFront: AnyObject {
  var free: Int { get }
  func place(_ request: [UInt8])
  func push() -> Bool
  /// Up to `limit` responses that the page offers now.
  func take(_ limit: Int) throws -> [[UInt8]]
  func finalCheck() throws -> Bool
}

protocol ComparedBack: AnyObject {
  /// Up to `limit` requests that the page offers now.
  func take(_ limit: Int) throws -> [[UInt8]]
  func respond(_ response: [UInt8])
  func publish() -> Bool
  func finalCheck() throws -> Bool
}

extension SlotCopy {
  init(_ bytes: [UInt8]) {
    self.init()
    for (offset, byte) in bytes.enumerated() { setUInt8(byte, at: offset) }
  }

  func bytes(_ count: Int) -> [UInt8] { (0..<count).map { uint8(at: $0) } }
}

final class OurFront: ComparedFront {
  private var ring: FrontRing
  private let responseByteCount: Int

  init(_ kind: RingKind, _ pages: MappedPages, startingAt index: UInt32) {
    ring = FrontRing(pages: pages, slotByteCount: kind.slotByteCount, startingAt: index)
    responseByteCount = kind.responseByteCount
  }

  var free: Int { ring.freeSlotCount }
  func place(_ request: [UInt8]) { ring.place(SlotCopy(request)) }
  func push() -> Bool { ring.push() }
  func take(_ limit: Int) throws -> [[UInt8]] {
    var responses: [[UInt8]] = []
    var copy = SlotCopy()
    _ = try ring.refreshResponses()
    while responses.count < limit, ring.takeResponse(into: &copy, byteCount: responseByteCount) {
      responses.append(copy.bytes(responseByteCount))
    }
    return responses
  }
  func finalCheck() throws -> Bool { try ring.finalCheckResponses() }
}

final class OurBack: ComparedBack {
  private var ring: BackRing
  private let kind: RingKind

  init(_ kind: RingKind, _ pages: MappedPages) throws {
    ring = try BackRing(attaching: pages, slotByteCount: kind.slotByteCount)
    self.kind = kind
  }

  func take(_ limit: Int) throws -> [[UInt8]] {
    var requests: [[UInt8]] = []
    var copy = SlotCopy()
    _ = try ring.refresh()
    while requests.count < limit, ring.take(into: &copy) { requests.append(copy.bytes(kind.slotByteCount)) }
    return requests
  }
  func respond(_ response: [UInt8]) { ring.respond(SlotCopy(response), byteCount: response.count) }
  func publish() -> Bool { ring.publish() }
  func finalCheck() throws -> Bool { try ring.finalCheck() }
}

// Sound in both ends below: the pages outlive the end that holds them, and each buffer has the message's
// size.

@safe final class HeaderFront: ComparedFront {
  private let pages: MappedPages
  private var ring: ring_oracle_front
  private let responseByteCount: Int

  init(_ kind: RingKind, _ pages: MappedPages, startingAt index: UInt32) {
    self.pages = pages
    unsafe ring = ring_oracle_front_init(kind.oracle, pages.unsafeBase, pages.byteCount, index)
    responseByteCount = kind.responseByteCount
  }

  var free: Int { Int(unsafe ring_oracle_front_free(&ring)) }
  func place(_ request: [UInt8]) { unsafe ring_oracle_front_place(&ring, request) }
  func push() -> Bool { unsafe ring_oracle_front_push(&ring) }
  func take(_ limit: Int) throws -> [[UInt8]] {
    (0..<min(limit, Int(unsafe ring_oracle_front_unconsumed(&ring)))).map { _ in
      var response = [UInt8](repeating: 0, count: responseByteCount)
      unsafe ring_oracle_front_take(&ring, &response)
      return response
    }
  }
  func finalCheck() throws -> Bool { unsafe ring_oracle_front_final_check(&ring) }
}

@safe final class HeaderBack: ComparedBack {
  private let pages: MappedPages
  private var ring: ring_oracle_back
  private let kind: RingKind

  init(_ kind: RingKind, _ pages: MappedPages, attachingAt index: UInt32) {
    self.pages = pages
    unsafe ring = ring_oracle_back_attach(kind.oracle, pages.unsafeBase, pages.byteCount, index)
    self.kind = kind
  }

  func take(_ limit: Int) throws -> [[UInt8]] {
    (0..<min(limit, Int(unsafe ring_oracle_back_unconsumed(&ring)))).map { _ in
      var request = [UInt8](repeating: 0, count: kind.slotByteCount)
      unsafe ring_oracle_back_take(&ring, &request)
      return request
    }
  }
  func respond(_ response: [UInt8]) { unsafe ring_oracle_back_respond(&ring, response) }
  func publish() -> Bool { unsafe ring_oracle_back_publish(&ring) }
  func finalCheck() throws -> Bool { unsafe ring_oracle_back_final_check(&ring) }
}

/// The protocols that are compared.
enum RingKind: CaseIterable {
  case blkif64, blkif32, netifTransmit, netifReceive, netifControl

  var oracle: ring_oracle_kind {
    switch self {
    case .blkif64: RING_ORACLE_BLKIF_64
    case .blkif32: RING_ORACLE_BLKIF_32
    case .netifTransmit: RING_ORACLE_NETIF_TX
    case .netifReceive: RING_ORACLE_NETIF_RX
    case .netifControl: RING_ORACLE_NETIF_CTRL
    }
  }

  var slotByteCount: Int { ring_oracle_request_size(oracle) }
  var responseByteCount: Int { ring_oracle_response_size(oracle) }
}
