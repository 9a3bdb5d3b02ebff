import Blkback
import RingKit
import Simulator

/// A guest that uses one disk through several queues, and remembers what it was promised.
///
/// Each word it writes names its sector, the write and its place (``WalkingGuest/word(sector:version:index:)``).
/// It never lets a write overlap another request, on any queue, but writes close beside each other all the time.
final class QueuesGuest {
  /// What the guest knows of one sector.
  struct Sector {
    /// What it holds at least: these words survive a power cut, or newer ones do.
    var kept = [UInt64](repeating: 0, count: 64)
    /// Writes placed since, oldest first; the disk may hold words of any of them.
    var writes: [UInt64] = []
    /// The write a read must give, 0 for ``kept``; nil when a failed one left it unknown.
    var present: UInt64? = 0
    /// Requests under way on it.
    var readers = 0
    var writers = 0
  }

  struct Request {
    var operation: BlockOperation
    var sectors: Range<Int>
    var version: UInt64
    var pages: [Int]
    /// For each sector the newest write that was answered when it was placed, if it promises anything.
    var promised: [UInt64] = []
  }

  let world: MultiQueueWorld
  let unit: Int
  private var numbers: SeededNumbers
  private(set) var sectors: [Sector]
  private var pending: [[UInt64: Request]] = []
  private var freePages: [[Int]] = []
  private var standing: [[Int: GrantReference]] = []
  private var nextID: UInt64 = 1
  private var version: UInt64 = 0
  private(set) var complaints: [String] = []
  /// Answers by kind, power cuts, and promises that were checked, to see that a run met them.
  private(set) var tally: [String: Int] = [:]

  init(world: MultiQueueWorld, limits: BlockLimits, seed: UInt64) {
    self.world = world
    unit = limits.sectorByteCount / 512
    numbers = SeededNumbers(seed: seed)
    sectors = Array(repeating: Sector(), count: Int(limits.sectorCount))
    connect()
  }

  private func connect() {
    pending = world.queues.map { _ in [:] }
    freePages = world.queues.map { Array(0..<$0.guest.memory.pageCount) }
    standing = world.queues.map { _ in [:] }
  }

  // MARK: Asking

  /// Places something on a queue; false if there is no room.
  @discardableResult
  func place(on queue: Int) -> Bool {
    guard world.queues[queue].freeSlotCount > 0, freePages[queue].count >= 11 else { return false }
    switch Int.random(in: 0..<100, using: &numbers) {
    case 0..<25: return placeTransfer(.read, on: queue)
    case 25..<86: return placeTransfer(.write, on: queue)
    case 86..<91: return placeTransfer(.flush, on: queue)
    case 91..<94: return placeTransfer(.writeBarrier, on: queue)
    default: return placeEmpty(numbers.chance(1, in: 3) ? .writeBarrier : .flush, on: queue)
    }
  }

  @discardableResult
  func placeEmpty(_ operation: BlockOperation, on queue: Int) -> Bool {
    // On a disk that has lost data it would keep its slot for good.
    guard !world.isFenced else { return false }
    put(Request(operation: operation, sectors: 0..<0, version: 0, pages: [], promised: promise), on: queue)
    return true
  }

  /// For each sector the newest write answered so far.
  private var promise: [UInt64] { sectors.map { $0.present ?? 0 } }

  @discardableResult
  func placeTransfer(_ operation: BlockOperation, on queue: Int, at wanted: Range<Int>? = nil) -> Bool {
    let count = Int.random(in: 1...(numbers.chance(1, in: 4) ? 40 : 6), using: &numbers)
    let length = max(1, count / unit) * unit
    let start = Int.random(in: 0...(sectors.count - length) / unit, using: &numbers) * unit
    let range = wanted ?? start..<start + length
    let isRead = operation == .read
    guard range.allSatisfy({ sectors[$0].writers == 0 && (isRead || sectors[$0].readers == 0) }) else {
      return false
    }
    version += 1
    let pages = (0..<(range.count + 7) / 8).map { _ in
      freePages[queue].remove(at: Int.random(in: 0..<freePages[queue].count, using: &numbers))
    }
    var request = Request(operation: operation, sectors: range, version: version, pages: pages)
    if operation == .flush || operation == .writeBarrier { request.promised = promise }
    for sector in range {
      if isRead {
        sectors[sector].readers += 1
      } else {
        sectors[sector].writers += 1
        sectors[sector].writes.append(version)
      }
    }
    for (place, page) in pages.enumerated() {
      let words: [UInt64] = (0..<512).map { index in
        let sector = range.lowerBound + place * 8 + index / 64
        return isRead ? WalkingGuest.untouched : Self.word(sector, version, index % 64)
      }
      world.queues[queue].guest.write(words, toPage: page)
    }
    put(request, on: queue)
    return true
  }

