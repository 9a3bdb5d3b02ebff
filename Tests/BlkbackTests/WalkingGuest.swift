import Blkback
import RingKit
import Simulator
import Testing

/// A guest that uses its disk at random and remembers what every sector must hold.
///
/// Each 8-byte word on its disk says which sector it belongs to, which write put it there, and where in the
/// sector it lies, so that a misplaced, stale or torn word is known for what it is. It never lets a write
/// overlap other requests, since no disk defines what comes of that.
final class WalkingGuest {
  /// A page of the guest and the reference it is granted under while a request uses it.
  struct Piece {
    var page: Int
    var reference: GrantReference
    var first: Int
    var last: Int
    /// First sector on the disk.
    var sector: Int
  }

  struct Pending {
    var operation: BlockOperation
    var expected: BlockOperation
    var pieces: [Piece] = []
    /// The page with its descriptors, if it is an indirect request.
    var descriptors: Piece?
    var sectors: Range<Int> = 0..<0
    var version: UInt64 = 0
    /// Its place among all requests, and the barriers that were placed before it.
    var number = 0
    var barriersBefore = 0
    /// The only status allowed, when the guest knows it beforehand.
    var mustBe: BlockStatus?
    /// For each sector the newest write that was answered before a flush was pushed.
    var promised: [UInt64] = []
  }

  let world: BlockWorld
  let reusesGrants: Bool
  let unit: Int
  let sectorCount: Int
  var numbers: SeededNumbers
  var pending: [UInt64: Pending] = [:]
  private var nextID: UInt64 = 0xFFFF_FFFF_FFFF_FF00
  private var version: UInt64 = 0
  /// Newest write of each sector that succeeded; 0 before the first.
  var answered: [UInt64]
  /// True where a failed write may have left anything between old and new.
  var isTorn: [Bool]
  var readers: [Int]
  var writers: [Int]
  var freePages: [Int]
  /// Descriptor pages that the backend may read, and whether it has.
  var descriptorPages: [Int: Bool] = [:]
  private var placedCount = 0
  private var barrierCount = 0
  private let maximumSegments: Int
  private var standing: [Int: GrantReference] = [:]
  /// Answers by kind, to see that the walk met them.
  var tally: [String: Int] = [:]
  var complaints: [String] = []

  init(world: BlockWorld, limits: BlockLimits, reusesGrants: Bool, seed: UInt64) {
    self.world = world
    self.reusesGrants = reusesGrants
    unit = limits.sectorByteCount / 512
    sectorCount = Int(limits.sectorCount)
    numbers = SeededNumbers(seed: seed)
    answered = Array(repeating: 0, count: sectorCount)
    isTorn = Array(repeating: false, count: sectorCount)
    readers = Array(repeating: 0, count: sectorCount)
    writers = Array(repeating: 0, count: sectorCount)
    freePages = Array(0..<world.guest.memory.pageCount)
    maximumSegments = limits.maximumIndirectSegments
    world.host.onGuestRead = { [unowned self] in noteRead(ofPage: $0) }
  }

  var outstandingCount: Int { pending.count }

  // MARK: Asking

  /// Places a random request; false if there is no room for one now.
  func placeSomething() -> Bool {
    guard world.freeSlotCount > 0, freePages.count > max(11, maximumSegments) else { return false }
    switch Int.random(in: 0..<100, using: &numbers) {
    case 0..<26: return placeTransfer(.read)
    case 26..<38: return placeTransfer(.read, isIndirect: true)
    case 38..<60: return placeTransfer(.write)
    case 60..<70: return placeTransfer(.write, isIndirect: true)
    case 70..<74: return placeTransfer(.flush)
    case 74..<77: return placeTransfer(.writeBarrier)
    case 77..<84: return placeEmpty(numbers.chance(1, in: 4) ? .writeBarrier : .flush)
    case 84..<90: return placeDiscard()
    default: return placeNonsense()
    }
  }

  /// A flush or barrier without data. On a disk that has lost data it keeps its slot for good.
  private func placeEmpty(_ operation: BlockOperation) -> Bool {
    guard !world.host.isFenced || (world.heldCount < 4 && numbers.chance(1, in: 10)) else { return false }
    // Only a success is ever an answer: a guest would take an error for one.
    var request = Pending(operation: operation, expected: operation, mustBe: .okay)
    if operation == .flush { request.promised = answered }
    place(request, slot: header(operation, count: 0, sector: 0))
    return true
  }

