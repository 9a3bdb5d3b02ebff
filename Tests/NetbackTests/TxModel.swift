import Netback
import RingKit

/// What the transmit direction must make of a row of slots, told the slow way: on arrays, with netif.h's offsets
/// in plain sight, and with nothing of the engine's code.
struct TxModel {
  /// A slot's bytes, as the guest published them.
  typealias Slot = [UInt8]

  struct Fragment {
    var slot: Int
    var reference: UInt32
    var offset: Int
    var count: Int
  }

  enum Verdict {
    /// A frame of these fragments; the flags and the hash go with it.
    case frame([Fragment], flags: Int, isSegmented: Bool, hash: [UInt8]?)
    case error
    case multicast(address: [UInt8], isAdded: Bool)
  }

  struct Packet {
    var slots: Range<Int>
    /// The slots of extra infos among them.
    var extras: Range<Int>
    var verdict: Verdict
  }

  enum Next {
    case packet(Packet)
    case fault(NetFault)
  }

  var accepted = 64
  var tolerated = 128

  static func u16(_ slot: Slot, _ at: Int) -> Int { Int(slot[at]) | Int(slot[at + 1]) << 8 }
  static func id(_ slot: Slot) -> Int { u16(slot, 8) }
  static func size(_ slot: Slot) -> Int { u16(slot, 10) }
  static func offset(_ slot: Slot) -> Int { u16(slot, 4) }
  static func flags(_ slot: Slot) -> Int { u16(slot, 6) }
  static func reference(_ slot: Slot) -> UInt32 { UInt32(u16(slot, 0)) | UInt32(u16(slot, 2)) << 16 }

  /// What comes first in `slots` from `start` on; there is one slot at least.
  func next(in slots: [Slot], from start: Int) -> Next {
    let first = slots[start]
    var position = start + 1
    var byType: [UInt8: Slot] = [:]
    var goesOn = Self.flags(first) & 8 != 0
    while goesOn {
      guard position < slots.count else { return .fault(.missingExtraInfo) }
      let extra = slots[position]
      guard (1...5).contains(extra[0]) else { return .fault(.extraInfoType(extra[0])) }
      byType[extra[0]] = extra
      goesOn = extra[1] & 1 == 1
      position += 1
    }
    let extras = start + 1..<position
    if let change = byType[2] ?? byType[3] {
      let verdict = Verdict.multicast(address: Array(change[2..<8]), isAdded: byType[2] != nil)
      return .packet(Packet(slots: start..<position, extras: extras, verdict: verdict))
    }
    var data = [start]
    while Self.flags(slots[data[data.count - 1]]) & 4 != 0 {
      guard position < slots.count else { return .fault(.unfinishedPacket(slots: data.count)) }
      guard data.count < tolerated else { return .fault(.tooManySlots(data.count + 1)) }
      let (offset, size) = (Self.offset(slots[position]), Self.size(slots[position]))
      guard offset + size <= 4096 else { return .fault(.crossesPage(offset: offset, byteCount: size)) }
      data.append(position)
      position += 1
    }
    let error = Packet(slots: start..<position, extras: extras, verdict: .error)
    let others = data.dropFirst().reduce(0) { $0 + Self.size(slots[$1]) }
    let own = Self.size(first) - others
    guard data.count <= accepted, own >= 14 else { return .packet(error) }
    guard Self.offset(first) + own <= 4096 else {
      return .fault(.crossesPage(offset: Self.offset(first), byteCount: own))
    }
    if let gso = byType[1] {
      guard Self.u16(gso, 2) != 0 else { return .fault(.noSegmentSize) }
      guard gso[4] == 1 || gso[4] == 2 else { return .fault(.segmentationType(gso[4])) }
    }
    let fragments = data.map {
      Fragment(
        slot: $0, reference: Self.reference(slots[$0]), offset: Self.offset(slots[$0]),
        count: $0 == start ? own : Self.size(slots[$0]))
    }
    let hash = byType[4].flatMap { $0[2] < 4 ? Array($0[2..<8]) : nil }
    return .packet(
      Packet(
        slots: start..<position, extras: extras,
        verdict: .frame(
          fragments.filter { $0.count > 0 }, flags: Self.flags(first), isSegmented: byType[1] != nil,
          hash: hash)))
  }
}
