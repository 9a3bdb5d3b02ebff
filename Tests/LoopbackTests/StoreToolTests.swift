import Testing

@testable import Loopback

/// The server with Debian's xenstore-utils as its clients.
@Suite("xenstore-utils as clients")
struct StoreToolTests {
  typealias Result = StoreToolProcess.Result

  @Test func writeReadListRemove() throws {
    let store = try StoreFixture()
    #expect(try store.tool("write", "/a/b/c", "hello") == Result(status: 0, output: "", errors: ""))
    #expect(try store.tool("read", "/a/b/c") == Result(status: 0, output: "hello\n", errors: ""))
    #expect(try store.tool("list", "/a").output == "b\n")
    #expect(try store.tool("exists", "/a/b").status == 0)
    #expect(try store.tool("rm", "/a/b") == Result(status: 0, output: "", errors: ""))
    #expect(try store.tool("exists", "/a/b").status == 1)
    #expect(try store.tool("read", "/a/b/c").status == 1)
    #expect(try store.tool("list", "/a").output == "")
  }

  @Test func wholeTreeByteForByte() throws {
    let store = try StoreFixture()
    try store.server.introduce(domain: 7)
    _ = try store.tool("write", "/local/domain/7/device/vbd/51712/state", "1")
    _ = try store.tool("write", "/tool/odd", "tab\there")
    let result = try store.tool("ls", "-f", "/")
    #expect(
      result
        == Result(
          status: 0,
          output: """
            /libxl = ""
            /local = ""
            /local/domain = ""
            /local/domain/0 = ""
            /local/domain/0/domid = "0"
            /local/domain/0/name = "Domain-0"
            /local/domain/7 = ""
            /local/domain/7/device = ""
            /local/domain/7/device/vbd = ""
            /local/domain/7/device/vbd/51712 = ""
            /local/domain/7/device/vbd/51712/state = "1"
            /local/domain/7/domid = "7"
            /tool = ""
            /tool/odd = "tab\\there"
            /tool/xenstored = ""
            /vm = ""

            """, errors: ""))
  }

  @Test func permissionsAndTheirDenial() throws {
    let store = try StoreFixture()
    try store.server.introduce(domain: 7)
    #expect(try store.tool("write", "/secret", "s").status == 0)
    let denied = try store.tool("read", "/secret", domain: 7)
    #expect(denied.status == 1)
    #expect(denied.output == "")
    #expect(denied.errors.contains("couldn't read path /secret"))
    #expect(try store.tool("write", "/mine", "x", domain: 7).errors.contains("could not write path /mine"))
    #expect(try store.tool("ls", "/", domain: 7).errors.contains("Permission denied"))
    #expect(try store.tool("rm", "/tool", domain: 7).status == 1)
    #expect(try store.tool("exists", "/tool").status == 0)
    // Let in, it may read and still not write.
    #expect(try store.tool("chmod", "/secret", "n0", "r7").status == 0)
    #expect(try store.tool("read", "/secret", domain: 7).output == "s\n")
    #expect(try store.tool("write", "/secret", "t", domain: 7).status == 1)
    #expect(try store.tool("ls", "-p", "/").output.contains("secret = \"s\""))
    #expect(try store.tool("ls", "-p", "/").output.contains("(n0,r7)"))
    #expect(try store.tool("chmod", "/secret", "n7", domain: 7).status != 0)
    // In its own home a domain is at home, by relative paths too.
    #expect(try store.tool("write", "device/vbd/768/state", "3", domain: 7).status == 0)
    #expect(try store.tool("read", "/local/domain/7/device/vbd/768/state").output == "3\n")
    #expect(
      try store.tool("ls", "-f", "device", domain: 7).output == """
        device/vbd = ""
        device/vbd/768 = ""
        device/vbd/768/state = "3"

        """)
    #expect(try store.tool("read", "domid", domain: 7).output == "7\n")
    #expect(try store.tool("write", "domid", "0", domain: 7).status == 1)
  }

  @Test func watching() throws {
    let store = try StoreFixture()
    let watch = try StoreToolProcess("xenstore-watch", ["-n", "5", "/w"], socket: store.socket())
    #expect(try watch.line() == "/w")
    #expect(try store.tool("write", "/w/a/b", "1").status == 0)
    #expect(try watch.line() == "/w/a/b")
    #expect(try store.tool("write", "/other", "1").status == 0)
    #expect(try store.tool("chmod", "/w/a", "n0", "r3").status == 0)
    #expect(try watch.line() == "/w/a")
    #expect(try store.tool("rm", "/w/a/b").status == 0)
    #expect(try watch.line() == "/w/a/b")
    #expect(try store.tool("rm", "/w").status == 0)
    #expect(try watch.finish() == Result(status: 0, output: "/w\n", errors: ""))
  }

  @Test func watchingDomains() throws {
    let store = try StoreFixture()
    let watch = try StoreToolProcess(
      "xenstore-watch", ["-n", "4", "@introduceDomain", "@releaseDomain"], socket: store.socket())
    #expect(try watch.line() == "@introduceDomain")
    #expect(try watch.line() == "@releaseDomain")
    try store.server.introduce(domain: 7)
    #expect(try watch.line() == "@introduceDomain")
    store.server.release(domain: 7)
    #expect(try watch.finish() == Result(status: 0, output: "@releaseDomain\n", errors: ""))
  }

  @Test func watchingAsAGuest() throws {
    let store = try StoreFixture()
    try store.server.introduce(domain: 7)
    let watch = try StoreToolProcess(
      "xenstore-watch", ["-n", "3", "/secret", "data"], socket: store.socket(7))
    #expect(try watch.line() == "/secret")
    #expect(try watch.line() == "data")
    #expect(try store.tool("write", "/secret", "1").status == 0)
    #expect(try store.tool("write", "/local/domain/7/data/x", "1").status == 0)
    // The relative watch reports a relative path, and the unreadable node nothing.
    #expect(try watch.finish() == Result(status: 0, output: "data/x\n", errors: ""))
  }

  /// More children than one message holds: libxenstore asks for parts.
  @Test func longLists() throws {
    let store = try StoreFixture()
    let numbers = 1000..<1800
    for start in stride(from: numbers.lowerBound, to: numbers.upperBound, by: 100) {
      let arguments = (start..<(start + 100)).flatMap { ["/many/child-\($0)", "\($0)"] }
      let result = try StoreToolProcess.run("xenstore-write", arguments, socket: store.socket())
      #expect(result == Result(status: 0, output: "", errors: ""))
    }
    #expect(try store.tool("list", "/many").output == numbers.map { "child-\($0)\n" }.joined())
    #expect(
      try store.tool("ls", "-f", "/many").output
        == numbers.map { "/many/child-\($0) = \"\($0)\"\n" }.joined())
  }

  @Test func recursiveChangesInTransactions() throws {
    let store = try StoreFixture()
    for path in ["/t/a/b", "/t/a/c", "/t/d"] { _ = try store.tool("write", path, "1") }
    #expect(try store.tool("chmod", "-r", "/t", "n0", "r7").status == 0)
    let lines = try store.tool("ls", "-p", "/t").output.split(separator: "\n")
    #expect(lines.count == 4 && lines.allSatisfy { $0.hasSuffix("(n0,r7)") })
    #expect(try store.tool("rm", "-t", "/t/a/b").status == 0)
    #expect(try store.tool("ls", "-f", "/t").output == "/t/a = \"\"\n/t/a/c = \"1\"\n/t/d = \"1\"\n")
  }

  @Test func badPaths() throws {
    let store = try StoreFixture()
    for path in ["/a//b", "/a/", "/a b", "/a.b"] {
      #expect(try store.tool("write", path, "1").status == 1, "\(path)")
    }
    #expect(try store.tool("rm", "/").status == 1)
    #expect(try store.tool("rm", "/no/parent").status == 1)
  }
}
