import Testing

@testable import Loopback

@Suite("Store: paths, permissions, nodes")
struct StoreTreeTests {
  static let longName = String(repeating: "n", count: 1000)

  @Test(
    arguments: [
      ("/", "/"), ("/a", "/a"), ("/a/b-c_d@E9", "/a/b-c_d@E9"), ("x/y", "/local/domain/7/x/y"),
      ("@introduceDomain", nil), ("", nil), ("/a/", nil), ("//a", nil), ("/a//b", nil), ("x/", nil),
      ("/a b", nil), ("/a.b", nil), ("/\u{e9}", nil), ("/a:", nil), ("/a\u{7f}", nil),
    ] as [(String, String?)])
  func pathRules(text: String, expected: String?) {
    let caller = StoreCaller(domain: 7, target: nil, quota: StoreQuota())
    let path = try? NodePath(Array(text.utf8)[...], caller: caller, special: false)
    #expect(path?.description == expected)
    #expect(path.map { $0.byteCount == $0.description.utf8.count } ?? true)
  }

  @Test func everyByteOfAPath() {
    let allowed = Set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-/_@".utf8)
    for byte in UInt8.min...UInt8.max {
      // A slash in the middle is a separator, which is fine here.
      let path = try? NodePath([47, 97, byte, 97], caller: .privileged, special: false)
      #expect((path != nil) == allowed.contains(byte), "byte \(byte)")
    }
  }

  @Test func specialPaths() throws {
    for text in ["@introduceDomain", "@releaseDomain", "@anything", "@releaseDomain/7"] {
      let path = try NodePath(Array(text.utf8)[...], caller: .privileged, special: true)
      #expect(path.description == text)
      #expect(path.byteCount == text.utf8.count)
      #expect(path.isSpecial)
      #expect(!path.isAtOrBelow(.root))
    }
  }

  /// XENSTORE_ABS_PATH_MAX 3072, XENSTORE_REL_PATH_MAX 2048, and the quota, which counts below the home.
  @Test func pathLengths() {
    func isValid(_ text: String, _ caller: StoreCaller) -> Bool {
      (try? NodePath(Array(text.utf8)[...], caller: caller, special: false)) != nil
    }
    let guest = StoreCaller(domain: 7, target: nil, quota: StoreQuota())
    let name = { (count: Int) in String(repeating: "n", count: count) }
    #expect(isValid("/" + name(3071), .privileged))
    #expect(!isValid("/" + name(3072), .privileged))
    #expect(isValid(name(2048), .privileged))
    #expect(!isValid(name(2049), .privileged))
    #expect(isValid("/" + name(2047), guest))
    #expect(!isValid("/" + name(2048), guest))
    #expect(isValid("/local/domain/7/" + name(2048), guest))
    #expect(!isValid("/local/domain/7/" + name(2049), guest))
    #expect(isValid(name(2048), guest))
  }

  @Test func permissionText() {
    for text in ["n0", "r7", "w65535", "b12"] {
      #expect((try? NodePermission(Array(text.utf8)[...]))?.description == text)
    }
    for text in ["", "r", "x7", "r-1", "r65536", "r7x", "7", "r 7", "R7"] {
      #expect((try? NodePermission(Array(text.utf8)[...])) == nil, "\(text)")
    }
  }

  /// Who may do what: owner, listed, unlisted, domain 0, and one that stands in for the owner.
  @Test func permissionMatrix() {
    let letters: [(String, NodeAccess)] = [("n", []), ("r", .read), ("w", .write), ("b", [.read, .write])]
    for (rest, forOthers) in letters {
      for (listed, forListed) in letters {
        let list = try? ["\(rest)3", "\(listed)4"].map { try NodePermission(Array($0.utf8)[...]) }
        guard let list else { Issue.record("no list"); return }
        func access(_ domain: UInt16, target: UInt16? = nil) -> NodeAccess {
          list.access(for: StoreCaller(domain: domain, target: target, quota: StoreQuota()))
        }
        #expect(access(0) == .all)
        #expect(access(3) == .all)
        #expect(access(4) == forListed)
        #expect(access(5) == forOthers)
        #expect(access(5, target: 3) == .all)
        #expect(access(5, target: 4) == forListed)
      }
    }
  }

