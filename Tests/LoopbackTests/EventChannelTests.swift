import Glibc
import RingKit
import Testing

@testable import Loopback

/// Event channels of the loopback machine behave as those behind /dev/xen/evtchn.
@Suite struct EventChannelTests {
  let fixture: MachineFixture
  let back: any EventChannels
  let front: any EventChannels
  let frontDomain = MachineFixture.front

  init() throws {
    fixture = try MachineFixture()
    back = try fixture.events(MachineFixture.back)
    front = try fixture.events(MachineFixture.front)
  }

  /// A bound channel with nothing pending at either end.
  func channel() throws -> (front: Port, back: Port) {
    let far = try front.allocateUnbound(for: MachineFixture.back)
    let near = try back.bind(domain: frontDomain, remotePort: far)
    #expect(back.nextPending() == near)
    back.unmask(near)
    return (far, near)
  }

  @Test func bindingMakesThePortPendingOnce() throws {
    let far = try front.allocateUnbound(for: MachineFixture.back)
    #expect(!isReadable(back.descriptor))
    let near = try back.bind(domain: frontDomain, remotePort: far)
    #expect(isReadable(back.descriptor))
    #expect(back.nextPending() == near)
    #expect(back.nextPending() == nil)
    back.unmask(near)
    #expect(back.nextPending() == nil)
    #expect(front.nextPending() == nil, "only the binder's end")
    #expect(!isReadable(front.descriptor))
  }

  @Test func eventsGoBothWays() throws {
    let port = try channel()
    try front.notify(port.front)
    #expect(isReadable(back.descriptor))
    #expect(!isReadable(front.descriptor))
    #expect(back.nextPending() == port.back)
    try back.notify(port.back)
    #expect(front.nextPending() == port.front)
    #expect(front.nextPending() == nil)
  }

  @Test func aReportedPortIsMaskedUntilUnmasked() throws {
    let port = try channel()
    try front.notify(port.front)
    #expect(back.nextPending() == port.back)
    for _ in 0..<3 { try front.notify(port.front) }
    #expect(!isReadable(back.descriptor))
    #expect(back.nextPending() == nil)
    back.unmask(port.back)
    #expect(isReadable(back.descriptor), "an event that came while masked is reported at once")
    #expect(back.nextPending() == port.back)
    back.unmask(port.back)
    #expect(back.nextPending() == nil, "many events are one")
    back.unmask(port.back)
    back.unmask(Port(rawValue: 4000))
    #expect(back.nextPending() == nil)
  }

  @Test func eachOfManyPortsIsReportedOnce() throws {
    let ports = try (0..<300).map { _ in try channel() }
    for port in ports { try front.notify(port.front) }
    var reported: Set<Port> = []
    while let port = back.nextPending() { #expect(reported.insert(port).inserted) }
    #expect(reported == Set(ports.map(\.back)))
    #expect(!isReadable(back.descriptor))
  }

  @Test func aPortThatWasUnboundWhileBufferedIsNotReported() throws {
    let ports = try (0..<5).map { _ in try channel() }
    for port in ports { try front.notify(port.front) }
    // The first call reads all five into the buffer.
    let first = try #require(back.nextPending())
    let victims = ports.map(\.back).filter { $0 != first }.prefix(2)
    for port in victims { back.unbind(port) }
    var rest: Set<Port> = []
    while let port = back.nextPending() { rest.insert(port) }
    #expect(rest == Set(ports.map(\.back)).subtracting(victims).subtracting([first]))
  }

  @Test func aNumberUsedAgainDoesNotReportTheOldEvent() throws {
    let ports = try (0..<2).map { _ in try channel() }
    for port in ports { try front.notify(port.front) }
    let first = try #require(back.nextPending())
    let other = try #require(ports.map(\.back).first { $0 != first })
    back.unbind(other)
    let unbound = try back.allocateUnbound(for: frontDomain)
    #expect(unbound == other, "the lowest free number")
    #expect(back.nextPending() == nil)
  }

  enum Bad: CaseIterable { case zero, never, tooLarge, notForUs, boundAlready, unknownDomain }

  @Test(arguments: Bad.allCases)
  func onlyTheDomainAPortWaitsForCanBind(bad: Bad) throws {
    let forOther = try front.allocateUnbound(for: DomainID(rawValue: 7))
    let bound = try channel().front
    let (domain, port, code): (DomainID, Port, Int32) =
      switch bad {
      case .zero: (frontDomain, Port(rawValue: 0), EINVAL)
      case .never: (frontDomain, Port(rawValue: 3000), EINVAL)
      case .tooLarge: (frontDomain, Port(rawValue: .max), EINVAL)
      case .notForUs: (frontDomain, forOther, EINVAL)
      case .boundAlready: (frontDomain, bound, EINVAL)
      case .unknownDomain: (DomainID(rawValue: 9), forOther, ESRCH)
      }
    let error = #expect(throws: EventChannelError.self) {
      try back.bind(domain: domain, remotePort: port)
    }
    #expect(error?.errno == code)
    #expect(back.nextPending() == nil)
  }