  private func placeDiscard() -> Bool {
    let start = Int.random(in: 0..<sectorCount / unit, using: &numbers) * unit
    let most = min(sectorCount - start, numbers.chance(1, in: 10) ? sectorCount : 64)
    let range = start..<start + Int.random(in: 0...most / unit, using: &numbers) * unit
    guard range.allSatisfy({ writers[$0] == 0 && readers[$0] == 0 }) else { return false }
    var request = Pending(operation: .discard, expected: .discard, sectors: range)
    if world.host.isFenced && !range.isEmpty { request.mustBe = .error }
    // Whole units within the range may hold anything from now on; the rest stays as it is.
    let support = (world.host.discardSupport?.unitByteCount ?? 512) / 512
    let first = (range.lowerBound + support - 1) / support * support
    for sector in first..<max(first, range.upperBound / support * support) {
      answered[sector] = 0
      isTorn[sector] = true
      for id in pending.keys where !(pending[id]?.promised.isEmpty ?? true) {
        pending[id]?.promised[sector] = 0
      }
    }
    for sector in range { writers[sector] += 1 }
    place(
      request,
      slot: BlockRequest(
        discarding: UInt64(range.count), flags: numbers.any(UInt8.self), id: nextID,
        sectorNumber: UInt64(start), abi: world.abi))
    return true
  }

  private func header(_ operation: BlockOperation, count: UInt8, sector: UInt64) -> BlockRequest {
    BlockRequest(
      operation: operation, segmentCount: count, id: nextID, sectorNumber: sector, handle: 0xBEEF,
      abi: world.abi)
  }

  private func placeTransfer(_ operation: BlockOperation, isIndirect: Bool = false) -> Bool {
    var lengths: [Int] = []
    for _ in 0..<Int.random(in: 1...(isIndirect ? maximumSegments : 11), using: &numbers) {
      lengths.append(Int.random(in: 1...(8 / unit), using: &numbers) * unit)
    }
    let total = lengths.reduce(0, +)
    guard total <= sectorCount else { return false }
    let start = Int.random(in: 0...((sectorCount - total) / unit), using: &numbers) * unit
    let range = start..<start + total
    guard range.allSatisfy({ writers[$0] == 0 && (operation == .read || readers[$0] == 0) }) else {
      return false
    }
    var request = Pending(operation: operation, expected: operation, sectors: range)
    version += 1
    request.version = version
    if operation == .flush { request.promised = answered }
    if operation != .read && world.host.isFenced { request.mustBe = .error }
    var sector = start
    for length in lengths {
      request.pieces.append(takePiece(length: length, sector: sector))
      sector += length
    }
    // One piece in a while lies in a page that was never granted, or may not be written.
    if numbers.chance(1, in: 40) {
      request.pieces[0].reference = GrantReference(rawValue: numbers.any(UInt32.self) | 0x8000_0000)
      request.mustBe = .error
    }
    for piece in request.pieces { fill(piece, operation, request.version) }
    for sector in range { operation == .read ? (readers[sector] += 1) : (writers[sector] += 1) }
    if isIndirect {
      placeIndirect(&request, start: start)
    } else {
      place(request, slot: header(operation, count: UInt8(lengths.count), sector: UInt64(start)))
    }
    return true
  }

  /// Places a transfer whose segments stand in a page of their own; one in a while is spoilt.
  private func placeIndirect(_ request: inout Pending, start: Int) {
    var segments = request.pieces.map {
      BlockSegment(reference: $0.reference, firstSector: UInt8($0.first), lastSector: UInt8($0.last))
    }
    if numbers.chance(1, in: 40) {
      let place = Int.random(in: 0..<segments.count, using: &numbers)
      segments[place].lastSector = numbers.chance(1, in: 2) ? 8 : .max
      request.mustBe = .error
    }
    var page = takePiece(length: 8, sector: 0)
    // Padding is the guest's own affair.
    world.guest.write(segments.map { $0.word | numbers.next() << 48 }, toPage: page.page)
    descriptorPages[page.page] = false
    if numbers.chance(1, in: 40) {
      page.reference = GrantReference(rawValue: numbers.any(UInt32.self) | 0x8000_0000)
      request.mustBe = .error
    }
    request.descriptors = page
    place(
      request,
      slot: BlockRequest(
        indirect: request.operation, segmentCount: UInt16(segments.count), id: nextID,
        sectorNumber: UInt64(start), abi: world.abi))
  }