  private func put(_ request: Request, on queue: Int) {
    let block = world.queues[queue]
    let header = BlockRequest(
      operation: request.operation, segmentCount: UInt8(request.pages.count), id: nextID,
      sectorNumber: UInt64(request.sectors.lowerBound), abi: block.abi)
    var slot = header.encode()
    for (place, page) in request.pages.enumerated() {
      let reference = standing[queue][page] ?? block.guest.grant(page: page)
      standing[queue][page] = reference
      let last = min(8, request.sectors.count - place * 8) - 1
      header.setSegment(
        BlockSegment(reference: reference, firstSector: 0, lastSector: UInt8(last)), at: place, in: &slot)
    }
    block.place(slot)
    pending[queue][nextID] = request
    nextID += 1
  }

  // MARK: Checking

  /// Takes the responses of a queue and holds each against the model.
  func check(queue: Int) throws {
    for response in try world.queues[queue].takeResponses() {
      guard let request = pending[queue].removeValue(forKey: response.id) else {
        complaints.append("response to nothing: \(response)")
        continue
      }
      tally["\(request.operation) \(response.status)", default: 0] += 1
      if response.operation != request.operation { complaints.append("wrong operation: \(response)") }
      if request.operation == .read {
        checkRead(request, isOkay: response.status == .okay, queue)
      } else {
        finishWrite(request, isOkay: response.status == .okay)
      }
      if request.pages.isEmpty && response.status != .okay && !world.isFenced {
        complaints.append("an empty \(request.operation) was answered \(response.status)")
      }
      freePages[queue] += request.pages
    }
  }

  private func checkRead(_ request: Request, isOkay: Bool, _ queue: Int) {
    for (place, sector) in request.sectors.enumerated() {
      sectors[sector].readers -= 1
      guard isOkay else { continue }
      let page = world.queues[queue].guest.words(ofPage: request.pages[place / 8])
      let words = Array(page[place % 8 * 64..<place % 8 * 64 + 64])
      check(words, of: sector, isPresent: true, "read")
    }
  }

  private func finishWrite(_ request: Request, isOkay: Bool) {
    for sector in request.sectors {
      sectors[sector].writers -= 1
      sectors[sector].present = isOkay ? request.version : nil
    }
    guard isOkay, !request.promised.isEmpty else { return }
    for sector in sectors.indices where request.promised[sector] != 0 {
      keep(sector, request.promised[sector])
    }
    // A barrier's own data is durable too; that of a flush is written after it.
    if request.operation == .writeBarrier {
      for sector in request.sectors { keep(sector, request.version) }
    }
    tally["promises", default: 0] += 1
  }

  /// From here on the disk holds this write of the sector for good, or a newer one.
  private func keep(_ sector: Int, _ version: UInt64) {
    guard sectors[sector].writes.contains(version) else { return }
    sectors[sector].kept = (0..<64).map { Self.word(sector, version, $0) }
    sectors[sector].writes.removeAll { $0 <= version }
    if sectors[sector].present == version { sectors[sector].present = 0 }
  }

  private func check(_ words: [UInt64], of sector: Int, isPresent: Bool, _ what: String) {
    let known = sectors[sector]
    for index in 0..<64 {
      let isRight: Bool
      if isPresent, let present = known.present {
        isRight = words[index] == (present == 0 ? known.kept[index] : Self.word(sector, present, index))
      } else {
        isRight =
          words[index] == known.kept[index]
          || known.writes.contains { Self.word(sector, $0, index) == words[index] }
      }
      if !isRight {
        let found = String(words[index], radix: 16)
        complaints.append(
          "\(what): sector \(sector) word \(index) is \(found), present \(known.present ?? .max)")
        return
      }
    }
  }

  private static func word(_ sector: Int, _ version: UInt64, _ index: Int) -> UInt64 {
    WalkingGuest.word(sector: sector, version: version, index: index)
  }

  // MARK: Power

  /// Cuts the power, looks at what is left, and goes on with that.
  func cutPower() throws {
    try world.cutPower()
    tally["power cuts", default: 0] += 1
    for sector in sectors.indices {
      let words = world.disk.sector(sector)
      check(words, of: sector, isPresent: false, "after the power cut")
      if !sectors[sector].writes.isEmpty { tally["sectors at risk", default: 0] += 1 }
      sectors[sector] = Sector()
      sectors[sector].kept = words
    }
    connect()
  }

  /// What is wrong once all is settled.
  func verdict() -> [String] {
    var found = complaints + world.leftovers
    // An empty flush that failed is never answered: any answer would be taken for a success.
    let missing = pending.reduce(0) { $0 + $1.values.count { !(world.isFenced && $0.pages.isEmpty) } }
    if missing != 0 { found.append("\(missing) requests without a response") }
    for sector in sectors.indices {
      let before = complaints.count
      check(world.disk.sector(sector), of: sector, isPresent: true, "at the end")
      found += complaints[before...]
    }
    return found
  }
}
