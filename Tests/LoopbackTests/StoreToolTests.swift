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
}
