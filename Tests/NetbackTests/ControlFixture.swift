import Netback
import RingKit
import Simulator
import Testing

/// A control ring's world and the few moves that directed tests make in it.
struct ControlFixture {
  let world: NetControlWorld

  init(_ change: (inout NetControlWorld.Setup) -> Void = { _ in }) throws {
    var setup = NetControlWorld.Setup()
    change(&setup)
    world = try NetControlWorld(setup)
  }

  var guest: SimulatedGuest { world.guest }
  var host: SimulatedNetControlHost { world.host }

  /// Asks one thing, lets everything end, and gives the one answer.
  @discardableResult
  func ask(
    _ type: NetControlType, _ first: UInt32 = 0, _ second: UInt32 = 0, _ third: UInt32 = 0,
    _ location: SourceLocation = #_sourceLocation
  ) throws -> NetControlResponse {
    let id = UInt16(truncatingIfNeeded: world.takenCount &* 7 &+ 3)
    world.place(NetControlRequest(id: id, type: type, first, second, third))
    world.push()
    #expect(world.settle() == nil, sourceLocation: location)
    let responses = try world.takeResponses()
    let response = try #require(responses.first, sourceLocation: location)
    #expect(responses.count == 1, sourceLocation: location)
    #expect(response.id == id && response.type == type, sourceLocation: location)
    #expect(host.violations.isEmpty, "\(host.violations)", sourceLocation: location)
    return response
  }

  /// Asks and gives the status.
  func status(
    _ type: NetControlType, _ first: UInt32 = 0, _ second: UInt32 = 0, _ third: UInt32 = 0,
    _ location: SourceLocation = #_sourceLocation
  ) throws -> NetControlStatus? {
    NetControlStatus(rawValue: try ask(type, first, second, third, location).status)
  }

  /// Grants page `page` with 32-bit `words` at its beginning.
  func grant(_ words: [UInt32], page: Int = 0, readOnly: Bool = true) -> UInt32 {
    guest.memory.setBytes(
      words.flatMap { word in (0..<4).map { UInt8(truncatingIfNeeded: word >> ($0 * 8)) } },
      at: page * pageByteCount)
    return guest.grant(page: page, readOnly: readOnly).rawValue
  }

  /// Grants page `page` with `bytes` at its beginning.
  func grant(bytes: [UInt8], page: Int = 0) -> UInt32 {
    guest.memory.setBytes(bytes, at: page * pageByteCount)
    return guest.grant(page: page, readOnly: true).rawValue
  }

  /// Grants page `page` with a list of staging grants.
  func list(_ entries: [NetGrantEntry], page: Int = 0, readOnly: Bool = false) -> UInt32 {
    guest.write(entries.map(\.word), toPage: page)
    return guest.grant(page: page, readOnly: readOnly).rawValue
  }

  /// The list as it stands on page `page` now.
  func entries(page: Int = 0, count: Int) -> [NetGrantEntry] {
    guest.words(ofPage: page).prefix(count).map { NetGrantEntry(word: $0) }
  }

  /// Grants pages of the guest, page `first` and those after it.
  func pages(_ first: Int, count: Int, readOnly: Bool = false) -> [GrantReference] {
    (first..<first + count).map { guest.grant(page: $0, readOnly: readOnly) }
  }
}
