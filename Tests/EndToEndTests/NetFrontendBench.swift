import Netback
import RingKit
import Testing

@testable import Frontends

/// A transmit ring and the backend's end of it, in one process.
struct NetTransmitBench: ~Copyable {
  let transmitter: NetTransmitter
  var back: BackRing

  init(pages: Int = 256, firstRingIndex: UInt32 = 0xFFFF_FFF0) throws {
    let ring = try sharedPages(1, firstReference: 7)
    let transmitter = NetTransmitter(
      number: 3, ringPages: ring, dataPages: try sharedPages(pages), firstRingIndex: firstRingIndex)
    let back = try BackRing(attaching: ring.pages, slotByteCount: NetTxRequest.byteCount)
    self.transmitter = transmitter
    self.back = back
  }

  /// Takes all slots that were placed, as the backend does.
  mutating func take() throws -> [SlotCopy] {
    _ = transmitter.push()
    var slots: [SlotCopy] = []
    var slot = SlotCopy()
    _ = try back.refresh()
    while back.take(into: &slot) { slots.append(slot) }
    return slots
  }

  mutating func answer(_ id: UInt16, _ status: NetStatus = .okay) {
    back.respond(
      NetTxResponse(id: id, status: status).encode(), byteCount: NetTxResponse.byteCount)
    _ = back.publish()
  }

  /// Bytes that a request names.
  func bytes(_ request: NetTxRequest, count: Int) -> [UInt8] {
    guard let page = transmitter.dataPages.references.firstIndex(of: request.reference) else { return [] }
    return transmitter.dataPages.pages.copyBytes(at: page * 4096 + Int(request.offset), count: count)
  }

  /// What the transmitter says of the next response, which breaks a rule.
  func violation() -> NetViolation? {
    do {
      _ = try transmitter.nextCompletion()
      return nil
    } catch {
      guard case .violation(let violation, queue: 3) = error else { return nil }
      return violation
    }
  }
}

/// A receive ring and the backend's end of it, in one process.
struct NetReceiveBench: ~Copyable {
  let receiver: NetReceiver
  var back: BackRing
  private(set) var requests: [NetRxRequest]

  init(
    pages: Int = 256, firstRingIndex: UInt32 = 0xFFFF_FFF0,
    _ change: (inout NetFrontendOptions) -> Void = { _ in }
  ) throws {
    let ring = try sharedPages(1, firstReference: 7)
    var options = NetFrontendOptions()
    options.firstRingIndex = firstRingIndex
    change(&options)
    let receiver = NetReceiver(
      number: 3, ringPages: ring, dataPages: try sharedPages(pages), options: options)
    receiver.post()
    _ = receiver.push()
    var back = try BackRing(attaching: ring.pages, slotByteCount: NetRxRequest.byteCount)
    requests = Self.taken(from: &back)
    self.receiver = receiver
    self.back = back
  }

  /// Has the frontend post its pages, and takes them.
  mutating func post() throws {
    receiver.post()
    _ = receiver.push()
    _ = try back.refresh()
    requests += Self.taken(from: &back)
  }

  private static func taken(from back: inout BackRing) -> [NetRxRequest] {
    var requests: [NetRxRequest] = []
    var slot = SlotCopy()
    while back.take(into: &slot) { requests.append(NetRxRequest(slot)) }
    return requests
  }

  /// Answers the next request with data, which stands where the response says unless told otherwise.
  mutating func put(
    _ bytes: [UInt8], offset: Int = 0, writtenAt place: Int? = nil, flags: NetRxFlags = [],
    status: Int? = nil, idChange: UInt16 = 0
  ) throws {
    let request = requests.removeFirst()
    let page = try #require(receiver.dataPages.references.firstIndex(of: request.reference))
    if !bytes.isEmpty { receiver.dataPages.pages.setBytes(bytes, at: page * 4096 + (place ?? offset)) }
    back.respond(
      NetRxResponse(
        id: request.id ^ idChange, offset: UInt16(offset), flags: flags, status: Int16(status ?? bytes.count)
      ).encode(), byteCount: NetRxResponse.byteCount)
  }

  /// Answers the next request with an extra info.
  mutating func put(_ extra: NetExtraInfo) {
    requests.removeFirst()
    back.respond(extra.encode(), byteCount: NetExtraInfo.byteCount)
  }

  /// Answers the next request with any bytes.
  mutating func put(raw slot: SlotCopy) {
    requests.removeFirst()
    back.respond(slot, byteCount: NetRxResponse.byteCount)
  }

  mutating func publish() { _ = back.publish() }

  /// What the receiver says of the published responses, which break a rule.
  mutating func violation() -> NetViolation? {
    publish()
    do {
      _ = try receiver.nextPacket()
      return nil
    } catch {
      guard case .violation(let violation, queue: 3) = error else { return nil }
      return violation
    }
  }
}

/// A frame whose bytes tell their place.
func netFrame(_ count: Int, seed: UInt8 = 1) -> [UInt8] {
  (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) ^ seed }
}

extension MappedPages {
  /// Overwrites a 32-bit word, as a hostile other side does.
  func setWord(_ value: UInt32, at offset: Int) {
    setBytes((0..<4).map { UInt8(truncatingIfNeeded: value >> (8 * UInt32($0))) }, at: offset)
  }
}
