import Blkback
import RingKit
import Simulator
import Testing

/// A world and the few moves that directed tests make in it.
struct EngineFixture {
  let world: BlockWorld
  let limits: BlockLimits

  init(
    offered: BlockOptions = .flush, segments: Int = 0, sectors: UInt64 = 1024, readOnly: Bool = false,
    _ change: (inout BlockWorld.Setup) -> Void = { _ in }
  ) throws {
    limits = try BlockLimits(
      sectorCount: sectors, readOnly: readOnly, offered: offered, maximumIndirectSegments: segments)
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

  /// Places an indirect request with the given segments, whose descriptors go into guest pages from
  /// `descriptors` on; gives these pages' references.
  @discardableResult
  func placeIndirect(
    _ operation: BlockOperation, id: UInt64, sector: UInt64, _ segments: [(GrantReference, UInt8, UInt8)],
    descriptors: Int, count: Int? = nil
  ) -> [GrantReference] {
    let words = segments.map {
      BlockSegment(reference: $0.0, firstSector: $0.1, lastSector: $0.2).word | 0xFEED << 48
    }
    let request = BlockRequest(
      indirect: operation, segmentCount: UInt16(count ?? segments.count), id: id, sectorNumber: sector,
      abi: world.abi)
    var slot = request.encode()
    var references: [GrantReference] = []
    for page in 0..<min(8, max(1, (segments.count + 511) / 512)) {
      let part = Array(words.dropFirst(page * 512).prefix(512))
      world.guest.write(part, toPage: descriptors + page)
      references.append(world.guest.grant(page: descriptors + page))
      request.setIndirectReference(references[page], at: page, in: &slot)
    }
    world.place(slot)
    return references
  }

  /// Places a discard.
  func placeDiscard(id: UInt64, sector: UInt64, count: UInt64, secure: Bool = false) {
    let request = BlockRequest(
      discarding: count, flags: secure ? 1 : 0, id: id, sectorNumber: sector, abi: world.abi)
    world.place(request.encode())
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
    #expect(world.isDrained, sourceLocation: location)
  }
}
