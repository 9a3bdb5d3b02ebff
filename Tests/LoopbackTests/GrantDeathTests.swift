import Glibc
import RingKit
import Testing

@testable import Loopback

/// What a grantee that goes its own way can do, and what is left when one side of a grant dies.
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

  /// A connection of domain 0 without a library in between.
  func backendSocket() throws -> PacketSocket {
    let socket = try PacketSocket.connect(
      to: LoopbackMachine.socketPath(in: fixture.directory), giveUpAfter: 10)
    try socket.send([MachineRequest.hello.rawValue, MachineRequest.version, 0], waiting: true)
    _ = try socket.receive(descriptorsUpTo: 0, waiting: true)
    return socket
  }

  /// The kernel keeps the promise of a read-only grant, and nobody can change a memory's size (SIGBUS).
  @Test func aGranteeCannotWriteOrResizeReadOnlyMemory() throws {
    let shared = try fixture.sharing(MachineFixture.front).share(
      pageCount: 2, with: MachineFixture.back, access: .readOnly)
    let socket = try backendSocket()
    let reference = shared.references[0].rawValue
    for request in [
      [MachineRequest.map.rawValue, 1, 0, reference], [MachineRequest.lookUp.rawValue, 1, reference],
      [MachineRequest.grantWords.rawValue, 1],
    ] {
      try socket.send(request, waiting: true)
      let reply = try #require(try socket.receive(descriptorsUpTo: 8, waiting: true))
      let memory = try #require(reply.descriptors.first)
      let isWritable = unsafe mmap(nil, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, memory.raw, 0) != MAP_FAILED
      #expect(!isWritable, "request \(request[0])")
      #expect(ftruncate(memory.raw, 0) != 0)
    }
    let writable = try fixture.sharing(MachineFixture.front).share(
      pageCount: 2, with: MachineFixture.back, access: .readWrite)
    try socket.send([MachineRequest.map.rawValue, 1, 1, writable.references[0].rawValue], waiting: true)
    let memory = try #require(try socket.receive(descriptorsUpTo: 8, waiting: true)?.descriptors.first)
    #expect(ftruncate(memory.raw, 0) != 0 && ftruncate(memory.raw, 1 << 20) != 0)
  }

  @Test func theMappersDeathUnmaps() throws {
    let front = MachineFixture.front
    let shared = try fixture.sharing(front).share(
      pageCount: 2, with: MachineFixture.back, access: .readWrite)
    // What a killed process leaves: its connections close without a word.
    do {
      let socket = try backendSocket()
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
