import Glibc
import Loopback
import RingKit
import Testing

/// ``StoreClient`` through libxenstore against the store server: two implementations of the wire protocol.
@Suite struct StoreClientTests {
  @Test func writesReadsListsAndRemoves() throws {
    let fixture = try StoreFixture()
    let client = try StoreClient(socketPath: fixture.socket())
    #expect(try client.read("/a/b") == nil)
    #expect(try client.exists("/a/b") == false)
    #expect(try client.list("/a") == nil)
    try client.write("/a/b", "value")
    try client.write("/a/empty", "")
    try client.makeDirectory("/a/dir")
    try client.makeDirectory("/a/dir")
    #expect(try client.read("/a/b") == "value")
    #expect(try client.read("/a/empty") == "")
    #expect(try client.exists("/a"))
    #expect(try client.list("/a")?.sorted() == ["b", "dir", "empty"])
    #expect(try client.list("/a/b") == [])
    try client.remove("/a")
    try client.remove("/a")
    #expect(try client.read("/a/b") == nil)
  }

  @Test func carriesValuesOfAnyLengthTheProtocolHas() throws {
    let fixture = try StoreFixture()
    let client = try StoreClient(socketPath: fixture.socket())
    let long = String(repeating: "x", count: 2048)
    try client.write("/long", long)
    #expect(try client.read("/long") == long)
    #expect(throws: StoreError.tooLong(path: "/long", byteCount: 4097)) {
      try client.write("/long", String(repeating: "x", count: 4097))
    }
    #expect(try client.read("/long") == long)
  }

  @Test func namesTheNodeThatIsNoText() throws {
    let fixture = try StoreFixture()
    let client = try StoreClient(socketPath: fixture.socket())
    #expect(throws: StoreError.notText(path: "/n")) { try client.write("/n", "a\0b") }
    #expect(throws: StoreError.notText(path: "/n\0/m")) { try client.read("/n\0/m") }
    // What a guest can write with its own client: xenstore-write takes \xHH.
    for value in ["a\\x00b", "\\xff\\xfe"] {
      _ = try fixture.tool("write", "/raw", value)
      #expect(throws: StoreError.notText(path: "/raw"), "\(value)") { try client.read("/raw") }
    }
  }

  @Test func reportsRefusalsWithNodeAndReason() throws {
    let fixture = try StoreFixture()
    let client = try StoreClient(socketPath: fixture.socket())
    try fixture.server.introduce(domain: 7)
    try client.write("/secret", "s")
    try client.setPermissions(
      [StorePermission(domain: DomainID(rawValue: 0), canRead: false, canWrite: false)], of: "/secret")
    let guest = try StoreClient(socketPath: fixture.socket(7))
    let refusal = StoreError.refused(operation: "read", path: "/secret", errno: EACCES)
    #expect(throws: refusal) { try guest.read("/secret") }
    #expect(throws: refusal) { try guest.exists("/secret") }
    #expect(refusal.description == "xenstore: read /secret: Permission denied")
    #expect(throws: StoreError.refused(operation: "write", path: "/bad path", errno: EINVAL)) {
      try client.write("/bad path", "v")
    }
    // The connection has survived all that.
    #expect(try client.read("/secret") == "s")
  }

  @Test func permissionsMakeTheRoundTrip() throws {
    let fixture = try StoreFixture()
    let client = try StoreClient(socketPath: fixture.socket())
    let permissions = [
      StorePermission(domain: DomainID(rawValue: 0), canRead: false, canWrite: false),
      StorePermission(domain: DomainID(rawValue: 7), canRead: true, canWrite: false),
      StorePermission(domain: DomainID(rawValue: 8), canRead: false, canWrite: true),
      StorePermission(domain: DomainID(rawValue: 0x7FEF), canRead: true, canWrite: true),
    ]
    try client.write("/p", "")
    try client.setPermissions(permissions, of: "/p")
    #expect(try client.permissions(of: "/p") == permissions)
    #expect(try client.permissions(of: "/q") == nil)
  }

  @Test func relativePathsAndDomainsOfBothSides() throws {
    let fixture = try StoreFixture()
    try fixture.server.introduce(domain: 7)
    let client = try StoreClient(socketPath: fixture.socket())
    let guest = try StoreClient(socketPath: fixture.socket(7))
    try guest.write("device/x", "mine")
    #expect(try client.read("/local/domain/7/device/x") == "mine")
    #expect(try client.domainPath(DomainID(rawValue: 7)) == "/local/domain/7")
    try client.write("/local/domain/7/domid", "7")
    #expect(try guest.ownDomain() == DomainID(rawValue: 7))
    try client.write("/local/domain/7/domid", "32752")
    #expect(throws: StoreError.self) { try guest.ownDomain() }
  }

  @Test func watchesFireOnRegistrationAndChange() throws {
    let fixture = try StoreFixture()
    let client = try StoreClient(socketPath: fixture.socket())
    #expect(try client.nextWatchEvent() == nil)
    try client.watch("/w", token: "t")
    #expect(try nextEvent(of: client) == WatchEvent(path: "/w", token: "t"))
    try client.write("/w/deep", "1")
    try client.write("/other", "1")
    #expect(try nextEvent(of: client) == WatchEvent(path: "/w/deep", token: "t"))
    #expect(try client.nextWatchEvent() == nil)
    try client.unwatch("/w", token: "t")
    try client.unwatch("/w", token: "t")
    try client.write("/w/deep", "2")
    // Replies come in order behind the events: after this one an event would have been here.
    #expect(try client.read("/w/deep") == "2")
    #expect(try client.nextWatchEvent() == nil)
  }

  @Test func transactionsCommitTogetherOrNotAtAll() throws {
    let fixture = try StoreFixture()
    let client = try StoreClient(socketPath: fixture.socket())
    let other = try StoreClient(socketPath: fixture.socket())
    let result = try client.transaction { store throws(StoreError) in
      try store.write("/t/a", "1")
      try store.makeDirectory("/t/d")
      #expect(try store.read("/t/a") == "1")
      #expect(try store.list("/t")?.sorted() == ["a", "d"])
      #expect(try other.read("/t/a") == nil)
      return 5
    }
    #expect(result == 5)
    #expect(try other.read("/t/a") == "1")

    #expect(throws: StoreError.missing(path: "/t/none")) {
      try client.transaction { store throws(StoreError) in
        try store.write("/t/a", "2")
        _ = try store.text("/t/none")
      }
    }
    #expect(try other.read("/t/a") == "1")
  }

  @Test func transactionsRunAgainAfterAConflictAndGiveUpInTheEnd() throws {
    let fixture = try StoreFixture()
    let client = try StoreClient(socketPath: fixture.socket())
    let other = try StoreClient(socketPath: fixture.socket())
    var runs = 0
    try client.transaction { store throws(StoreError) in
      runs += 1
      let seen = try store.read("/c")
      if runs <= 2 { try other.write("/c", "\(runs)") }
      try store.write("/c", (seen ?? "") + "!")
    }
    #expect(runs == 3)
    #expect(try client.read("/c") == "2!")

    runs = 0
    #expect(throws: StoreError.conflicts(attempts: 6)) {
      try client.transaction(attempts: 6) { store throws(StoreError) in
        runs += 1
        _ = try store.read("/c")
        try other.write("/c", "\(runs)")
        try store.write("/c", "lost")
      }
    }
    #expect(runs == 6)
    #expect(try client.read("/c") == "6")
  }

  @Test func tellsThatNoDaemonAnswers() throws {
    do {
      _ = try StoreClient(socketPath: "/nonexistent/xenstored")
      Issue.record("connected to nothing")
    } catch {
      #expect(
        error.description
          == "cannot connect to xenstored at /nonexistent/xenstored: connect: No such file or directory; "
          + "is xenstored running?")
    }
  }

  @Test func tellsThatTheDaemonWentAway() throws {
    for isWatching in [false, true] {
      let fixture = try StoreFixture()
      let client = try StoreClient(socketPath: fixture.socket())
      if isWatching {
        try client.watch("/w", token: "t")
        _ = try nextEvent(of: client)
      }
      // Otherwise a write to the socket raises SIGPIPE in libxenstores that do not mask it.
      _ = signal(SIGPIPE, SIG_IGN)
      fixture.server.stop()
      #expect(throws: StoreError.connectionLost(operation: "read")) { try client.read("/x") }
      #expect(throws: StoreError.connectionLost(operation: "write")) { try client.write("/x", "") }
      #expect(throws: StoreError.connectionLost(operation: "begin a transaction")) {
        try client.transaction { _ throws(StoreError) in }
      }
      #expect(throws: StoreError.connectionLost(operation: "watch event")) { try client.nextWatchEvent() }
    }
  }

  private struct NoEvent: Error, CustomStringConvertible {
    let description: String
  }

  /// The next event, waiting at most 10 s for the descriptor.
  private func nextEvent(of client: StoreClient) throws -> WatchEvent {
    if let event = try client.nextWatchEvent() { return event }
    var entry = pollfd(fd: client.descriptor, events: Int16(POLLIN), revents: 0)
    guard unsafe poll(&entry, 1, 10_000) == 1 else { throw NoEvent(description: "no watch event in 10 s") }
    guard let event = try client.nextWatchEvent() else { throw NoEvent(description: "readable, no event") }
    return event
  }
}
