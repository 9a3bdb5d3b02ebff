import Blkback
import RingKit
import Simulator
import Testing

/// A world and the few moves that directed tests make in it.
struct EngineFixture {
  let world: BlockWorld
  let limits: BlockLimits

  init(_ change: (inout BlockWorld.Setup) -> Void = { _ in }) throws {
    limits = try BlockLimits(sectorCount: 1024, offered: .flush)
    var setup = BlockWorld.Setup(limits: limits)
    setup.guestPageCount = 256
    change(&setup)
    world = try BlockWorld(setup)
  }

  /// Places a request whose segments are whole pages beginning with guest page `page`, each newly granted.
  @discardableResult
  func place(
    _ operation: BlockOperation, id: UInt64, sector: UInt64 = 0, page: Int = 0, pages: Int = 1,
    readOnly: Bool = false
  ) -> [GrantReference] {
    let references = (0..<pages).map { world.guest.grant(page: page + $0, readOnly: readOnly) }
    place(operation, id: id, sector: sector, references.map { ($0, 0, 7) })
    return references
  }

  /// Places a request with the given segments: reference, first and last sector.
  func place(
    _ operation: BlockOperation, id: UInt64, sector: UInt64, _ segments: [(GrantReference, UInt8, UInt8)]
  ) {
    let request = BlockRequest(
      operation: operation, segmentCount: UInt8(segments.count), id: id, sectorNumber: sector, abi: world.abi)
    var slot = request.encode()
    for (index, segment) in segments.enumerated() {
      request.setSegment(
        BlockSegment(reference: segment.0, firstSector: segment.1, lastSector: segment.2), at: index,
        in: &slot)
    }
    world.place(slot)
  }

  /// Pushes, lets everything end, and gives the answers by id.
  func settle() throws -> [UInt64: BlockResponse] {
    world.push()
    #expect(world.settle() == nil)
    return try answers()
  }

  /// The answers there are, by id; two under one id are an issue.
  func answers() throws -> [UInt64: BlockResponse] {
    var answers: [UInt64: BlockResponse] = [:]
    for response in try world.takeResponses() {
      if answers.updateValue(response, forKey: response.id) != nil {
        Issue.record("two responses for \(response.id)")
      }
    }
    return answers
  }

  /// Fills guest page `page` so that each word tells its place.
  func stamp(page: Int, _ version: UInt64) {
    world.guest.write(Self.stamps(version), toPage: page)
  }

  /// The words that ``stamp(page:_:)`` writes.
  static func stamps(_ version: UInt64) -> [UInt64] { (0..<512).map { version << 32 | UInt64($0) } }

  /// Sectors `first..<first+count` of the disk in one row.
  func diskWords(_ first: Int, count: Int) -> [UInt64] {
    (first..<first + count).flatMap { world.disk.sector($0) }
  }

  func expectNothingLeft(_ location: SourceLocation = #_sourceLocation) {
    #expect(world.leftovers.isEmpty, sourceLocation: location)
    #expect(world.inFlightCount == 0, sourceLocation: location)
  }
}
