import Netback
import RingKit
import Simulator
import Testing

/// A receive engine with its frontend, and the few moves that directed tests make.
final class RxFixture {
  var host: SimulatedNetRxHost
  let frontend: SimulatedNetRxFrontend
  let ringPages: MappedPages
  var engine: NetRxEngine<SimulatedNetRxHost>

  static let start: UInt32 = 0xFFFF_FFF0

  init(
    accepted: NetOffloads = [.scatterGather], headroom: Int = 0, tellsHashes: Bool = false,
    bufferByteCount: Int = 8 << 20
  ) throws {
    let guest = try SimulatedGuest(pageCount: NetLimits.ringSlotCount)
    ringPages = try MappedPages.anonymous(pageCount: 1)
    frontend = SimulatedNetRxFrontend(guest: guest, pages: ringPages, startingAt: Self.start)
    frontend.accepted = accepted
    frontend.wantsHashes = tellsHashes
    host = try SimulatedNetRxHost(seed: 1, guest: guest, bufferByteCount: bufferByteCount)
    engine = NetRxEngine(
      ring: try BackRing(attaching: ringPages, slotByteCount: NetRxRequest.byteCount), domain: guest.domain,
      configuration: NetRxConfiguration(
        accepted: accepted, headroom: headroom, tellsHashes: tellsHashes))
  }

  func post(_ count: Int, _ kind: SimulatedNetRxFrontend.Page = .granted) {
    frontend.post(count, kind)
    _ = frontend.push()
  }

  func packet(_ bytes: [UInt8], offload: PacketOffload = PacketOffload()) throws -> NetPacket {
    try #require(host.packet(bytes, offload: offload))
  }

  func deliver(_ bytes: [UInt8], offload: PacketOffload = PacketOffload()) throws -> RxDelivery {
    engine.deliver(try packet(bytes, offload: offload), host: &host)
  }

  @discardableResult
  func flush() -> NetTurn { engine.flush(host: &host) }

  var hasUnflushed: Bool { engine.hasUnflushed }

  func hasWork() -> Bool { engine.hasWork() }

  func postedSlotCount() -> Int { engine.postedSlotCount() }

  /// What the frontend has received since the last time.
  func received() throws -> [SimulatedNetRxFrontend.Frame] {
    try frontend.collect()
    defer { frontend.frames = [] }
    return frontend.frames
  }

  /// No rule was broken, and no buffer is held.
  func expectClean(_ location: SourceLocation = #_sourceLocation) {
    #expect(host.violations.isEmpty, sourceLocation: location)
    #expect(frontend.violations.isEmpty, "\(frontend.violations)", sourceLocation: location)
    #expect(host.liveByteCount == 0, sourceLocation: location)
  }

  /// The word of the ring's header that is asked for: `req_event`.
  var requestEvent: UInt32 {
    ringPages.copyBytes(at: 4, count: 4).reversed().reduce(0) { $0 << 8 | UInt32($1) }
  }

  /// Overwrites a 32-bit word of the ring's page, as the guest can.
  func setRingWord(_ value: UInt32, at offset: Int) { Self.setWord(value, at: offset, of: ringPages) }

  static func setWord(_ value: UInt32, at offset: Int, of pages: MappedPages) {
    pages.setBytes((0..<4).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) }, at: offset)
  }
}

/// Frames that tell what they are: bytes 14...21 hold a number, and all others follow from it.
enum RxFrameBytes {
  static func frame(_ number: UInt64, byteCount: Int) -> [UInt8] {
    var seed = SeededNumbers(seed: number)
    var bytes: [UInt8] = []
    bytes.reserveCapacity(byteCount + 7)
    while bytes.count < byteCount {
      let word = seed.next()
      for shift in 0..<8 { bytes.append(UInt8(truncatingIfNeeded: word >> (shift * 8))) }
    }
    bytes.removeLast(bytes.count - byteCount)
    // An EtherType that nobody parses.
    if byteCount >= 14 { (bytes[12], bytes[13]) = (0x88, 0xB5) }
    if byteCount >= 22 {
      for offset in 0..<8 { bytes[14 + offset] = UInt8(truncatingIfNeeded: number >> (offset * 8)) }
    }
    return bytes
  }

  /// The number of a frame, which is 22 bytes long at least.
  static func number(of bytes: [UInt8]) -> UInt64 {
    bytes[14..<22].reversed().reduce(0) { $0 << 8 | UInt64($1) }
  }
}