  /// The backend has just read a page: if it holds descriptors they change at once, and whoever looks again is
  /// caught (XSA-155).
  private func noteRead(ofPage page: Int) {
    guard let wasRead = descriptorPages[page] else { return }
    if wasRead { complaints.append("descriptors were read twice") }
    descriptorPages[page] = true
    let words = (0..<512).map { _ in
      BlockSegment(
        reference: GrantReference(rawValue: .random(in: 0...200, using: &numbers)), firstSector: 0,
        lastSector: .random(in: 0...9, using: &numbers)
      ).word
    }
    world.guest.write(words, toPage: page)
  }

  private func takePiece(length: Int, sector: Int) -> Piece {
    let page = freePages.remove(at: Int.random(in: 0..<freePages.count, using: &numbers))
    let reference = standing[page] ?? world.guest.grant(page: page)
    if reusesGrants { standing[page] = reference }
    let first = Int.random(in: 0...((8 - length) / unit), using: &numbers) * unit
    return Piece(page: page, reference: reference, first: first, last: first + length - 1, sector: sector)
  }

  private func fill(_ piece: Piece, _ operation: BlockOperation, _ version: UInt64) {
    var words = [UInt64](repeating: Self.untouched, count: 512)
    if operation != .read {
      for index in 0..<(piece.last - piece.first + 1) * 64 {
        words[piece.first * 64 + index] =
          Self.word(sector: piece.sector + index / 64, version: version, index: index % 64)
      }
    }
    world.guest.write(words, toPage: piece.page)
  }

  /// Requests that must be refused, each with the answer it must get.
  private func placeNonsense() -> Bool {
    var request = Pending(operation: .read, expected: .read, mustBe: .error)
    var slot: BlockRequest
    switch Int.random(in: 0..<8, using: &numbers) {
    case 0:
      let operation = BlockOperation(rawValue: .random(in: 7...255, using: &numbers))
      request.expected = operation
      request.mustBe = .notSupported
      slot = header(operation, count: 1, sector: 0)
    case 1: slot = header(.read, count: .random(in: 12...255, using: &numbers), sector: 0)
    case 2: slot = header(.read, count: 0, sector: 0)
    case 3: slot = header(.read, count: 1, sector: UInt64(sectorCount) &+ UInt64(numbers.next() >> 1))
    case 4:
      request.expected = .write
      let count: UInt16 = numbers.chance(1, in: 2) ? 0 : .random(in: 100...65535, using: &numbers)
      slot = BlockRequest(indirect: .write, segmentCount: count, id: nextID, sectorNumber: 0, abi: world.abi)
    case 5:
      request.expected = BlockOperation(rawValue: .random(in: 2...255, using: &numbers))
      slot = BlockRequest(
        indirect: request.expected, segmentCount: 1, id: nextID, sectorNumber: 0, abi: world.abi)
    case 6:
      request.expected = .discard
      slot = BlockRequest(
        discarding: .max - UInt64.random(in: 0...99, using: &numbers), id: nextID,
        sectorNumber: UInt64(unit), abi: world.abi)
    default:
      request.operation = .writeBarrier
      request.expected = .writeBarrier
      slot = header(.writeBarrier, count: 12, sector: 0)
    }
    place(request, slot: slot)
    return true
  }

  private func place(_ request: Pending, slot header: BlockRequest) {
    var slot = header.encode()
    if let descriptors = request.descriptors {
      header.setIndirectReference(descriptors.reference, at: 0, in: &slot)
    } else {
      for (index, piece) in request.pieces.enumerated() {
        let segment = BlockSegment(
          reference: piece.reference, firstSector: UInt8(piece.first), lastSector: UInt8(piece.last))
        header.setSegment(segment, at: index, in: &slot)
      }
    }
    world.place(slot)
    var request = request
    request.number = placedCount
    request.barriersBefore = barrierCount
    placedCount += 1
    if request.operation == .writeBarrier { barrierCount += 1 }
    pending[nextID] = request
    nextID &+= 1
  }
}
