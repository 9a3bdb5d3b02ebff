import Netback
import RingKit

/// A packet as the model backend has it.
struct NetModelPacket: Equatable, Sendable {
  var bytes: [UInt8]
  var flags = NetTxFlags()
  var extras: [NetExtraInfo] = []
}

/// The backend's ends of a queue's two rings, done as simply as can be.
final class NetModelQueue {
  /// Packets that wait for receive requests.
  private var parked: [NetModelPacket] = []
  private var transmit: BackRing
  private var receive: BackRing
  let transmitPort: Port
  let receivePort: Port
  private let frontend: DomainID
  private let pool: BufferPool
  private let buffer: IOBuffer
  /// Packets that came.
  private(set) var packetCount = 0
  /// Multicast changes that came.
  private(set) var multicast: [NetExtraInfo] = []
  /// Headroom that is left before received data.
  var headroom = 0
  /// Answers the next packets with this.
  var status = NetStatus.okay

  /// Whether packets wait for pages.
  var hasParked: Bool { !parked.isEmpty }
  var ports: [Port] { transmitPort == receivePort ? [transmitPort] : [transmitPort, receivePort] }

  init(
    prefix: String, keys: [String: String], frontend: DomainID, grants: any GrantTable,
    events: any EventChannels
  ) throws {
    self.frontend = frontend
    func number(_ name: String) throws -> UInt32 {
      guard let value = keys[prefix + name].flatMap(UInt32.init) else {
        throw WorldFailure("the frontend wrote no \(prefix)\(name)")
      }
      return value
    }
    func pages(_ name: String) throws -> MappedPages {
      try grants.map([GrantReference(rawValue: try number(name))], of: frontend, access: .readWrite)
    }
    transmit = try BackRing(attaching: try pages("tx-ring-ref"), slotByteCount: NetTxRequest.byteCount)
    receive = try BackRing(attaching: try pages("rx-ring-ref"), slotByteCount: NetRxRequest.byteCount)
    if keys[prefix + "event-channel"] != nil {
      transmitPort = try events.bind(
        domain: frontend, remotePort: Port(rawValue: try number("event-channel")))
      receivePort = transmitPort
    } else {
      transmitPort = try events.bind(
        domain: frontend, remotePort: Port(rawValue: try number("event-channel-tx")))
      receivePort = try events.bind(
        domain: frontend, remotePort: Port(rawValue: try number("event-channel-rx")))
    }
    pool = try BufferPool(byteCount: pageByteCount)
    guard let buffer = pool.allocate(byteCount: pageByteCount) else { throw WorldFailure("no buffer") }
    self.buffer = buffer
    headroom = keys["xdp-headroom"].flatMap(Int.init) ?? 0
  }

  private func move(
    _ reference: GrantReference, offset: Int, count: Int, toGuest: Bool, _ grants: any GrantTable
  ) throws {
    guard count > 0 else { return }
    var batch = GrantCopyBatch(capacity: 1)
    batch.append(
      .init(
        toGuest: toGuest, domain: frontend, reference: reference, pageOffset: offset,
        local: buffer.segment.slice(offset: 0, count: UInt(count))))
    grants.copy(&batch)
    guard batch.status(at: 0) == 0 else {
      throw WorldFailure("a grant copy ended with \(batch.status(at: 0))")
    }
  }

  private func read(_ request: NetTxRequest, count: Int, _ grants: any GrantTable) throws -> [UInt8] {
    try move(request.reference, offset: Int(request.offset), count: count, toGuest: false, grants)
    let bytes = pool.bytes(of: buffer)
    return (0..<count).map { bytes[$0] }
  }

  /// Takes the next packet and answers its slots.
  func take(_ grants: any GrantTable, _ events: any EventChannels) throws -> NetModelPacket? {
    while true {
      if transmit.unconsumed == 0 {
        guard try transmit.finalCheck() else { return nil }
      }
      var slot = SlotCopy()
      guard transmit.take(into: &slot) else { return nil }
      var requests = [NetTxRequest(slot)]
      var packet = NetModelPacket(bytes: [], flags: requests[0].flags)
      var hasExtra = requests[0].flags.contains(.extraInfo)
      while hasExtra {
        guard transmit.take(into: &slot) else { throw WorldFailure("an extra info is missing") }
        packet.extras.append(NetExtraInfo(slot))
        hasExtra = packet.extras[packet.extras.count - 1].hasMore
      }
      while requests[requests.count - 1].flags.contains(.moreData) {
        guard transmit.take(into: &slot) else { throw WorldFailure("a packet was published in part") }
        requests.append(NetTxRequest(slot))
      }
      var sizes = requests.map { Int($0.size) }
      sizes[0] -= sizes[1...].reduce(0, +)
      for (request, size) in zip(requests, sizes) {
        packet.bytes += try read(request, count: size, grants)
      }
      let isChange = packet.extras.contains { $0.type == .multicastAdd || $0.type == .multicastDelete }
      for (index, request) in requests.enumerated() {
        answer(NetTxResponse(id: request.id, status: status))
        if index == 0 { for _ in packet.extras { answer(NetTxResponse(id: 0xFFFF, status: .null)) } }
      }
      if transmit.publish() { try events.notify(transmitPort) }
      if isChange {
        multicast += packet.extras
        continue
      }
      packetCount += 1
      return packet
    }
  }

