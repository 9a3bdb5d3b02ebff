import RingKit

/// Where a frame goes at a switch.
@frozen
public enum SwitchRoute: Equatable, Sendable, BitwiseCopyable {
  /// To the one port behind which its destination is.
  case port(Int)
  /// To all ports but its own: its destination is a group, or not known.
  case flood
  /// Nowhere.
  case drop(SwitchDropReason)
}

/// Why a frame goes nowhere at a switch.
@frozen
public enum SwitchDropReason: UInt8, Sendable, BitwiseCopyable, CaseIterable {
  /// Its source is a group or no address at all, as no frame's is (IEEE 802.3, 3.2.3).
  case badSource
  /// Its destination is one of 01:80:c2:00:00:00 to 0f, which no bridge passes on (IEEE 802.1Q, 8.6.3).
  case reserved
  /// Its destination is behind the port that it came from.
  case reflected
}

/// The addresses that a switch has learned (IEEE 802.1Q, 8.7 and 8.8): a table of fixed size. No system call, no
/// clock, no allocation after `init`.
///
/// A guest can invent sources as it likes. Each port has places of its own for ``addressLimit`` addresses, so
/// that none takes another's; what is beyond is not learned, and frames to it go to all ports. An address that a
/// toolstack has given to a port is that port's alone as long as it is there.
public struct SwitchTable: Sendable {
  /// Ports of a switch at most.
  public static var portLimit: Int { 64 }
  /// Addresses that are learned behind a port at most.
  public static var addressLimit: Int { 128 }
  /// How long an address is remembered that sends nothing, in nanoseconds: the 300 s of IEEE 802.1Q, table 8-6.
  public static var ageingNanoseconds: UInt64 { 300_000_000_000 }

  /// Places: a power of two, about half of them always free.
  private static let capacity = 16_384
  /// Places that are looked through for old addresses when a port has no room.
  private static let sweepCount = 16
  /// No address has these bits.
  private static let free = UInt64.max

  private struct Place: BitwiseCopyable, Sendable {
    /// The address; ``SwitchTable/free`` when there is none.
    var address = SwitchTable.free
    var seen: UInt64 = 0
    var port: UInt8 = 0
    var isFixed = false
  }

  private var places = [Place](repeating: Place(), count: SwitchTable.capacity)
  private var counts = [Int](repeating: 0, count: SwitchTable.portLimit)
  private var hand = 0
  private let seed: UInt64

  /// An empty table. Guests that do not know `seed`, a random number, cannot choose addresses that meet.
  public init(seed: UInt64) { self.seed = seed }

  /// Addresses that were learned behind a port, without the fixed one.
  public func count(ofPort port: Int) -> Int { counts[port] }

  // MARK: Frames

  /// Learns where the source of a frame from `port` is, and says where the frame goes.
  public mutating func route(
    destination: EthernetAddress, source: EthernetAddress, from port: Int, atNanoseconds now: UInt64
  ) -> SwitchRoute {
    guard !source.isMulticast, source.rawValue != 0 else { return .drop(.badSource) }
    guard destination.rawValue >> 4 != 0x0180_C200_000 else { return .drop(.reserved) }
    learn(source, port, now)
    if destination.isMulticast { return .flood }
    guard let found = self.port(of: destination, atNanoseconds: now) else { return .flood }
    return found == port ? .drop(.reflected) : .port(found)
  }

  /// The port behind which an address is; nil when that is not known.
  public func port(of address: EthernetAddress, atNanoseconds now: UInt64) -> Int? {
    let place = places[find(address.rawValue)]
    guard place.address != Self.free, !isOld(place, now) else { return nil }
    return Int(place.port)
  }

  private mutating func learn(_ address: EthernetAddress, _ port: Int, _ now: UInt64) {
    var index = find(address.rawValue)
    if places[index].address != Self.free {
      guard !places[index].isFixed else { return }
      let old = Int(places[index].port)
      guard old != port else {
        places[index].seen = now
        return
      }
      // It has moved; not to where there is no room for it.
      guard counts[port] < Self.addressLimit else { return }
      counts[old] -= 1
    } else {
      if counts[port] >= Self.addressLimit {
        sweep(now)
        guard counts[port] < Self.addressLimit else { return }
        index = find(address.rawValue)
      }
    }
    counts[port] += 1
    places[index] = Place(address: address.rawValue, seen: now, port: UInt8(port))
  }

  // MARK: Ports

  /// Gives a port an address of its own, for as long as the port is there; false when another one has it.
  public mutating func fix(_ address: EthernetAddress, toPort port: Int) -> Bool {
    let index = find(address.rawValue)
    if places[index].address != Self.free {
      guard !places[index].isFixed else { return Int(places[index].port) == port }
      counts[Int(places[index].port)] -= 1
    }
    places[index] = Place(address: address.rawValue, port: UInt8(port), isFixed: true)
    return true
  }

  /// Forgets all addresses behind a port.
  public mutating func removeAll(ofPort port: Int) {
    var index = 0
    while index < places.count {
      if places[index].address != Self.free, Int(places[index].port) == port {
        // What followed it may be here now.
        remove(index)
      } else {
        index += 1
      }
    }
  }

  // MARK: Places

  /// A moment in the past of the clock is now.
  private func isOld(_ place: Place, _ now: UInt64) -> Bool {
    !place.isFixed && now > place.seen && now - place.seen >= Self.ageingNanoseconds
  }

  private mutating func sweep(_ now: UInt64) {
    for _ in 0..<Self.sweepCount {
      if places[hand].address != Self.free, isOld(places[hand], now) {
        remove(hand)
      } else {
        hand = (hand + 1) % places.count
      }
    }
  }

  private func home(_ address: UInt64) -> Int {
    var bits = (address ^ seed) &* 0x9E37_79B9_7F4A_7C15
    bits = (bits ^ bits >> 32 ^ seed) &* 0xD6E8_FEB8_6659_FD93
    return Int(truncatingIfNeeded: bits >> 40) & (Self.capacity - 1)
  }

  /// The place of an address, or the free one where it would be.
  private func find(_ address: UInt64) -> Int {
    var index = home(address)
    while places[index].address != Self.free, places[index].address != address {
      index = (index + 1) & (Self.capacity - 1)
    }
    return index
  }

  /// Empties a place, and moves up what had to go by it.
  private mutating func remove(_ index: Int) {
    if !places[index].isFixed { counts[Int(places[index].port)] -= 1 }
    let mask = Self.capacity - 1
    var hole = index
    var next = index
    while true {
      next = (next + 1) & mask
      guard places[next].address != Self.free else { break }
      // It may go there if its home is not between the hole and it.
      if (next &- home(places[next].address)) & mask >= (next &- hole) & mask {
        places[hole] = places[next]
        hole = next
      }
    }
    places[hole] = Place()
  }
}
