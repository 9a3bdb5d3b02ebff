import Netback
import RingKit
import Simulator
import Testing

/// A guest that sends at random, well and badly, and knows what must become of all it sent.
final class TxWalkingGuest {
  let world: SimulatedNetTxWorld
  var numbers: SeededNumbers
  let memory: [UInt8]
  let model = TxModel()
  /// All slots of this connection that were published, and where the next packet to be judged begins.
  private var slots: [TxModel.Slot] = []
  private var judged = 0
  private var answers: [NetTxResponse] = []
  private var references: [Int: UInt32] = [:]
  private var multicast: [[UInt8]] = []
  private var badReference: UInt32 = 0x8000_0000
  /// What was met, to see that the walk met everything.
  var tally: [String: Int] = [:]
  var complaints: [String] = []
  private(set) var frameCount = 0

  init(world: SimulatedNetTxWorld, seed: UInt64) {
    self.world = world
    numbers = SeededNumbers(seed: seed)
    memory = TxFixture.fill(world.guest)
  }

  private func number(_ range: ClosedRange<Int>) -> Int { Int.random(in: range, using: &numbers) }

  private func reference(page: Int) -> UInt32 {
    if numbers.chance(1, in: 60) {
      badReference += 1
      return badReference
    }
    let reference = world.guest.grant(page: page, readOnly: numbers.chance(1, in: 2))
    if numbers.chance(1, in: 20) { world.host.stage(reference) }
    pages[reference.rawValue] = page
    return reference.rawValue
  }
  private var pages: [UInt32: Int] = [:]

  // MARK: Sending

  private func slot(reference: UInt32, offset: Int, flags: Int, size: Int) -> TxModel.Slot {
    var slot: TxModel.Slot = []
    for word in [Int(reference & 0xFFFF), Int(reference >> 16), offset, flags, number(0...65535), size] {
      slot += [UInt8(word & 0xFF), UInt8(word >> 8 & 0xFF)]
    }
    return slot
  }

  private func extra(type: Int, hasMore: Bool) -> TxModel.Slot {
    var slot: TxModel.Slot = [UInt8(type), (hasMore ? 1 : 0) | numbers.any(UInt8.self) & 0xFE]
    slot += (0..<10).map { _ in numbers.any(UInt8.self) }
    switch type {
    case 1:
      if slot[2] == 0 { slot[2] = 1 }
      slot[4] = UInt8(number(1...2))
    case 2, 3:
      // Few of them, so that they come again.
      slot.replaceSubrange(2..<8, with: [1, 0, 0x5E, 0, 0, UInt8(number(0...90))])
    case 4: slot[2] = UInt8(number(0...4))
    default: break
    }
    return slot
  }

  /// A whole packet, or a request to change the filter, of at most `most` slots.
  private func packet(most: Int) -> [TxModel.Slot] {
    var extras: [Int] = []
    if numbers.chance(1, in: 6) && most > 8 {
      extras = (0..<number(1...4)).map { _ in [1, 4, 5][number(0...2)] }
    }
    if numbers.chance(1, in: 15) && most > 8 { extras.append(number(2...3)) }
    let room = most - extras.count
    var sizes: [Int]
    switch number(0...9) {
    case 0..<4: sizes = [number(14...1514)]
    case 4: sizes = [number(0...20)] + (0..<number(0...5)).map { _ in number(0...20) }
    case 5: sizes = [number(14...4096)] + (0..<number(1...15)).map { _ in 4096 }
    case 6: sizes = (0..<number(1...90)).map { _ in number(0...200) }
    default: sizes = [number(14...4096)] + (0..<number(0...17)).map { _ in number(0...3600) }
    }
    sizes = Array(sizes.prefix(max(1, room)))
    while sizes.reduce(0, +) > 65535 { sizes.removeLast() }
    var total = sizes.reduce(0, +)
    // Now and then the sizes do not fit together, in a way that is an error only.
    if sizes.count > 1 && numbers.chance(1, in: 25) { total = number(0...min(total, sizes[0])) }
    let flags = numbers.chance(1, in: 10) ? number(0...3) : 0
    var made: [TxModel.Slot] = []
    for (index, size) in sizes.enumerated() {
      let page = number(0...world.guest.memory.pageCount - 1)
      var slotFlags = index < sizes.count - 1 ? 4 : 0
      if index == 0 { slotFlags |= flags | (extras.isEmpty ? 0 : 8) }
      made.append(
        slot(
          reference: reference(page: page), offset: number(0...4096 - size), flags: slotFlags,
          size: index == 0 ? total : size))
      guard index == 0 else { continue }
      for (position, type) in extras.enumerated() {
        made.append(extra(type: type, hasMore: position < extras.count - 1))
      }
      // A dummy has no data slots.
      if extras.contains(where: { $0 == 2 || $0 == 3 }) { break }
    }
    return made
  }

  /// A slot of which nothing is certain.
  private func nonsense() -> TxModel.Slot {
    if numbers.chance(1, in: 3) {
      return extra(
        type: numbers.chance(1, in: 10) ? number(0...255) : number(1...5), hasMore: numbers.chance(1, in: 3))
    }
    let sizes = [0, 1, 13, 14, 60, 4095, 4096, 65535, number(0...300), number(0...300), number(0...65535)]
    let offsets = [0, 0, 1, 4095, 4096, 65535, number(0...3000), number(0...3000)]
    return slot(
      reference: reference(page: number(0...10)), offset: offsets[number(0...7)],
      flags: number(0...15) | (numbers.chance(1, in: 20) ? number(0...65535) : 0), size: sizes[number(0...10)]
    )
  }

