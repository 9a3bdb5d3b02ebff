import Netback
import RingKit
import Simulator
import Testing

/// Where frames go at a switch, whatever guests invent.
struct SwitchTableTests {
  private func address(_ number: UInt64) -> EthernetAddress {
    EthernetAddress(rawValue: 0x0200_0000_0000 | number)
  }

  @Test func addressesAreLearnedAndFlooded() {
    var table = SwitchTable(seed: 1)
    #expect(table.route(destination: address(2), source: address(1), from: 0, atNanoseconds: 0) == .flood)
    #expect(table.route(destination: address(1), source: address(2), from: 5, atNanoseconds: 0) == .port(0))
    #expect(table.route(destination: address(2), source: address(1), from: 0, atNanoseconds: 0) == .port(5))
    #expect(table.route(destination: .broadcast, source: address(1), from: 0, atNanoseconds: 0) == .flood)
    let group = EthernetAddress(rawValue: 0x3333_0000_0001)
    #expect(table.route(destination: group, source: address(1), from: 0, atNanoseconds: 0) == .flood)
  }

  @Test func whatGoesNowhere() {
    var table = SwitchTable(seed: 1)
    _ = table.route(destination: .broadcast, source: address(1), from: 3, atNanoseconds: 0)
    #expect(
      table.route(destination: address(1), source: address(2), from: 3, atNanoseconds: 0) == .drop(.reflected)
    )
    #expect(
      table.route(destination: address(1), source: address(1), from: 3, atNanoseconds: 0) == .drop(.reflected)
    )
    for source in [EthernetAddress.broadcast, EthernetAddress(rawValue: 0)] {
      #expect(
        table.route(destination: address(1), source: source, from: 4, atNanoseconds: 0) == .drop(.badSource))
    }
    for last in 0...15 as ClosedRange<UInt64> {
      let destination = EthernetAddress(rawValue: 0x0180_C200_0000 | last)
      #expect(
        table.route(destination: destination, source: address(9), from: 4, atNanoseconds: 0)
          == .drop(.reserved))
    }
    #expect(table.port(of: address(9), atNanoseconds: 0) == nil)
  }

  @Test func addressesMoveAndAge() {
    var table = SwitchTable(seed: 1)
    _ = table.route(destination: .broadcast, source: address(1), from: 0, atNanoseconds: 5)
    _ = table.route(destination: .broadcast, source: address(1), from: 1, atNanoseconds: 6)
    #expect(table.count(ofPort: 0) == 0 && table.count(ofPort: 1) == 1)
    #expect(table.port(of: address(1), atNanoseconds: 6) == 1)
    let end = 6 + SwitchTable.ageingNanoseconds
    #expect(table.port(of: address(1), atNanoseconds: end - 1) == 1)
    #expect(table.port(of: address(1), atNanoseconds: end) == nil)
    _ = table.route(destination: .broadcast, source: address(1), from: 1, atNanoseconds: end)
    #expect(table.port(of: address(1), atNanoseconds: end) == 1 && table.count(ofPort: 1) == 1)
  }

  /// A port that invents addresses takes no other's place, and not its own network away for ever.
  @Test func aPortHasItsOwnPlaces() {
    var table = SwitchTable(seed: 1)
    for number in 0..<10_000 as Range<UInt64> {
      _ = table.route(destination: .broadcast, source: address(number), from: 0, atNanoseconds: 0)
    }
    #expect(table.count(ofPort: 0) == SwitchTable.addressLimit)
    for port in 1..<SwitchTable.portLimit {
      for number in 0..<200 as Range<UInt64> {
        let source = address(UInt64(port) << 20 | number)
        _ = table.route(destination: .broadcast, source: source, from: port, atNanoseconds: 0)
      }
      #expect(table.count(ofPort: port) == SwitchTable.addressLimit)
    }
    // Nor does it take over what is another's beyond its number.
    #expect(table.port(of: address(1 << 20), atNanoseconds: 0) == 1)
    _ = table.route(destination: .broadcast, source: address(1 << 20), from: 0, atNanoseconds: 0)
    #expect(table.port(of: address(1 << 20), atNanoseconds: 0) == 1)
    // Old ones make room in time.
    let late = SwitchTable.ageingNanoseconds + 1
    for number in 20_000..<22_000 as Range<UInt64> {
      _ = table.route(destination: .broadcast, source: address(number), from: 0, atNanoseconds: late)
    }
    #expect(table.count(ofPort: 0) == SwitchTable.addressLimit)
    #expect((20_000..<22_000).contains { table.port(of: address($0), atNanoseconds: late) == 0 })
  }

  @Test func aGivenAddressIsItsPortsAlone() {
    var table = SwitchTable(seed: 1)
    _ = table.route(destination: .broadcast, source: address(1), from: 2, atNanoseconds: 0)
    let first = table.fix(address(1), toPort: 0)
    let other = table.fix(address(1), toPort: 1)
    let again = table.fix(address(1), toPort: 0)
    #expect(first && !other && again)
    #expect(table.count(ofPort: 2) == 0)
    _ = table.route(destination: .broadcast, source: address(1), from: 2, atNanoseconds: 0)
    #expect(table.port(of: address(1), atNanoseconds: .max) == 0)
    table.removeAll(ofPort: 0)
    #expect(table.port(of: address(1), atNanoseconds: 0) == nil)
    let now = table.fix(address(1), toPort: 1)
    #expect(now)
  }

  /// Against a dictionary, over many changes: no address is lost or found where it is not.
  @Test(arguments: [1, 2, 3, 0xFFFF_FFFF_FFFF_FFFF] as [UInt64]) func walk(seed: UInt64) {
    var numbers = SeededNumbers(seed: seed)
    var table = SwitchTable(seed: seed)
    var model: [UInt64: Int] = [:]
    for step in 0..<20_000 {
      let number = UInt64.random(in: 0..<6000, using: &numbers)
      let port = Int.random(in: 0..<SwitchTable.portLimit, using: &numbers)
      if step % 500 == 499 {
        table.removeAll(ofPort: port)
        model = model.filter { $1 != port }
      } else {
        _ = table.route(destination: .broadcast, source: address(number), from: port, atNanoseconds: 0)
        if model[number] == port || model.count(where: { $1 == port }) < SwitchTable.addressLimit {
          model[number] = port
        }
      }
    }
    for number in 0..<6000 as Range<UInt64> {
      #expect(table.port(of: address(number), atNanoseconds: 0) == model[number])
    }
    for port in 0..<SwitchTable.portLimit {
      #expect(table.count(ofPort: port) == model.count { $1 == port })
    }
  }
}
