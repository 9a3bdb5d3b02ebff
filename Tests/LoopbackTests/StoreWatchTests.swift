import Testing

@testable import Loopback

@Suite("Store: watches")
struct StoreWatchTests {
  @Test func theFirstEventFollowsTheReply() {
    var store = StoreDialogue()
    let client = store.client()
    store.send(client, .watch, "/not/there|token|")
    #expect(store.heard(client) == ["reply OK|", "event /not/there|token|"])
  }

  /// A watch on /w/a; what happens; what is heard.
  @Test(
    arguments: [
      (.write, "/w/a|2", ["/w/a"]), (.write, "/w/a/b|2", ["/w/a/b"]),
      (.write, "/w/a/n/e/w|2", ["/w/a/n/e/w"]),
      (.write, "/w/ab|2", []), (.write, "/w|2", []), (.makeDirectory, "/w/a/new|", ["/w/a/new"]),
      (.makeDirectory, "/w/a/b|", []), (.setPermissions, "/w/a|n3|", ["/w/a"]),
      (.remove, "/w/a/b|", ["/w/a/b"]), (.remove, "/w/a|", ["/w/a"]), (.remove, "/w/a/none|", []),
      // Gone with its parent: the watcher hears its own path.
      (.remove, "/w|", ["/w/a"]), (.read, "/w/a|", []),
    ] as [(StoreMessageType, String, [String])])
  func whatIsHeard(type: StoreMessageType, payload: String, events: [String]) {
    var store = StoreDialogue()
    let (watcher, writer) = (store.client(), store.client())
    _ = store.ask(writer, .write, "/w/a/b|1")
    _ = store.ask(watcher, .watch, "/w/a|t|")
    let reply = store.ask(writer, type, payload)
    #expect(!reply.hasPrefix("E"))
    #expect(store.heard(watcher) == events.map { "event \($0)|t|" })
  }

  @Test func refusedChangesAreNotHeard() {
    var store = StoreDialogue()
    let (watcher, guest) = (store.client(), store.client(7))
    _ = store.ask(watcher, .watch, "/|t|")
    for (type, payload) in [(StoreMessageType.write, "/x|1"), (.remove, "/tool|"), (.makeDirectory, "/x|")] {
      #expect(store.ask(guest, type, payload) == "EACCES|")
    }
    #expect(store.heard(watcher) == [])
  }

  @Test func theRootSeesAllButSpecials() {
    var store = StoreDialogue()
    let (watcher, writer) = (store.client(), store.client())
    _ = store.ask(watcher, .watch, "/|t|")
    _ = store.ask(writer, .write, "/x/y|1")
    _ = store.ask(writer, .setPermissions, "@releaseDomain|n0|r7|")
    store.core.introduce(domain: 9)
    #expect(store.heard(watcher) == ["event /x/y|t|"])
  }

