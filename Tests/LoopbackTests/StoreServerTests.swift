import Glibc
import Testing

@testable import Loopback

/// The sockets: where they are, who may connect, what happens when domains, clients and servers come and go.
@Suite("Store: server")
struct StoreServerTests {
  @Test func socketsArePrivateAndGoAway() throws {
    let store = try StoreFixture()
    try store.server.introduce(domain: 7)
    #expect(store.server.socketPath(domain: 0) == store.directory + "/xenstored")
    #expect(store.server.socketPath(domain: 7) == store.directory + "/xenstored-7")
    #expect(store.server.socketPath(domain: 8) == nil)
    for domain in [0, 7] as [UInt16] {
      var status = stat()
      #expect(unsafe stat(store.socket(domain), &status) == 0)
      #expect(status.st_mode == S_IFSOCK | 0o600)
    }
    store.server.stop()
    store.server.stop()
    for domain in [0, 7] as [UInt16] { #expect(unsafe access(store.socket(domain), F_OK) != 0) }
    #expect(throws: StoreServerError.notStartable) { try store.server.start() }
  }

  @Test func startsOnce() throws {
    let store = try StoreFixture()
    #expect(throws: StoreServerError.notStartable) { try store.server.start() }
    #expect(try store.tool("exists", "/tool").status == 0)
  }

  /// Dropped without `start` or `stop`, a server leaves no socket behind.
  @Test func leavesNoSocketWhenDropped() throws {
    let store = try StoreFixture()
    let path = store.directory + "/other"
    do {
      let unstarted = try StoreServer()
      try unstarted.addSocket(path: path, domain: 0)
      #expect(unsafe access(path, F_OK) == 0)
    }
    #expect(unsafe access(path, F_OK) != 0)
    do {
      let started = try StoreServer()
      try started.addSocket(path: path, domain: 0)
      try started.start()
    }
    #expect(unsafe access(path, F_OK) != 0)
  }

  @Test func pathLength() throws {
    let store = try StoreFixture()
    let server = try StoreServer()
    let padding = 107 - store.directory.utf8.count - 1
    let longest = store.directory + "/" + String(repeating: "s", count: padding)
    try server.addSocket(path: longest, domain: 0)
    try server.start()
    #expect(try StoreToolProcess.run("xenstore-exists", ["/tool"], socket: longest).status == 0)
    let error = StoreServerError.pathTooLong(path: longest + "s", bytes: 108)
    #expect(throws: error) { try server.addSocket(path: longest + "s", domain: 0) }
    #expect(error.description.contains("107"))
  }

  @Test func aLiveServersPathIsLeftAlone() throws {
    let store = try StoreFixture()
    #expect(throws: StoreServerError.pathInUse(path: store.socket())) {
      try StoreServer(directory: store.directory)
    }
    #expect(try store.tool("exists", "/tool").status == 0)
  }

