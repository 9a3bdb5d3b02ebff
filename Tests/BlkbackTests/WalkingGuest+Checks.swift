import Blkback
import RingKit
import Simulator
import Testing

/// What the walking guest holds its disk to.
extension WalkingGuest {
  /// Takes the responses there are and holds each against the model.
  func checkResponses() throws {
    checkWritesBegun()
    for response in try world.takeResponses() {
      guard let request = pending.removeValue(forKey: response.id) else {
        complaints.append("response to nothing: \(response)")
        continue
      }
      check(response, request)
    }
  }

  private func check(_ response: BlockResponse, _ request: Pending) {
    let form = request.descriptors == nil ? "" : "indirect "
    tally["\(form)\(request.operation) \(response.status)", default: 0] += 1
    checkOrder(response, request)
    if response.operation != request.expected { complain("wrong operation", response, request) }
    if let mustBe = request.mustBe, response.status != mustBe {
      complain("must be \(mustBe)", response, request)
    }
    for sector in request.sectors {
      if request.operation == .read { readers[sector] -= 1 } else { writers[sector] -= 1 }
    }
    let succeeded = response.status == .okay
    if request.operation == .discard {
      // What it may have changed was written off when it was placed.
    } else if request.operation == .read {
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
    // All that was answered before a barrier, and its own data, are durable.
    if succeeded && request.operation == .writeBarrier { checkDurability(answered, response, request) }
    for piece in request.pieces { putBack(piece) }
    if let descriptors = request.descriptors {
      descriptorPages[descriptors.page] = nil
      putBack(descriptors)
    }
  }

  /// Nothing passes a barrier: neither what came before it nor what comes after.
  private func checkOrder(_ response: BlockResponse, _ request: Pending) {
    guard !isPassed(request) else { return }
    for other in pending.values where !isPassed(other) {
      let isBefore = other.number < request.number
      if isBefore && (request.operation == .writeBarrier || other.operation == .writeBarrier) {
        complain("answered before \(other.operation) number \(other.number)", response, request)
      }
    }
  }

  /// True for what others may pass: a request that was refused at once, or a flush or barrier without data
  /// that may have failed.
  private func isPassed(_ request: Pending) -> Bool {
    request.pieces.isEmpty && (request.mustBe == .error || isHeldForever(request))
  }

  private func isHeldForever(_ request: Pending) -> Bool {
    world.host.isFenced && request.pieces.isEmpty && request.mustBe == .okay
  }

  /// No write begins while a barrier that was placed before it is unanswered. What has begun since the last
  /// look is not answered yet, as far as the guest knows.
  private func checkWritesBegun() {
    for write in world.host.writesBegun {
      let sectors = Int(write.bytes.lowerBound / 512)..<Int(write.bytes.upperBound / 512)
      let mayBegin = pending.values.contains {
        !$0.pieces.isEmpty && $0.operation != .read && $0.sectors.overlaps(sectors)
          && $0.barriersBefore <= write.barriersBefore
      }
      if !mayBegin {
        complaints.append("a write of \(sectors) began before a barrier ended")
      }
    }
    world.host.writesBegun = []
    world.host.discardsBegun = []
    world.host.outcomes = []
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
    if pending.count != world.heldCount || !pending.values.allSatisfy(isHeldForever) {
      found.append("\(pending.count) requests without a response")
    }
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