  @Test func writesMakeParentsThatInheritPermissions() {
    var store = StoreDialogue()
    let dom0 = store.client()
    let guest = store.client(7)
    #expect(store.ask(dom0, .write, "/a|") == "OK|")
    #expect(store.ask(dom0, .setPermissions, "/a|n3|b7|") == "OK|")
    // Domain 0 keeps the owner of the parent.
    #expect(store.ask(dom0, .write, "/a/b/c|v") == "OK|")
    #expect(store.ask(dom0, .getPermissions, "/a/b|") == "n3|b7|")
    #expect(store.ask(dom0, .read, "/a/b|") == "")
    // A guest becomes the owner of what it makes.
    #expect(store.ask(guest, .write, "/a/x/y|v") == "OK|")
    #expect(store.ask(dom0, .getPermissions, "/a/x|") == "n7|b7|")
    #expect(store.ask(dom0, .getPermissions, "/a/x/y|") == "n7|b7|")
    #expect(store.core.isConsistent)
  }

  @Test func directoriesAreSorted() {
    var store = StoreDialogue()
    let dom0 = store.client()
    for name in ["b", "a", "10", "9", "C"] { _ = store.ask(dom0, .makeDirectory, "/d/\(name)|") }
    #expect(store.ask(dom0, .directory, "/d|") == "10|9|C|a|b|")
    #expect(store.ask(dom0, .directory, "/d/a|") == "")
  }

  @Test func mkdirLeavesWhatIsThere() {
    var store = StoreDialogue()
    let dom0 = store.client()
    _ = store.ask(dom0, .write, "/a|value")
    #expect(store.ask(dom0, .makeDirectory, "/a|") == "OK|")
    #expect(store.ask(dom0, .read, "/a|") == "value")
  }

  @Test func valuesAreBytes() {
    var store = StoreDialogue()
    let dom0 = store.client()
    let value = Array(UInt8.min...UInt8.max)
    #expect(store.ask(dom0, type: 11, Array("/a\0".utf8) + value) == "OK|")
    store.send(dom0, type: 2, Array("/a\0".utf8))
    #expect(store.messages(dom0).map(\.payload) == [value])
  }

  @Test func removing() {
    var store = StoreDialogue()
    let dom0 = store.client()
    _ = store.ask(dom0, .write, "/a/b/c|1")
    #expect(store.ask(dom0, .remove, "/a|") == "OK|")
    #expect(store.ask(dom0, .read, "/a/b/c|") == "ENOENT|")
    // A missing node is fine, a missing parent is not, and the root stays.
    #expect(store.ask(dom0, .remove, "/a|") == "OK|")
    #expect(store.ask(dom0, .remove, "/a/b|") == "ENOENT|")
    #expect(store.ask(dom0, .remove, "/|") == "EINVAL|")
    #expect(store.core.isConsistent)
  }

  /// A guest learns nothing of nodes it may not see: missing and forbidden look the same to it.
  @Test func refusals() {
    var store = StoreDialogue()
    let dom0 = store.client()
    let guest = store.client(7)
    _ = store.ask(dom0, .write, "/secret/node|1")
    _ = store.ask(dom0, .write, "/open|1")
    _ = store.ask(dom0, .setPermissions, "/open|r0|")
    _ = store.ask(dom0, .write, "/mine|1")
    _ = store.ask(dom0, .setPermissions, "/mine|n7|")
    let table: [(StoreMessageType, String, String)] = [
      (.read, "/secret/node|", "EACCES|"), (.read, "/secret/none|", "EACCES|"),
      (.directory, "/|", "EACCES|"), (.read, "/open|", "1"), (.read, "/open/none|", "ENOENT|"),
      (.write, "/open|2", "EACCES|"), (.write, "/open/x|2", "EACCES|"), (.makeDirectory, "/x|", "EACCES|"),
      (.remove, "/open|", "EACCES|"), (.remove, "/secret/none|", "EACCES|"),
      (.getPermissions, "/secret|", "EACCES|"), (.getPermissions, "/open|", "r0|"),
      (.setPermissions, "/open|n0|r7|", "EACCES|"), (.setPermissions, "/mine|n8|", "EPERM|"),
      (.setPermissions, "/mine|b7|r3|", "OK|"), (.setPermissions, "/mine|", "EINVAL|"),
      (.setPermissions, "/mine|z7|", "EINVAL|"), (.setPermissions, "/mine/none|n7|", "ENOENT|"),
      (.getPermissions, "@releaseDomain|", "EACCES|"), (.write, "@releaseDomain|x", "EINVAL|"),
      (.read, "@releaseDomain|", "EINVAL|"), (.remove, "@releaseDomain|", "EINVAL|"),
    ]
    for (type, payload, reply) in table {
      #expect(store.ask(guest, type, payload) == reply, "\(type) \(payload)")
    }
  }

