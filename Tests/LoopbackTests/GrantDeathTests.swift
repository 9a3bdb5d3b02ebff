import Glibc
import RingKit
import Testing

@testable import Loopback

/// What is left when one side of a grant dies.
@Suite struct GrantDeathTests {
  let fixture: MachineFixture

  init() throws { fixture = try MachineFixture() }

  @Test func theOwnersDeathEndsItsGrantsButNotMappings() throws {
    let back = try fixture.grants(MachineFixture.back)
    let front = MachineFixture.front
    var shared: SharedPages? = try fixture.sharing(front).share(
      pageCount: 2, with: MachineFixture.back, access: .readWrite)
    let references = try #require(shared?.references)
    shared?.pages.number(from: 40)
    let mapped = try back.map(references, of: front, access: .readWrite)
    // The pages hold the domain's last connections.
    shared = nil
    try fixture.gone.wait(for: front)
    #expect(mapped.numbers == [40, 41])
    let error = #expect(throws: GrantError.self) {
      try back.map(references, of: front, access: .readWrite)
    }
    #expect(error?.errno == ESRCH)
    #expect(fixture.machine.mappedPageCount(of: front) == 2, "mapped is mapped, whoever died")
    #expect(fixture.machine.statistics.shareCount == 0)

    // A domain that comes back with the same number has nothing of the old one's.
    let again = try fixture.sharing(front)
    #expect(throws: GrantError.self) { try back.map(references, of: front, access: .readOnly) }
    withExtendedLifetime((again, mapped)) {}
  }

  @Test func theMappersDeathUnmaps() throws {
    let front = MachineFixture.front
    let shared = try fixture.sharing(front).share(
      pageCount: 2, with: MachineFixture.back, access: .readWrite)
    // What a killed process leaves: its connections close without a word.
    do {
      let socket = try PacketSocket.connect(
        to: LoopbackMachine.socketPath(in: fixture.directory), giveUpAfter: 10)
      try socket.send([MachineRequest.hello.rawValue, MachineRequest.version, 0], waiting: true)
      _ = try socket.receive(descriptorsUpTo: 0, waiting: true)
      let map = [MachineRequest.map.rawValue, 1, 1] + shared.references.map(\.rawValue)
      try socket.send(map, waiting: true)
      #expect(try socket.receive(descriptorsUpTo: 8, waiting: true)?.words.first == 0)
      #expect(fixture.machine.mappedPageCount(of: front) == 2)
    }
    try fixture.gone.wait(for: MachineFixture.back)
    #expect(fixture.machine.mappedPageCount(of: front) == 0)
    #expect(fixture.machine.statistics.grantedPageCount == 2)
  }
}