  @Test func notifyingWhatIsNotOursIsAnError() throws {
    let port = try channel()
    for number: UInt32 in [0, 77, .max] {
      let error = #expect(throws: EventChannelError.self) {
        try back.notify(Port(rawValue: number))
      }
      #expect(error?.errno == ENOTCONN)
    }
    back.unbind(port.back)
    #expect(throws: EventChannelError.self) { try back.notify(port.back) }
    back.unbind(port.back)
  }

  /// Rule 45: the frontend's port waits again for the same domain, and can be bound again.
  @Test func aPortCanBeBoundAgainAfterItsPeerUnbound() throws {
    let port = try channel()
    back.unbind(port.back)
    try front.notify(port.front)
    #expect(back.nextPending() == nil)
    let again = try back.bind(domain: frontDomain, remotePort: port.front)
    #expect(back.nextPending() == again, "events may have been lost")
    back.unmask(again)
    #expect(back.nextPending() == nil)
    try front.notify(port.front)
    #expect(back.nextPending() == again)
    try back.notify(again)
    #expect(front.nextPending() == port.front)
  }

  @Test func aPortCanBeBoundAgainAfterItsPeerDied() throws {
    let domain = DomainID(rawValue: 3)
    var dying: (any EventChannels)? = try fixture.events(domain)
    let far = try front.allocateUnbound(for: domain)
    _ = try dying?.bind(domain: frontDomain, remotePort: far)
    dying = nil
    try fixture.gone.wait(for: domain)
    try front.notify(far)
    let restarted = try fixture.events(domain)
    let near = try restarted.bind(domain: frontDomain, remotePort: far)
    #expect(restarted.nextPending() == near)
    try restarted.notify(near)
    #expect(front.nextPending() == far)
  }

  @Test func theFrontendsDeathIsSilent() throws {
    let domain = DomainID(rawValue: 3)
    var dying: (any EventChannels)? = try fixture.events(domain)
    let far = try #require(try dying?.allocateUnbound(for: MachineFixture.back))
    let near = try back.bind(domain: domain, remotePort: far)
    #expect(back.nextPending() == near)
    back.unmask(near)
    dying = nil
    try fixture.gone.wait(for: domain)
    try back.notify(near)
    #expect(back.nextPending() == nil)
    #expect(throws: EventChannelError.self) { try back.bind(domain: domain, remotePort: far) }
    back.unbind(near)
    #expect(fixture.machine.statistics.portCount == 0)
  }

  @Test func aDomainCanTalkToItself() throws {
    let far = try back.allocateUnbound(for: MachineFixture.back)
    let near = try back.bind(domain: MachineFixture.back, remotePort: far)
    #expect(back.nextPending() == near)
    try back.notify(near)
    #expect(back.nextPending() == far)
    back.unbind(far)
    back.unbind(near)
    #expect(fixture.machine.statistics.portCount == 0)
  }

}
