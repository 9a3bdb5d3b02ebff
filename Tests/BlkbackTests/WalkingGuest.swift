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
    var sectors: Range<Int> = 0..<0
    var version: UInt64 = 0
    /// The only status allowed, when the guest knows it beforehand.
    var mustBe: BlockStatus?
    /// For each sector the newest write that was answered before a flush was pushed.
    var promised: [UInt64] = []
  }

  let world: BlockWorld
  let reusesGrants: Bool
  let unit: Int
  let sectorCount: Int
  private var numbers: SeededNumbers
  private var pending: [UInt64: Pending] = [:]
  private var nextID: UInt64 = 0xFFFF_FFFF_FFFF_FF00
  private var version: UInt64 = 0
  /// Newest write of each sector that succeeded; 0 before the first.
  private var answered: [UInt64]
  /// True where a failed write may have left anything between old and new.
  private var isTorn: [Bool]
  private var readers: [Int]
  private var writers: [Int]
  private var freePages: [Int]
  private var standing: [Int: GrantReference] = [:]
  /// Answers by kind, to see that the walk met them.
  private(set) var tally: [String: Int] = [:]
  private(set) var complaints: [String] = []

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
  }

  var outstandingCount: Int { pending.count }

  // MARK: Asking

  /// Places a random request; false if there is no room for one now.
  func placeSomething() -> Bool {
    guard world.freeSlotCount > 0, freePages.count >= 11 else { return false }
    switch Int.random(in: 0..<100, using: &numbers) {
    case 0..<40: return placeTransfer(.read)
    case 40..<75: return placeTransfer(.write)
    case 75..<80: return placeTransfer(.flush)
    case 80..<90:
      var request = Pending(operation: .flush, expected: .flush)
      request.promised = answered
      if world.host.isFenced { request.mustBe = .error }
      place(request, slot: header(.flush, count: 0, sector: 0))
      return true
    default: return placeNonsense()
    }
  }

  private func header(_ operation: BlockOperation, count: UInt8, sector: UInt64) -> BlockRequest {
    BlockRequest(
      operation: operation, segmentCount: count, id: nextID, sectorNumber: sector, handle: 0xBEEF,
      abi: world.abi)
  }

  private func placeTransfer(_ operation: BlockOperation) -> Bool {
    var lengths: [Int] = []
    for _ in 0..<Int.random(in: 1...11, using: &numbers) {
      lengths.append(Int.random(in: 1...(8 / unit), using: &numbers) * unit)
    }
    let total = lengths.reduce(0, +)
    guard total <= sectorCount else { return false }
    let start = Int.random(in: 0...((sectorCount - total) / unit), using: &numbers) * unit
    let range = start..<start + total
    guard writers[range].allSatisfy({ $0 == 0 }) else { return false }
    guard operation == .read || readers[range].allSatisfy({ $0 == 0 }) else { return false }
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
    let counts = operation == .read ? 1 : 0
    for sector in range { counts == 1 ? (readers[sector] += 1) : (writers[sector] += 1) }
    place(request, slot: header(operation, count: UInt8(lengths.count), sector: UInt64(start)))
    return true
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
    switch Int.random(in: 0..<5, using: &numbers) {
    case 0:
      let operation = BlockOperation(rawValue: .random(in: 7...255, using: &numbers))
      request.expected = operation
      request.mustBe = .notSupported
      slot = header(operation, count: 1, sector: 0)
    case 1: slot = header(.read, count: .random(in: 12...255, using: &numbers), sector: 0)
    case 2: slot = header(.read, count: 0, sector: 0)
    case 3: slot = header(.read, count: 1, sector: UInt64(sectorCount) &+ UInt64(numbers.next() >> 1))
    default:
      request.expected = .write
      request.mustBe = .notSupported
      slot = BlockRequest(indirect: .write, segmentCount: 1, id: nextID, sectorNumber: 0, abi: world.abi)
    }
    place(request, slot: slot)
    return true
  }

  private func place(_ request: Pending, slot header: BlockRequest) {
    var slot = header.encode()
    for (index, piece) in request.pieces.enumerated() {
      let segment = BlockSegment(
        reference: piece.reference, firstSector: UInt8(piece.first), lastSector: UInt8(piece.last))
      header.setSegment(segment, at: index, in: &slot)
    }
    world.place(slot)
    pending[nextID] = request
    nextID &+= 1
  }

  // MARK: Checking

  /// Takes the responses there are and holds each against the model.
  func checkResponses() throws {
    for response in try world.takeResponses() {
      guard let request = pending.removeValue(forKey: response.id) else {
        complaints.append("response to nothing: \(response)")
        continue
      }
      check(response, request)
    }
  }

  private func check(_ response: BlockResponse, _ request: Pending) {
    tally["\(request.operation) \(response.status)", default: 0] += 1
    if response.operation != request.expected { complain("wrong operation", response, request) }
    if let mustBe = request.mustBe, response.status != mustBe {
      complain("must be \(mustBe)", response, request)
    }
    for sector in request.sectors {
      if request.operation == .read { readers[sector] -= 1 } else { writers[sector] -= 1 }
    }
    let succeeded = response.status == .okay
    if request.operation == .read {
      for piece in request.pieces { checkRead(piece, succeeded, response, request) }
    } else {
      for sector in request.sectors {
        // With a bad reference in it a write must not have begun, so nothing changed.
        if request.mustBe != nil { continue }
        if succeeded { answered[sector] = request.version }
        isTorn[sector] = !succeeded
      }
    }
    if succeeded && !request.promised.isEmpty { checkDurability(request.promised, response, request) }
    for piece in request.pieces { putBack(piece) }
  }

  private func checkRead(_ piece: Piece, _ succeeded: Bool, _ response: BlockResponse, _ request: Pending) {
    let words = world.guest.words(ofPage: piece.page)
    for place in 0..<8 {
      let sector = piece.sector + place - piece.first
      if place < piece.first || place > piece.last {
        if !Self.holds(words, at: place * 64, first: Self.untouched, step: 0) {
          complain("bytes outside the segment changed", response, request)
        }
      } else if succeeded && !isTorn[sector] {
        if !holdsExpected(words, at: place * 64, sector: sector) {
          complain("sector \(sector) is not version \(answered[sector])", response, request)
        }
      } else if words[place * 64..<place * 64 + 64].contains(where: Self.isPoisoned) {
        complain("old buffer contents", response, request)
      }
    }
  }

  /// Every word that was promised survives a power cut now, or a newer one does. A sample of the sectors is
  /// looked at.
  private func checkDurability(_ promised: [UInt64], _ response: BlockResponse, _ request: Pending) {
    var sector = Int.random(in: 0..<16, using: &numbers)
    while sector < sectorCount {
      defer { sector += Int.random(in: 1..<16, using: &numbers) }
      let words = world.disk.durableSector(sector)
      if promised[sector] == 0 || holdsExpected(words, at: 0, sector: sector) { continue }
      for index in 0..<64 {
        let word = words[index]
        let kept = (word >> 8) & 0xFFFF_FFFF
        if kept < promised[sector] || word & 0xFF != UInt64(index) || word >> 40 != UInt64(sector) {
          return complain("sector \(sector) would lose version \(promised[sector])", response, request)
        }
      }
    }
  }

  private func putBack(_ piece: Piece) {
    freePages.append(piece.page)
    if !reusesGrants { world.guest.revoke(piece.reference) }
  }

  /// What is wrong once all is settled.
  func verdict() -> [String] {
    var found = complaints + world.leftovers
    if !pending.isEmpty { found.append("\(pending.count) requests without a response") }
    for sector in 0..<sectorCount {
      let words = world.disk.sector(sector)
      if isTorn[sector] {
        if words.contains(where: Self.isPoisoned) { found.append("old buffer contents on disk at \(sector)") }
      } else if !holdsExpected(words, at: 0, sector: sector) {
        found.append("sector \(sector) is wrong on disk")
      }
    }
    return found
  }

  private func complain(_ what: String, _ response: BlockResponse, _ request: Pending) {
    complaints.append("\(what): \(response), \(request.operation) of \(request.sectors)")
  }

  private func holdsExpected(_ words: [UInt64], at start: Int, sector: Int) -> Bool {
    let version = answered[sector]
    if version == 0 { return Self.holds(words, at: start, first: 0, step: 0) }
    return Self.holds(words, at: start, first: Self.word(sector: sector, version: version, index: 0), step: 1)
  }

  /// True when the 64 words of a sector are `first`, `first + step`, and so on. A loop without sequences,
  /// because the walks spend their time here.
  private static func holds(_ words: [UInt64], at start: Int, first: UInt64, step: UInt64) -> Bool {
    var expected = first
    var index = start
    while index < start + 64 {
      if words[index] != expected { return false }
      expected &+= step
      index += 1
    }
    return true
  }

  /// Fills what a read must not touch.
  static let untouched: UInt64 = 0x5A5A_5A5A_5A5A_5A5A

  static func word(sector: Int, version: UInt64, index: Int) -> UInt64 {
    UInt64(sector) << 40 | version << 8 | UInt64(index)
  }

  /// Two poison bytes side by side come from nowhere else: sector numbers, versions and indices are small.
  static func isPoisoned(_ word: UInt64) -> Bool {
    var rest = word
    while rest != 0 {
      if rest & 0xFFFF == 0xA5A5 { return true }
      rest >>= 8
    }
    return false
  }
}