  private func answer(_ response: NetTxResponse) {
    transmit.respond(response.encode(), byteCount: NetTxResponse.byteCount)
  }

  /// Puts the packet into the frontend's pages, or keeps it until there are enough.
  func send(_ packet: NetModelPacket, _ grants: any GrantTable, _ events: any EventChannels) throws {
    parked.append(packet)
    try flush(grants, events)
  }

  /// Sends what was parked.
  func flush(_ grants: any GrantTable, _ events: any EventChannels) throws {
    while let packet = parked.first {
      let room = pageByteCount - headroom
      let pieceCount = max(1, (packet.bytes.count + room - 1) / room)
      var extras = packet.extras
      if headroom > 0 { extras.append(NetExtraInfo(headroom: UInt16(headroom))) }
      if try receive.refresh() < pieceCount + extras.count {
        guard try receive.finalCheck(), receive.unconsumed >= pieceCount + extras.count else { return }
      }
      parked.removeFirst()
      var flags = NetRxFlags()
      if packet.flags.contains(.checksumBlank) { flags.insert(.checksumBlank) }
      if packet.flags.contains(.dataValidated) { flags.insert(.dataValidated) }
      if !extras.isEmpty { flags.insert(.extraInfo) }
      var slot = SlotCopy()
      for piece in 0..<pieceCount {
        _ = receive.take(into: &slot)
        let request = NetRxRequest(slot)
        let bytes = packet.bytes[(piece * room)..<min(packet.bytes.count, (piece + 1) * room)]
        let own = pool.bytes(of: buffer)
        for (index, byte) in bytes.enumerated() { own[index] = byte }
        try move(request.reference, offset: headroom, count: bytes.count, toGuest: true, grants)
        if piece < pieceCount - 1 { flags.insert(.moreData) } else { flags.remove(.moreData) }
        respond(
          NetRxResponse(id: request.id, offset: UInt16(headroom), flags: flags, status: Int16(bytes.count))
            .encode())
        guard piece == 0 else { continue }
        for (index, extra) in extras.enumerated() {
          _ = receive.take(into: &slot)
          var extra = extra
          extra.hasMore = index < extras.count - 1
          respond(extra.encode())
        }
        flags = []
      }
      if receive.publish() { try events.notify(receivePort) }
    }
  }

  private func respond(_ slot: SlotCopy) { receive.respond(slot, byteCount: NetRxResponse.byteCount) }
}

/// A control ring that answers from a list.
final class NetModelControl {
  private var ring: BackRing
  let port: Port
  private let frontend: DomainID
  /// Requests that came, with the first bytes of the page that they name.
  private(set) var requests: [(request: NetControlRequest, bytes: [UInt8])] = []
  /// What to answer: a status and data by type; others are not supported.
  var answers: [NetControlType: (NetControlStatus, UInt32)] = [:]
  /// Written into the page of a request for the list's end.
  var listStatus: UInt16 = 0
  private let grants: any GrantTable

  init(
    keys: [String: String], frontend: DomainID, grants: any GrantTable, events: any EventChannels
  ) throws {
    guard let reference = keys["ctrl-ring-ref"].flatMap(UInt32.init),
      let remote = keys["event-channel-ctrl"].flatMap(UInt32.init)
    else { throw WorldFailure("the frontend wrote no control ring") }
    self.frontend = frontend
    self.grants = grants
    ring = try BackRing(
      attaching: try grants.map([GrantReference(rawValue: reference)], of: frontend, access: .readWrite),
      slotByteCount: NetControlRequest.byteCount)
    port = try events.bind(domain: frontend, remotePort: Port(rawValue: remote))
  }

  func serve(_ events: any EventChannels) throws {
    while try ring.finalCheck() {
      var slot = SlotCopy()
      while ring.take(into: &slot) {
        let request = NetControlRequest(slot)
        requests.append((request, try bytes(of: request)))
        let answer = answers[request.type] ?? (.notSupported, 0)
        ring.respond(
          NetControlResponse(id: request.id, type: request.type, status: answer.0, data: answer.1).encode(),
          byteCount: NetControlResponse.byteCount)
      }
      if ring.publish() { try events.notify(port) }
    }
  }

  private func bytes(of request: NetControlRequest) throws -> [UInt8] {
    let reference: UInt32
    switch request.type {
    case .setHashKey, .setHashMapping: reference = request.data.0
    case .addGrantMapping, .deleteGrantMapping: reference = request.data.1
    default: return []
    }
    let page = try grants.map([GrantReference(rawValue: reference)], of: frontend, access: .readWrite)
    let bytes = page.copyBytes(at: 0, count: 64)
    if request.type == .deleteGrantMapping {
      for entry in 0..<Int(request.data.2) {
        page.setBytes([UInt8(listStatus & 0xFF), UInt8(listStatus >> 8)], at: entry * 8 + 6)
      }
    }
    return bytes
  }
}