  private func place(_ made: [TxModel.Slot]) {
    for bytes in made {
      var slot = SlotCopy()
      for (index, byte) in bytes.enumerated() { slot.setUInt8(byte, at: index) }
      world.place(slot)
      slots.append(bytes)
    }
  }

  /// Places a packet if there is room for it.
  func sendSomething() {
    let made = packet(most: 40)
    if made.count <= world.freeSlotCount { place(made) }
  }

  /// Publishes a row of slots that mean nothing together. Whatever was before must have been answered.
  func sendNonsense() {
    place((0..<min(number(1...12), world.freeSlotCount)).map { _ in nonsense() })
  }

  /// The last packet of a row, cut off.
  func sendHalf() {
    let made = packet(most: 40)
    if made.count <= world.freeSlotCount { place(Array(made.prefix(number(1...made.count)))) }
  }

  // MARK: Judging

  /// The fault that the published slots must end in, if any.
  var expectedFault: NetFault? {
    var position = judged
    while position < slots.count {
      switch model.next(in: slots, from: position) {
      case .packet(let packet): position = packet.slots.upperBound
      case .fault(let fault): return fault
      }
    }
    return nil
  }

  /// Takes the answers there are and judges those of whole packets.
  func judge() throws {
    answers += try world.takeResponses()
    while judged < slots.count, case .packet(let packet) = model.next(in: slots, from: judged),
      answers.count >= packet.slots.count
    {
      judge(packet, Array(answers.prefix(packet.slots.count)))
      answers.removeFirst(packet.slots.count)
      judged = packet.slots.upperBound
    }
  }

  private func judge(_ packet: TxModel.Packet, _ given: [NetTxResponse]) {
    var expected: [NetStatus] = packet.slots.map { packet.extras.contains($0) ? .null : .okay }
    let first = packet.slots.lowerBound
    for slot in packet.slots where !packet.extras.contains(slot) {
      if Int(given[slot - first].id) != TxModel.id(slots[slot]) { complain("id of slot \(slot)") }
    }
    switch packet.verdict {
    case .error:
      for index in expected.indices where expected[index] == .okay { expected[index] = .error }
      count("error")
    case .multicast(let address, let isAdded):
      if isAdded && address[0] & 1 == 1 && address != [255, 255, 255, 255, 255, 255] {
        if !multicast.contains(address) {
          if multicast.count == 64 {
            expected[0] = .error
            count("filter full")
          } else {
            multicast.append(address)
          }
        }
      } else if !isAdded {
        multicast.removeAll { $0 == address }
      }
      count("multicast")
    case .frame(let fragments, let flags, let isSegmented, let hash):
      let failed = fragments.filter { world.host.failedReferences.contains($0.reference) }
      for fragment in failed { expected[fragment.slot - first] = .error }
      if !failed.isEmpty {
        count("failed copy")
      } else if flags & 1 == 1 || isSegmented {
        // What becomes of headers of random bytes is not the engine's business: all or nothing.
        if given[0].status == .error {
          for index in expected.indices where expected[index] == .okay { expected[index] = .error }
          count("refused")
        } else {
          takeFrame { $0.bytes.count == fragments.reduce(0) { $0 + $1.count } }
          count("offload")
        }
      } else {
        let bytes = fragments.flatMap { fragment in
          let start = (pages[fragment.reference] ?? 0) * 4096 + fragment.offset
          return memory[start..<start + fragment.count]
        }
        takeFrame { $0.bytes == bytes && $0.offload.hash.map(Self.wire) == hash }
        count(fragments.count > 18 ? "frame of many slots" : hash == nil ? "frame" : "frame with hash")
      }
    }
    if given.map(\.status) != expected { complain("\(given.map(\.status)) instead of \(expected)") }
  }

  private static func wire(_ hash: NetHash) -> [UInt8] {
    [hash.type.rawValue, hash.algorithm] + (0..<4).map { UInt8(truncatingIfNeeded: hash.value >> (8 * $0)) }
  }

  private func takeFrame(_ isRight: (SimulatedNetTxHost.Frame) -> Bool) {
    guard !world.host.frames.isEmpty else { return complain("a frame is missing") }
    if !isRight(world.host.frames.removeFirst()) { complain("frame \(frameCount) is wrong") }
    frameCount += 1
  }

  /// Everything that was published was answered, and nothing else came.
  func expectAllJudged() {
    if judged != slots.count { complain("\(slots.count - judged) slots not answered") }
    if !answers.isEmpty { complain("\(answers.count) answers too many") }
    if !world.host.frames.isEmpty { complain("\(world.host.frames.count) frames too many") }
    let listed = multicast.count
    if world.host.multicast.count != listed {
      complain("\(world.host.multicast.count) addresses, not \(listed)")
    }
  }

  /// After a fault: what came before it was answered, the rest never will be. Begins anew.
  func startOver() {
    if !answers.isEmpty { complain("\(answers.count) answers from behind a fault") }
    if !world.host.frames.isEmpty { complain("frames from behind a fault") }
    forget()
  }

  /// Begins anew, whatever was under way.
  func forget() {
    slots.removeAll()
    judged = 0
    answers.removeAll()
    world.host.frames.removeAll()
  }

  /// What must hold at any time.
  func check() {
    if world.outstanding < 0 || answers.count > slots.count - judged {
      complain("more answers than requests")
    }
  }

  func count(_ kind: String) { tally[kind, default: 0] += 1 }

  private func complain(_ what: String) {
    if complaints.count < 20 { complaints.append("slot \(judged): \(what)") }
  }
}
