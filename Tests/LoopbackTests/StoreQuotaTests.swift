import Testing

@testable import Loopback

/// The limits of an unprivileged domain, each reached exactly and then exceeded by one.
@Suite("Store: quotas")
struct StoreQuotaTests {
  static func guestStore(_ quota: StoreQuota = StoreQuota()) -> (StoreDialogue, Int, Int) {
    var store = StoreDialogue(quota: quota)
    store.core.makeHome(of: 7)
    store.core.introduce(domain: 7)
    let dom0 = store.client()
    let guest = store.client(7)
    return (store, dom0, guest)
  }

  @Test func defaults() {
    let quota = StoreQuota()
    #expect(quota.nodes == 1000 && quota.watches == 128 && quota.transactions == 10)
    #expect(quota.nodeSizeBytes == 2048 && quota.outstandingRequests == 20 && quota.pathBytes == 2048)
    #expect(quota.permissionsPerNode == 5 && quota.transactionNodes == 1024)
  }

  @Test func nodes() {
    var quota = StoreQuota()
    quota.nodes = 10
    var (store, dom0, guest) = Self.guestStore(quota)
    // The home itself is the domain's first node.
    for number in 1...9 { #expect(store.ask(guest, .write, "n\(number)|") == "OK|") }
    #expect(store.ask(guest, .write, "n10|") == "ENOSPC|")
    #expect(store.ask(guest, .makeDirectory, "n10|") == "ENOSPC|")
    // Nothing of a refused path is left, however deep it was.
    #expect(store.ask(guest, .remove, "n9|") == "OK|")
    #expect(store.ask(guest, .write, "a/b/c|") == "ENOSPC|")
    #expect(store.ask(guest, .directory, "/local/domain/7|") == "domid|n1|n2|n3|n4|n5|n6|n7|n8|")
    #expect(store.ask(guest, .write, "n9|") == "OK|")
    // Changing what is there costs nothing, and domain 0 may give more.
    #expect(store.ask(guest, .write, "n1|again") == "OK|")
    #expect(store.ask(dom0, .write, "/local/domain/7/more/and/more|") == "OK|")
    #expect(store.core.isConsistent)
  }

  @Test func nodesOfATransaction() {
    var quota = StoreQuota()
    quota.nodes = 10
    var (store, _, guest) = Self.guestStore(quota)
    let first = UInt32(store.ask(guest, .transactionStart, "|").dropLast()) ?? 0
    let second = UInt32(store.ask(guest, .transactionStart, "|").dropLast()) ?? 0
    for number in 1...6 {
      #expect(store.ask(guest, .write, "d1/n\(number)|", transaction: first) == "OK|")
    }
    #expect(store.ask(guest, .transactionEnd, "T|", transaction: first) == "OK|")
    // The second sees its own copy, in which there is room; at its end there is none.
    #expect(store.ask(guest, .write, "d1|", transaction: second) == "OK|")
    #expect(store.ask(guest, .transactionEnd, "T|", transaction: second) == "EAGAIN|")
    let third = UInt32(store.ask(guest, .transactionStart, "|").dropLast()) ?? 0
    #expect(store.ask(guest, .write, "d1/x|", transaction: third) == "OK|")
    for name in ["y", "z"] { _ = store.ask(guest, .write, "d1/n1/\(name)|") }
    #expect(store.ask(guest, .transactionEnd, "T|", transaction: third) == "ENOSPC|")
    #expect(store.ask(guest, .read, "d1/x|") == "ENOENT|")
  }

  /// A domain that was given more than its quota can still end transactions that add nothing.
  @Test func transactionsBeyondTheQuota() {
    var quota = StoreQuota()
    quota.nodes = 3
    var (store, dom0, guest) = Self.guestStore(quota)
    for number in 1...5 { _ = store.ask(dom0, .write, "/local/domain/7/n\(number)|") }
    for (payload, reply) in [("n1|x", "OK|"), ("n2/new|x", "ENOSPC|")] {
      let transaction = UInt32(store.ask(guest, .transactionStart, "|").dropLast()) ?? 0
      #expect(store.ask(guest, .write, payload, transaction: transaction) == reply)
      #expect(store.ask(guest, .transactionEnd, "T|", transaction: transaction) == "OK|")
    }
    #expect(store.ask(guest, .read, "n1|") == "x")
  }

  @Test func nodeSize() {
    var (store, dom0, guest) = Self.guestStore()
    // 16 of overhead and one permission of 8; the size must stay below 2048.
    let largest = String(repeating: "v", count: 2047 - 24)
    #expect(store.ask(guest, .write, "big|" + largest) == "OK|")
    #expect(store.ask(guest, .write, "big|" + largest + "v") == "ENOSPC|")
    #expect(store.ask(guest, .read, "big|") == largest)
    // Child names and permissions count as well.
    #expect(store.ask(guest, .write, "big/child|") == "ENOSPC|")
    #expect(store.ask(guest, .setPermissions, "big|n7|r3|") == "ENOSPC|")
    #expect(store.ask(dom0, .write, "/local/domain/7/big|" + largest + largest) == "OK|")
    // What is too big may still go.
    #expect(store.ask(guest, .remove, "big|") == "OK|")
  }

  @Test func permissions() {
    var (store, dom0, guest) = Self.guestStore()
    _ = store.ask(guest, .write, "node|")
    #expect(store.ask(guest, .setPermissions, "node|n7|r1|r2|r3|r4|") == "OK|")
    #expect(store.ask(guest, .setPermissions, "node|n7|r1|r2|r3|r4|r5|") == "ENOSPC|")
    #expect(store.ask(dom0, .setPermissions, "/local/domain/7/node|n7|r1|r2|r3|r4|r5|") == "OK|")
  }

  @Test func watchesOfAllConnections() {
    var (store, dom0, guest) = Self.guestStore()
    let other = store.client(7)
    for number in 1...64 {
      #expect(store.ask(guest, .watch, "w|\(number)|") == "OK|")
      #expect(store.ask(other, .watch, "w|\(number)|") == "OK|")
    }
    #expect(store.ask(guest, .watch, "w|one-more|") == "ENOSPC|")
    #expect(store.ask(other, .unwatch, "w|1|") == "OK|")
    #expect(store.ask(guest, .watch, "w|one-more|") == "OK|")
    for number in 1...300 { #expect(store.ask(dom0, .watch, "/w|\(number)|") == "OK|") }
  }

  @Test func transactionsOfAllConnections() {
    var (store, dom0, guest) = Self.guestStore()
    let other = store.client(7)
    for _ in 1...5 {
      #expect(UInt32(store.ask(guest, .transactionStart, "|").dropLast()) != nil)
      #expect(UInt32(store.ask(other, .transactionStart, "|").dropLast()) != nil)
    }
    #expect(store.ask(guest, .transactionStart, "|") == "ENOSPC|")
    store.core.disconnect(other)
    #expect(UInt32(store.ask(guest, .transactionStart, "|").dropLast()) != nil)
    for _ in 1...50 { #expect(UInt32(store.ask(dom0, .transactionStart, "|").dropLast()) != nil) }
  }

  @Test func nodesLookedAtInATransaction() {
    var quota = StoreQuota()
    quota.transactionNodes = 5
    var (store, _, guest) = Self.guestStore(quota)
    let transaction = UInt32(store.ask(guest, .transactionStart, "|").dropLast()) ?? 0
    _ = store.ask(guest, .write, "a|1", transaction: transaction)
    // That looked at the node and at its parent; three more may follow.
    for name in ["b", "c", "d"] {
      #expect(store.ask(guest, .read, "\(name)|", transaction: transaction) == "ENOENT|")
    }
    #expect(store.ask(guest, .read, "e|", transaction: transaction) == "ENOSPC|")
    #expect(store.ask(guest, .read, "a|", transaction: transaction) == "1")
  }

  /// A guest that does not read its replies is not served further, and loses nothing.
  @Test func outstandingReplies() {
    var (store, _, guest) = Self.guestStore()
    for _ in 1...30 { store.send(guest, .read, "domid|") }
    #expect(!store.core.wantsInput(guest))
    #expect(store.messages(guest).count == 30)
    #expect(store.core.wantsInput(guest))
  }

  /// Domain 0 is not limited in requests, but it too has to read before it is answered further.
  @Test func repliesForDomainZeroAreBounded() {
    var (store, dom0, _) = Self.guestStore()
    _ = store.ask(dom0, .write, "/big|" + String(repeating: "v", count: 4000))
    let request = StoreMessage(type: 2, request: 0, transaction: 0, payload: Array("/big\0".utf8)).encoded
    store.core.receive((0..<1000).flatMap { _ in request }, from: dom0)
    #expect(!store.core.wantsInput(dom0))
    #expect(store.messages(dom0).count == 1000)
    #expect(store.core.wantsInput(dom0))
  }

  /// XSA-326: the events a guest causes count until whoever watches has been sent them.
  @Test func outstandingEvents() {
    var (store, dom0, guest) = Self.guestStore()
    #expect(store.ask(dom0, .watch, "/local/domain/7|t|") == "OK|")
    for number in 1...30 { store.send(guest, .write, "n\(number)|") }
    // Its own replies are read, the events are not.
    #expect(store.messages(guest).count == 20)
    #expect(!store.core.wantsInput(guest))
    #expect(store.heard(dom0).count == 30)
    #expect(store.messages(guest).count == 10)
    #expect(store.core.wantsInput(guest))
  }

  /// A watcher that disappears without reading does not block the guest for ever.
  @Test func outstandingEventsOfADeadWatcher() {
    var (store, dom0, guest) = Self.guestStore()
    #expect(store.ask(dom0, .watch, "/local/domain/7|t|") == "OK|")
    for number in 1...30 { store.send(guest, .write, "n\(number)|") }
    _ = store.messages(guest)
    #expect(!store.core.wantsInput(guest))
    store.core.disconnect(dom0)
    #expect(store.messages(guest).count == 10)
    #expect(store.core.wantsInput(guest))
  }

  /// Output is bounded: an unprivileged domain loses events, a client of domain 0 is given up.
  @Test func outputBound() {
    var (store, dom0, guest) = Self.guestStore()
    let token = String(repeating: "t", count: 3900)
    for client in [dom0, guest] { #expect(store.ask(client, .watch, "/local/domain/7|\(token)|") == "OK|") }
    let writer = store.client()
    let limit = StoreQuota().outputBytes
    // Fewer events than fit first, then one that is too much.
    let events = StoreConnection.outputBytesMax / (token.utf8.count + 40)
    for number in 0..<(events + 100) {
      if number < events { #expect(store.core.isOpen(dom0)) }
      #expect(store.ask(writer, .write, "/local/domain/7/\(number / 100)/\(number % 100)|") == "OK|")
    }
    #expect(!store.core.isOpen(dom0))
    #expect(store.core.isOpen(guest))
    let delivered = store.messages(guest).reduce(0) { $0 + 16 + $1.payload.count }
    #expect(delivered <= limit && delivered > limit - 5000)
  }
}
