import Glibc
import RingKit
import Testing

@testable import Loopback

/// The machine as a server: bad clients, other machines, other processes.
@Suite struct MachineServerTests {
  /// A machine that still works shares a page.
  func expectAlive(_ fixture: MachineFixture) throws {
    let shared = try fixture.sharing(MachineFixture.front).share(
      pageCount: 1, with: MachineFixture.back, access: .readWrite)
    let mapped = try fixture.grants(MachineFixture.back).map(
      shared.references, of: MachineFixture.front, access: .readWrite)
    mapped.write([42])
    #expect(shared.pages.bytes(count: 1) == [42])
  }

  func connect(_ fixture: MachineFixture) throws -> PacketSocket {
    try PacketSocket.connect(to: LoopbackMachine.socketPath(in: fixture.directory), giveUpAfter: 10)
  }

  @Test func aRequestBeforeHelloIsRefused() throws {
    let fixture = try MachineFixture()
    let socket = try connect(fixture)
    for request in 2...11 as ClosedRange<UInt32> {
      try socket.send([request, 1, 0, 1], waiting: true)
      let words = try #require(try socket.receive(descriptorsUpTo: 4, waiting: true)).words
      #expect(words.first != 0, "request \(request)")
    }
    try expectAlive(fixture)
  }

  @Test func aSecondHelloOrAnotherVersionIsRefused() throws {
    let fixture = try MachineFixture()
    let socket = try connect(fixture)
    for (words, answer) in [([1, 2, 1], 1), ([1, 1], 1), ([1, 1, 1], 0), ([1, 1, 1], 1), ([1, 1, 2], 1)] {
      try socket.send(words.map { UInt32($0) }, waiting: true)
      let reply = try #require(try socket.receive(descriptorsUpTo: 0, waiting: true))
      #expect(reply.words == [UInt32(answer)])
    }
    try expectAlive(fixture)
  }

  @Test(arguments: [1, 3, 5, 2047, 2049, 5000])
  func bytesThatAreNoMessageEndTheConnection(byteCount: Int) throws {
    let fixture = try MachineFixture()
    let socket = try connect(fixture)
    let bytes = [UInt8](repeating: 0xFF, count: byteCount)
    #expect(unsafe send(socket.descriptor.raw, bytes, byteCount, Int32(MSG_NOSIGNAL)) == byteCount)
    let end: PacketSocket.Packet?
    do { end = try socket.receive(descriptorsUpTo: 0, waiting: true) } catch { end = nil }
    #expect(end == nil)
    try expectAlive(fixture)
  }

  @Test func aClientThatDoesNotReadIsDropped() throws {
    let fixture = try MachineFixture()
    let socket = try connect(fixture)
    // Requests are answered until the answers do not fit; then the machine hangs up.
    var error: SystemError?
    for _ in 0..<100_000 {
      do { try socket.send([99], waiting: true) } catch let failure {
        error = failure
        break
      }
    }
    #expect([EPIPE, ECONNRESET].contains(error?.errno))
    try expectAlive(fixture)
  }