  @Test func removalTellsTheInsideFirst() {
    var store = StoreDialogue()
    let (watcher, writer) = (store.client(), store.client())
    for path in ["/w/a/x", "/w/a/y"] { _ = store.ask(writer, .write, "\(path)|1") }
    for path in ["/w/a/y", "/w/a", "/w", "/w/a/x"] { _ = store.ask(watcher, .watch, "\(path)|t|") }
    _ = store.ask(writer, .remove, "/w|")
    #expect(
      store.heard(watcher) == ["event /w/a/x|t|", "event /w/a/y|t|", "event /w/a|t|", "event /w|t|"])
  }

  @Test func relativeWatchesReportRelativePaths() {
    var store = StoreDialogue()
    store.core.makeHome(of: 7)
    let (dom0, guest) = (store.client(), store.client(7))
    store.send(guest, .watch, "device/vbd|t|")
    #expect(store.heard(guest) == ["reply OK|", "event device/vbd|t|"])
    _ = store.ask(guest, .watch, "/local/domain/7/device|absolute|")
    _ = store.ask(dom0, .write, "/local/domain/7/device/vbd/768|")
    #expect(
      store.heard(guest) == [
        "event device/vbd/768|t|", "event /local/domain/7/device/vbd/768|absolute|",
      ])
    // The two forms name the same watch.
    #expect(store.ask(guest, .watch, "/local/domain/7/device/vbd|t|") == "EEXIST|")
    #expect(store.ask(guest, .unwatch, "/local/domain/7/device/vbd|t|") == "OK|")
    #expect(store.ask(guest, .unwatch, "device|absolute|") == "OK|")
    #expect(store.ask(guest, .unwatch, "device|absolute|") == "ENOENT|")
  }

  @Test func oneTokenPerWatch() {
    var store = StoreDialogue()
    let client = store.client()
    #expect(store.ask(client, .watch, "/a|1|") == "OK|")
    #expect(store.ask(client, .watch, "/a|1|") == "EEXIST|")
    #expect(store.ask(client, .watch, "/a|2|") == "OK|")
    #expect(store.ask(client, .watch, "/a||") == "OK|")
    #expect(store.ask(client, .watch, "/a|1|0|") == "EINVAL|")
    #expect(store.ask(client, .watch, "/a|") == "EINVAL|")
    #expect(store.ask(client, .watch, "/a/|1|") == "EINVAL|")
    #expect(store.ask(client, .unwatch, "/a|3|") == "ENOENT|")
    #expect(store.ask(client, .unwatch, "/a|") == "EINVAL|")
    _ = store.heard(client)
    _ = store.ask(client, .unwatch, "/a|1|")
    store.send(client, .write, "/a|x")
    // Events of one's own change come before its reply.
    #expect(store.heard(client) == ["event /a|2|", "event /a||", "reply OK|"])
    #expect(store.ask(client, .resetWatches, "|") == "OK|")
    store.send(client, .write, "/a|y")
    #expect(store.heard(client) == ["reply OK|"])
  }

  /// The same event twice in a queue says nothing more than once.
  @Test func waitingDuplicatesAreDropped() {
    var store = StoreDialogue()
    let (watcher, writer) = (store.client(), store.client())
    _ = store.ask(watcher, .watch, "/a|t|")
    for value in 1...5 { _ = store.ask(writer, .write, "/a|\(value)") }
    #expect(store.heard(watcher) == ["event /a|t|"])
    _ = store.ask(writer, .write, "/a|6")
    #expect(store.heard(watcher) == ["event /a|t|"])
  }

  @Test func onlyReadableNodesAreHeardOf() {
    var store = StoreDialogue()
    let (dom0, guest) = (store.client(), store.client(7))
    _ = store.ask(guest, .watch, "/w|t|")
    _ = store.ask(dom0, .write, "/w/hidden|1")
    #expect(store.heard(guest) == [])
    _ = store.ask(dom0, .write, "/w/shown|1")
    // Becoming readable is heard, and so is ceasing to be.
    _ = store.ask(dom0, .setPermissions, "/w/shown|n0|r7|")
    #expect(store.heard(guest) == ["event /w/shown|t|"])
    _ = store.ask(dom0, .write, "/w/shown|2")
    #expect(store.heard(guest) == ["event /w/shown|t|"])
    _ = store.ask(dom0, .setPermissions, "/w/shown|n0|")
    #expect(store.heard(guest) == ["event /w/shown|t|"])
    _ = store.ask(dom0, .write, "/w/shown|3")
    _ = store.ask(dom0, .remove, "/w/shown|")
    #expect(store.heard(guest) == [])
    // Whoever may read the parent hears that a child comes and goes.
    _ = store.ask(dom0, .setPermissions, "/w|n0|r7|")
    #expect(store.heard(guest) == ["event /w|t|"])
    _ = store.ask(dom0, .write, "/w/x|1")
    _ = store.ask(dom0, .setPermissions, "/w/x|n0|")
    _ = store.heard(guest)
    _ = store.ask(dom0, .write, "/w/x|2")
    #expect(store.heard(guest) == ["event /w/x|t|"])
    _ = store.ask(dom0, .remove, "/w/x|")
    #expect(store.heard(guest) == ["event /w/x|t|"])
  }

  @Test func transactionsFireWhenTheyEnd() {
    var store = StoreDialogue()
    let (watcher, writer) = (store.client(), store.client())
    _ = store.ask(writer, .write, "/w/old/child|1")
    for path in ["/w", "/w/old/child"] { _ = store.ask(watcher, .watch, "\(path)|t|") }
    for end in ["F", "T"] {
      let transaction = UInt32(store.ask(writer, .transactionStart, "|").dropLast()) ?? 0
      for value in 1...3 { _ = store.ask(writer, .write, "/w/a|\(value)", transaction: transaction) }
      _ = store.ask(writer, .read, "/w/old|", transaction: transaction)
      _ = store.ask(writer, .remove, "/w/old|", transaction: transaction)
      _ = store.ask(writer, .makeDirectory, "/w/b/c|", transaction: transaction)
      #expect(store.heard(watcher) == [])
      #expect(store.ask(writer, .transactionEnd, "\(end)|", transaction: transaction) == "OK|")
      let heard = ["/w/a", "/w/old", "/w/old/child", "/w/b/c"].map { "event \($0)|t|" }
      #expect(store.heard(watcher) == (end == "T" ? heard : []))
    }
  }

  /// Written first and then gone with its parent: what was to be heard of the writing is heard still.
  @Test func theWidestReachOfATransactionCounts() {
    var store = StoreDialogue()
    let (watcher, writer) = (store.client(), store.client())
    for name in ["x", "y"] { _ = store.ask(writer, .write, "/w/\(name)|1") }
    _ = store.ask(watcher, .watch, "/w|t|")
    let transaction = UInt32(store.ask(writer, .transactionStart, "|").dropLast()) ?? 0
    _ = store.ask(writer, .write, "/w/x|2", transaction: transaction)
    _ = store.ask(writer, .remove, "/w|", transaction: transaction)
    #expect(store.ask(writer, .transactionEnd, "T|", transaction: transaction) == "OK|")
    #expect(store.heard(watcher) == ["event /w/x|t|", "event /w|t|"])
  }

  /// A transaction that ends in EAGAIN was never there.
  @Test func conflictsFireNothing() {
    var store = StoreDialogue()
    let (watcher, writer) = (store.client(), store.client())
    let transaction = UInt32(store.ask(writer, .transactionStart, "|").dropLast()) ?? 0
    _ = store.ask(writer, .write, "/a|1", transaction: transaction)
    _ = store.ask(watcher, .write, "/a|2")
    _ = store.ask(watcher, .watch, "/|t|")
    #expect(store.ask(writer, .transactionEnd, "T|", transaction: transaction) == "EAGAIN|")
    #expect(store.heard(watcher) == [])
  }

  @Test func removedInATransactionIsHeardByThoseWhoCouldRead() {
    var store = StoreDialogue()
    let (dom0, guest) = (store.client(), store.client(7))
    for name in ["open", "closed"] { _ = store.ask(dom0, .write, "/w/\(name)|1") }
    _ = store.ask(dom0, .setPermissions, "/w/open|n0|r7|")
    for name in ["open", "closed"] { _ = store.ask(guest, .watch, "/w/\(name)|t|") }
    let transaction = UInt32(store.ask(dom0, .transactionStart, "|").dropLast()) ?? 0
    _ = store.ask(dom0, .remove, "/w|", transaction: transaction)
    #expect(store.ask(dom0, .transactionEnd, "T|", transaction: transaction) == "OK|")
    #expect(store.heard(guest) == ["event /w/open|t|"])
  }

  @Test func overlongEventsAreDropped() {
    var store = StoreDialogue()
    let client = store.client()
    let token = String(repeating: "t", count: 4000)
    #expect(store.ask(client, .watch, "/a|\(token)|") == "OK|")
    // The first event fits, one for a path of 100 bytes more does not; 4096 exactly fits.
    let name = String(repeating: "n", count: 4096 - 4000 - 2 - 3)
    store.send(client, .write, "/a/\(name)|")
    #expect(store.messages(client).map(\.payload.count) == [4096, 3])
    store.send(client, .write, "/a/\(name)n|")
    #expect(store.heard(client) == ["reply OK|"])
    #expect(store.core.isOpen(client))
  }

  @Test func domainsComeAndGo() {
    var store = StoreDialogue()
    let (dom0, guest, other) = (store.client(), store.client(7), store.client(8))
    for client in [dom0, guest, other] {
      for special in ["@introduceDomain", "@releaseDomain"] {
        store.send(client, .watch, "\(special)|t|")
        #expect(store.heard(client) == ["reply OK|", "event \(special)|t|"])
      }
    }
    #expect(store.ask(dom0, .isDomainIntroduced, "7|") == "F|")
    #expect(store.ask(guest, .introduce, "7|1|1|") == "EACCES|")
    #expect(store.ask(dom0, .introduce, "7|1|0|") == "EINVAL|")
    #expect(store.ask(dom0, .introduce, "7|1|") == "EINVAL|")
    #expect(store.ask(dom0, .introduce, "7|1|5|") == "OK|")
    #expect(store.ask(dom0, .isDomainIntroduced, "7|") == "T|")
    store.core.introduce(domain: 8)
    #expect(store.heard(dom0) == ["event @introduceDomain|t|"])
    // Guests hear of it when they are let.
    #expect(store.heard(other) == [])
    #expect(store.ask(dom0, .setPermissions, "@releaseDomain|n0|r8|") == "OK|")
    _ = store.heard(dom0)
    _ = store.heard(other)
    #expect(store.ask(guest, .release, "7|") == "EACCES|")
    #expect(store.ask(dom0, .release, "0|") == "EINVAL|")
    #expect(store.ask(dom0, .release, "9|") == "ENOENT|")
    #expect(store.ask(dom0, .release, "7|") == "OK|")
    #expect(store.heard(other) == ["event @releaseDomain|t|"])
    #expect(!store.core.isOpen(guest))
    #expect(store.ask(dom0, .isDomainIntroduced, "7|") == "F|")
    #expect(store.ask(dom0, .release, "7|") == "ENOENT|")
  }

  @Test func releasedDomainsLeaveNothing() {
    var store = StoreDialogue()
    let dom0 = store.client()
    store.core.makeHome(of: 7)
    store.core.introduce(domain: 7)
    let guest = store.client(7)
    let transaction = store.ask(guest, .transactionStart, "|")
    #expect(transaction != "0|")
    _ = store.ask(guest, .write, "data/deep|1")
    _ = store.ask(guest, .watch, "data|t|")
    for (path, permissions) in [("/b/7/x", "n0|r7|w9|"), ("/elsewhere", "b7|"), ("/b/8", "n8|b7|")] {
      _ = store.ask(dom0, .write, "\(path)|1")
      _ = store.ask(dom0, .setPermissions, "\(path)|\(permissions)")
    }
    _ = store.ask(dom0, .watch, "/|t|")
    _ = store.heard(dom0)
    store.core.release(domain: 7)
    // A watch above hears of each removal once, not of what went with it.
    #expect(store.heard(dom0) == ["event /elsewhere|t|", "event /local/domain/7|t|"])
    #expect(store.ask(dom0, .read, "/elsewhere|") == "ENOENT|")
    #expect(store.ask(dom0, .directory, "/local/domain|") == "0|")
    #expect(store.ask(dom0, .getPermissions, "/b/7/x|") == "n0|w9|")
    #expect(store.ask(dom0, .getPermissions, "/b/8|") == "n8|")
    #expect(store.core.tree.forest.nodeCount(ownedBy: 7) == 0)
    #expect(store.core.isConsistent)
    // The next domain of that number starts anew.
    let next = store.client(7)
    #expect(store.ask(next, .read, "/b/7/x|") == "EACCES|")
    #expect(store.ask(next, .transactionEnd, "F|", transaction: 1) == "ENOENT|")
  }

  @Test func introducedAgainStartsAnew() {
    var store = StoreDialogue()
    let dom0 = store.client()
    store.core.makeHome(of: 7)
    store.core.introduce(domain: 7)
    let guest = store.client(7)
    _ = store.ask(guest, .watch, "domid|t|")
    _ = store.ask(dom0, .watch, "@introduceDomain|t|")
    _ = store.heard(guest)
    _ = store.heard(dom0)
    #expect(store.ask(dom0, .introduce, "7|1|5|") == "OK|")
    #expect(store.heard(dom0) == [])
    _ = store.ask(dom0, .write, "/local/domain/7/domid|x")
    #expect(store.heard(guest) == [])
    #expect(store.core.isOpen(guest))
  }
}