  @Test func aDeadServersSocketIsReplaced() throws {
    let store = try StoreFixture()
    let path = store.directory + "/left"
    let dead = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: path.utf8) }
    let bound = unsafe withUnsafePointer(to: &address) {
      unsafe $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        unsafe bind(dead, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    #expect(bound == 0)
    close(dead)
    try store.server.addSocket(path: path, domain: 0)
    #expect(try StoreToolProcess.run("xenstore-exists", ["/tool"], socket: path).status == 0)
  }

  @Test func otherFilesAreNotReplaced() throws {
    let store = try StoreFixture()
    let path = store.directory + "/file"
    let file = unsafe open(path, O_CREAT | O_WRONLY, 0o600)
    close(file)
    defer { _ = unsafe unlink(path) }
    #expect(throws: StoreServerError.self) { try store.server.addSocket(path: path, domain: 0) }
    do {
      try store.server.addSocket(path: "/nonexistent/xenstored", domain: 0)
      Issue.record("a socket in no directory")
    } catch {
      #expect(
        error.description
          == "bind of /nonexistent/xenstored failed: No such file or directory (errno 2)")
    }
  }

  @Test func oversizedRequestsHangUp() throws {
    let store = try StoreFixture()
    let client = try StoreRawClient(store.socket())
    client.send(StoreRawClient.request(.read, "/local/domain/0/name|"))
    #expect(try client.message()?.payload == Array("Domain-0".utf8))
    client.send([2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 16, 0, 0])
    #expect(try client.message() == nil)
    #expect(try store.tool("exists", "/tool").status == 0)
  }

  /// Clients that stop in the middle of a message, or pour in requests and never read, hurt nobody else.
  @Test func badClientsHurtNobody() throws {
    let store = try StoreFixture()
    try store.server.introduce(domain: 7)
    var clients: [StoreRawClient] = []
    for length in 0..<20 {
      let client = try StoreRawClient(store.socket(7))
      client.send(Array(StoreRawClient.request(.read, "domid|").prefix(length)))
      clients.append(client)
    }
    let greedy = try StoreRawClient(store.socket(7))
    _ = fcntl(greedy.descriptor, F_SETFL, O_NONBLOCK)
    let request = StoreRawClient.request(.read, "domid|")
    // Until its socket takes no more: the server has stopped reading from it. A bound, not a wait.
    var sent = 0
    while sent < 1 << 20 {
      let count = unsafe Glibc.send(greedy.descriptor, request, request.count, Int32(MSG_NOSIGNAL))
      if count != request.count { break }
      sent += 1
    }
    #expect(sent < 1 << 20)
    #expect(try store.tool("read", "domid", domain: 7).output == "7\n")
    clients.removeAll()
    #expect(try store.tool("read", "domid", domain: 7).output == "7\n")
  }

  @Test func manyRequestsAtOnceAreAllAnswered() throws {
    let store = try StoreFixture()
    try store.server.introduce(domain: 7)
    for domain in [0, 7] as [UInt16] {
      let client = try StoreRawClient(store.socket(domain))
      client.send((0..<500).flatMap { StoreRawClient.request(.write, "n|\($0)") })
      for _ in 0..<500 { #expect(try client.message()?.payload == Array("OK\0".utf8)) }
    }
  }

  @Test func releaseHangsUpAndIntroduceOpensAgain() throws {
    let store = try StoreFixture()
    try store.server.introduce(domain: 7)
    let client = try StoreRawClient(store.socket(7))
    client.send(StoreRawClient.request(.read, "domid|"))
    #expect(try client.message()?.payload == Array("7".utf8))
    store.server.release(domain: 7)
    #expect(try client.message() == nil)
    #expect(unsafe access(store.socket(7), F_OK) != 0)
    #expect(try store.tool("exists", "/local/domain/7").status == 1)
    try store.server.introduce(domain: 7)
    #expect(try store.tool("read", "domid", domain: 7).output == "7\n")
    store.server.release(domain: 7)
    store.server.release(domain: 7)
    store.server.release(domain: 0)
    #expect(try store.tool("exists", "/local/domain/0").status == 0)
  }

  /// A toolstack that introduces a domain over the wire gets it a socket as well.
  @Test func introductionOverTheWire() throws {
    let store = try StoreFixture()
    let toolstack = try StoreRawClient(store.socket())
    toolstack.send(StoreRawClient.request(.introduce, "9|1|3|"))
    #expect(try toolstack.message()?.payload == Array("OK\0".utf8))
    let client = try StoreRawClient(store.socket(9))
    client.send(StoreRawClient.request(.getDomainPath, "9|"))
    #expect(try client.message()?.payload == Array("/local/domain/9\0".utf8))
    toolstack.send(StoreRawClient.request(.release, "9|"))
    #expect(try toolstack.message()?.payload == Array("OK\0".utf8))
    #expect(try client.message() == nil)
  }

  @Test func stopHangsUp() throws {
    let store = try StoreFixture()
    let client = try StoreRawClient(store.socket())
    client.send(StoreRawClient.request(.read, "/local/domain/0/name|"))
    #expect(try client.message() != nil)
    store.server.stop()
    #expect(try client.message() == nil)
  }
}