  @Test func descriptorsOfAClientAreNotKept() async {
    await #expect(processExitsWith: .success) {
      let fixture = try MachineFixture()
      let socket = try PacketSocket.connect(
        to: LoopbackMachine.socketPath(in: fixture.directory), giveUpAfter: 10)
      // An answer means that the machine has accepted.
      try socket.send([99], waiting: true)
      _ = try socket.receive(descriptorsUpTo: 0, waiting: true)
      let before = try openDescriptorCount()
      for _ in 0..<50 {
        let event = try Descriptor.event()
        try socket.send([99], [event, event], waiting: true)
        _ = try socket.receive(descriptorsUpTo: 4, waiting: true)
      }
      let after = try openDescriptorCount()
      if after > before + runtimeDescriptors {
        throw TestFailure(description: "\(before) descriptors, then \(after)")
      }
    }
  }

  /// Connections that cannot be accepted for want of descriptors neither stop the machine nor are lost.
  @Test func itOutlivesWantOfDescriptors() async {
    await #expect(processExitsWith: .success) {
      let fixture = try MachineFixture()
      let old = try fixture.hypervisor(MachineFixture.back)
      var limit = rlimit(rlim_cur: rlim_t(try openDescriptorCount() + 20), rlim_max: 4096)
      guard unsafe setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else {
        throw TestFailure(description: "setrlimit: errno \(errno)")
      }
      do {
        var sockets: [PacketSocket] = []
        let path = LoopbackMachine.socketPath(in: fixture.directory)
        while sockets.count < 100, let next = try? PacketSocket.connect(to: path, giveUpAfter: 10) {
          sockets.append(next)
        }
        if sockets.count == 100 { throw TestFailure(description: "the limit does not work") }
      }
      let new = try fixture.hypervisor(MachineFixture.front)
      _ = try new.openGrantSharing().share(
        pageCount: 1, with: MachineFixture.back, access: .readWrite)
      withExtendedLifetime(old) {}
    }
  }

  /// XSA-371's class: alone in a process, so that nobody else opens files.
  @Test func nothingOpenIsLeftBehind() async {
    await #expect(processExitsWith: .success) {
      func session(_ fixture: MachineFixture) throws {
        let back = try fixture.hypervisor(MachineFixture.back)
        let front = try fixture.hypervisor(MachineFixture.front)
        let grants = try back.openGrantTable()
        let backEvents = try back.openEventChannels()
        let frontEvents = try front.openEventChannels()
        let shared = try front.openGrantSharing().share(
          pageCount: 4, with: MachineFixture.back, access: .readWrite)
        let local = LocalMemory(pageCount: 1)
        var batch = GrantCopyBatch(capacity: 1)
        for round in 0..<20 {
          let mapped = try grants.map(
            shared.references, of: MachineFixture.front, access: .readWrite)
          batch.removeAll()
          batch.append(
            .init(
              toGuest: round % 2 == 0, domain: MachineFixture.front,
              reference: shared.references[round % 4], pageOffset: 0,
              local: local.pages.segment(offset: 0, length: 4096)))
          grants.copy(&batch)
          if batch.status(at: 0) != 0 { throw TestFailure(description: "copy failed") }
          _ = try? grants.map(
            [shared.references[0], GrantReference(rawValue: 9999)], of: MachineFixture.front,
            access: .readWrite)
          let far = try frontEvents.allocateUnbound(for: MachineFixture.back)
          let near = try backEvents.bind(domain: MachineFixture.front, remotePort: far)
          _ = try? backEvents.bind(domain: MachineFixture.front, remotePort: far)
          if round % 2 == 0 { backEvents.unbind(near) }
          withExtendedLifetime(mapped) {}
        }
      }
      let fixture = try MachineFixture()
      let before = try openDescriptorCount()
      let mappingsBefore = try mappingCount()
      for _ in 0..<30 {
        try session(fixture)
        try fixture.gone.wait(for: MachineFixture.front)
        try fixture.gone.wait(for: MachineFixture.back)
      }
      let after = try openDescriptorCount()
      // Two domains' grant words stay with the machine; a leak of one a session would be 30.
      if after > before + 2 + runtimeDescriptors {
        throw TestFailure(description: "\(before) descriptors, then \(after)")
      }
      let mappings = try mappingCount()
      if mappings != mappingsBefore + 2 {
        throw TestFailure(description: "\(mappingsBefore) shared mappings, then \(mappings)")
      }
    }
  }

  /// A backend in a process of its own, which dies without cleaning up.
  @Test func domainsLiveInSeparateProcesses() async throws {
    let fixture = try MachineFixture()
    let events = try fixture.events(MachineFixture.front)
    let shared = try fixture.sharing(MachineFixture.front).share(
      pageCount: 2, with: DomainID(rawValue: 2), access: .readWrite)
    shared.pages.number(from: 50)
    let port = try events.allocateUnbound(for: DomainID(rawValue: 2))
    let directory = fixture.directory
    let references = shared.references.map(\.rawValue)
    let remote = port.rawValue
    await #expect(processExitsWith: .exitCode(3)) {
      [directory = directory as String, references = references as [UInt32], remote = remote as UInt32] in
      let host = try LoopbackHypervisor(directory: directory, domain: DomainID(rawValue: 2))
      let mapped = try host.openGrantTable().map(
        references.map(GrantReference.init(rawValue:)), of: MachineFixture.front, access: .readWrite)
      if mapped.numbers != [50, 51] { throw TestFailure(description: "wrong bytes: \(mapped.numbers)") }
      mapped.write([60], at: pageByteCount)
      let events = try host.openEventChannels()
      let port = try events.bind(domain: MachineFixture.front, remotePort: Port(rawValue: remote))
      try events.notify(port)
      // Everything is still open here.
      withExtendedLifetime((mapped, events)) { _exit(3) }
    }
    #expect(shared.pages.numbers == [50, 60])
    #expect(events.nextPending() == port)
    try fixture.gone.wait(for: DomainID(rawValue: 2))
    #expect(fixture.machine.statistics.mappedPageCount == 0)
    let restarted = try fixture.events(DomainID(rawValue: 2))
    _ = try restarted.bind(domain: MachineFixture.front, remotePort: port)
  }

  @Test func oneMachineADirectory() throws {
    let fixture = try MachineFixture()
    let error = #expect(throws: HostError.self) {
      _ = try LoopbackMachine(directory: fixture.directory)
    }
    #expect(error?.description.contains("another loopback runs there") == true)
    try expectAlive(fixture)
    fixture.machine.stop()
    fixture.machine.stop()
    #expect(unsafe access(fixture.directory + "/hypervisor", F_OK) != 0)
  }

  @Test func aDeadMachinesSocketIsReplaced() throws {
    let directory = try makeTemporaryDirectory()
    // A listener that went away without removing its file.
    _ = try PacketSocket.listen(at: directory + "/hypervisor")
    let machine = try LoopbackMachine(directory: directory)
    _ = try LoopbackHypervisor(directory: directory, domain: MachineFixture.back)
    machine.stop()
    _ = unsafe rmdir(directory)
  }

  @Test func withoutAMachineTheMessageSaysWhatToDo() throws {
    let error = #expect(throws: HostError.self) {
      _ = try LoopbackHypervisor(directory: "/nonexistent", domain: MachineFixture.back)
    }
    #expect(error?.description.contains("ringback loopback") == true)
    let long = "/tmp/" + String(repeating: "x", count: 120)
    #expect(throws: HostError.self) {
      _ = try LoopbackHypervisor(directory: long, domain: MachineFixture.back)
    }
  }

  @Test func callsAfterTheMachineStoppedFail() throws {
    let fixture = try MachineFixture()
    let sharing = try fixture.sharing(MachineFixture.front)
    let grants = try fixture.grants(MachineFixture.back)
    let events = try fixture.events(MachineFixture.back)
    let shared = try sharing.share(pageCount: 1, with: MachineFixture.back, access: .readWrite)
    let mapped = try grants.map(shared.references, of: MachineFixture.front, access: .readWrite)
    fixture.machine.stop()
    #expect(throws: GrantError.self) {
      try sharing.share(pageCount: 1, with: MachineFixture.back, access: .readWrite)
    }
    #expect(throws: GrantError.self) {
      try grants.map(shared.references, of: MachineFixture.front, access: .readWrite)
    }
    #expect(throws: EventChannelError.self) { try events.allocateUnbound(for: MachineFixture.front) }
    mapped.write([7])
    #expect(shared.pages.bytes(count: 1) == [7])
  }
}

/// Descriptors that the test library's own threads may open at any moment (timers, queues).
let runtimeDescriptors = 10

/// Open descriptors of this process.
func openDescriptorCount() throws -> Int {
  guard let directory = unsafe opendir("/proc/self/fd") else {
    throw TestFailure(description: "opendir: errno \(errno)")
  }
  defer { unsafe closedir(directory) }
  var count = 0
  while unsafe readdir(directory) != nil { count += 1 }
  return count
}

/// Mappings of memfds in this process.
func mappingCount() throws -> Int {
  let file = unsafe open("/proc/self/maps", O_RDONLY)
  guard file >= 0 else { throw TestFailure(description: "open: errno \(errno)") }
  defer { close(file) }
  var text: [UInt8] = []
  var buffer = [UInt8](repeating: 0, count: 65536)
  while true {
    let count = unsafe read(file, &buffer, buffer.count)
    if count <= 0 { break }
    text += buffer[..<count]
  }
  return String(decoding: text, as: UTF8.self).split(separator: "\n").count { $0.contains("/memfd:") }
}
