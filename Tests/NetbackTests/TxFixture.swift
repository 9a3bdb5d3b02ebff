import Netback
import RingKit
import Simulator
import Testing

/// A world for the transmit direction and the few moves that directed tests make in it. The guest's memory is
/// full of bytes that tell their places.
final class TxFixture {
  /// Bytes of a packet: a page of the guest, the first byte in it, and how many.
  struct Piece {
    var page: Int
    var offset: Int
    var count: Int
    init(_ page: Int, _ offset: Int, _ count: Int) {
      (self.page, self.offset, self.count) = (page, offset, count)
    }
  }

  let world: SimulatedNetTxWorld
  let memory: [UInt8]
  private(set) var nextID: UInt16 = 0

  init(_ change: (inout SimulatedNetTxWorld.Setup) -> Void = { _ in }) throws {
    var setup = SimulatedNetTxWorld.Setup()
    change(&setup)
    world = try SimulatedNetTxWorld(setup)
    memory = Self.fill(world.guest)
  }

  /// Fills a guest's memory; returns what is in it.
  static func fill(_ guest: SimulatedGuest) -> [UInt8] {
    var numbers = SeededNumbers(seed: 99)
    let bytes = (0..<guest.memory.byteCount).map { _ in numbers.any(UInt8.self) }
    guest.memory.setBytes(bytes, at: 0)
    return bytes
  }

  func bytes(_ pieces: [Piece]) -> [UInt8] {
    pieces.flatMap { memory[$0.page * 4096 + $0.offset..<$0.page * 4096 + $0.offset + $0.count] }
  }

  /// Places one request as it is told, under the next id; a new grant of page 0 unless told otherwise.
  @discardableResult
  func place(
    size: Int, offset: Int = 0, flags: NetTxFlags = [], reference: GrantReference? = nil
  ) -> UInt16 {
    let request = NetTxRequest(
      reference: reference ?? world.guest.grant(page: 0, readOnly: true), offset: UInt16(offset),
      flags: flags,
      id: nextID, size: UInt16(size))
    world.place(request.encode())
    nextID += 1
    return request.id
  }

  func place(_ extra: NetExtraInfo) { world.place(extra.encode()) }

  /// Places a whole packet; returns its bytes.
  @discardableResult
  func place(_ pieces: [Piece], flags: NetTxFlags = [], extras: [NetExtraInfo] = []) -> [UInt8] {
    for (index, piece) in pieces.enumerated() {
      var slotFlags: NetTxFlags = index < pieces.count - 1 ? .moreData : []
      if index == 0 {
        slotFlags.formUnion(flags)
        if !extras.isEmpty { slotFlags.insert(.extraInfo) }
      }
      let size = index == 0 ? pieces.reduce(0) { $0 + $1.count } : piece.count
      place(
        size: size, offset: piece.offset, flags: slotFlags,
        reference: world.guest.grant(page: piece.page, readOnly: true))
      guard index == 0 else { continue }
      for (number, extra) in extras.enumerated() {
        var extra = extra
        extra.hasMore = number < extras.count - 1
        place(extra)
      }
    }
    return bytes(pieces)
  }

  /// Publishes, lets everything end, and gives the statuses in the order of the answers.
  func settle(_ location: SourceLocation = #_sourceLocation) throws -> [NetStatus] {
    world.push()
    #expect(world.settle() == nil, sourceLocation: location)
    return try world.takeResponses().map(\.status)
  }

  /// What the link got, without what is to be done to it.
  var frames: [[UInt8]] { world.host.frames.map(\.bytes) }

  func expectNothingLeft(_ location: SourceLocation = #_sourceLocation) {
    #expect(world.leftovers.isEmpty, sourceLocation: location)
    #expect(world.isDrained && world.outstanding == 0, sourceLocation: location)
  }

  /// Publishes, and expects that this breaks the ring, after `answered` slots were answered.
  func expectBroken(
    _ fault: NetFault, after statuses: [NetStatus] = [], _ location: SourceLocation = #_sourceLocation
  ) throws {
    world.push()
    #expect(world.settle() == nil, sourceLocation: location)
    #expect(world.lastTurn == .broken(fault), sourceLocation: location)
    #expect(try world.takeResponses().map(\.status) == statuses, sourceLocation: location)
    #expect(world.leftovers.isEmpty, sourceLocation: location)
    // Nothing touches the ring again.
    let page = world.ringPages.copyBytes(at: 0, count: 4096)
    let frameCount = frames.count
    world.kick()
    #expect(world.runIfDue() && !world.hasWork(), sourceLocation: location)
    #expect(world.lastTurn == .broken(fault) && frames.count == frameCount, sourceLocation: location)
    #expect(world.ringPages.copyBytes(at: 0, count: 4096) == page, sourceLocation: location)
  }
}