  @Test func aTargetsRights() {
    var store = StoreDialogue()
    let dom0 = store.client()
    let stub = store.client(8)
    for domain in [7, 8] as [UInt16] { store.core.introduce(domain: domain) }
    _ = store.ask(dom0, .write, "/of7|1")
    _ = store.ask(dom0, .setPermissions, "/of7|n7|")
    #expect(store.ask(stub, .read, "/of7|") == "EACCES|")
    #expect(store.ask(dom0, .setTarget, "8|7|") == "OK|")
    #expect(store.ask(stub, .write, "/of7|2") == "OK|")
    #expect(store.ask(dom0, .setTarget, "8|9|") == "ENOENT|")
    #expect(store.ask(stub, .setTarget, "8|7|") == "EACCES|")
    // The next domain 7 is another one, and so is the next domain 8.
    store.core.release(domain: 7)
    store.core.introduce(domain: 7)
    _ = store.ask(dom0, .write, "/of7|1")
    _ = store.ask(dom0, .setPermissions, "/of7|n7|")
    #expect(store.ask(stub, .read, "/of7|") == "EACCES|")
    #expect(store.ask(dom0, .setTarget, "8|7|") == "OK|")
    #expect(store.ask(stub, .read, "/of7|") == "1")
    store.core.release(domain: 8)
    store.core.introduce(domain: 8)
    let next = store.client(8)
    #expect(store.ask(next, .read, "/of7|") == "EACCES|")
  }

  /// Lists that just fit, and just do not, into one message.
  @Test func partsAtTheirEdge() {
    var store = StoreDialogue()
    let dom0 = store.client()
    for number in 0..<40 { _ = store.ask(dom0, .makeDirectory, "/d/\(number)-\(Self.longName.prefix(94))|") }
    var lists: Set<Bool> = []
    for length in 1...200 {
      _ = store.ask(dom0, .makeDirectory, "/d/z\(Self.longName.prefix(length))|")
      let list = store.ask(dom0, .directory, "/d|")
      var collected = ""
      // The empty name at the end takes the last byte, which is not part of the list.
      while !collected.hasSuffix("||") && collected != "|" {
        let reply = store.ask(dom0, .directoryPart, "/d|\(collected.utf8.count)|")
        guard let bar = reply.firstIndex(of: "|"), reply.utf8.count <= 4096, !reply.hasPrefix("E") else {
          Issue.record("length \(length): \(reply.prefix(20))")
          return
        }
        collected += reply[reply.index(after: bar)...]
      }
      if list != "E2BIG|" { #expect(collected == list + "|") }
      lists.insert(list == "E2BIG|")
      _ = store.ask(dom0, .remove, "/d/z\(Self.longName.prefix(length))|")
    }
    // Both sides of the edge were there.
    #expect(lists == [false, true])
  }

  @Test func longListsComeInParts() {
    var store = StoreDialogue()
    let dom0 = store.client()
    let names = (1000..<2500).map { "child-\($0)" }
    for name in names { _ = store.ask(dom0, .makeDirectory, "/many/\(name)|") }
    #expect(store.ask(dom0, .directory, "/many|") == "E2BIG|")
    var collected = ""
    var generations: Set<String> = []
    var parts = 0
    while true {
      parts += 1
      let reply = store.ask(dom0, .directoryPart, "/many|\(collected.utf8.count)|")
      guard let bar = reply.firstIndex(of: "|") else { Issue.record("no generation: \(reply)"); return }
      generations.insert(String(reply[..<bar]))
      let part = reply[reply.index(after: bar)...]
      #expect(reply.utf8.count <= 4096)
      // The end is an empty name.
      if part.hasSuffix("||") || part == "|" {
        collected += part.dropLast()
        break
      }
      collected += part
      if parts > 20 { Issue.record("no end"); return }
    }
    #expect(collected == names.map { $0 + "|" }.joined())
    #expect(generations.count == 1)
    #expect(parts == 5)
    let before = store.ask(dom0, .directoryPart, "/many|0|").prefix { $0 != "|" }
    _ = store.ask(dom0, .remove, "/many/child-1000|")
    #expect(store.ask(dom0, .directoryPart, "/many|0|").prefix { $0 != "|" } != before)
    #expect(store.ask(dom0, .directoryPart, "/many|-1|") == "EINVAL|")
    #expect(store.ask(dom0, .directoryPart, "/many|99999999999999999999|") == "EINVAL|")
    #expect(store.ask(dom0, .directoryPart, "/many|").hasPrefix("EINVAL"))
    #expect(store.ask(dom0, .directoryPart, "/many/child-1001|0|").hasSuffix("||"))
  }
}
