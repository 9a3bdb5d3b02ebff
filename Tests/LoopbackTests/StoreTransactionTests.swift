import Testing

@testable import Loopback

@Suite("Store: transactions")
struct StoreTransactionTests {
  private static func start(_ store: inout StoreDialogue, _ client: Int) -> UInt32 {
    UInt32(store.ask(client, .transactionStart, "|").dropLast()) ?? 0
  }

  @Test func seesTheStoreOfItsStart() {
    var store = StoreDialogue()
    let (one, two) = (store.client(), store.client())
    _ = store.ask(one, .write, "/a|old")
    let transaction = Self.start(&store, one)
    _ = store.ask(two, .write, "/a|new")
    _ = store.ask(two, .write, "/b|new")
    #expect(store.ask(one, .read, "/a|", transaction: transaction) == "old")
    #expect(store.ask(one, .read, "/b|", transaction: transaction) == "ENOENT|")
    #expect(store.ask(one, .transactionEnd, "T|", transaction: transaction) == "EAGAIN|")
  }

  @Test func changesShowAtTheEnd() {
    var store = StoreDialogue()
    let (one, two) = (store.client(), store.client())
    _ = store.ask(one, .write, "/gone/below|1")
    let transaction = Self.start(&store, one)
    #expect(store.ask(one, .write, "/a/b|1", transaction: transaction) == "OK|")
    #expect(store.ask(one, .setPermissions, "/a/b|n3|r4|", transaction: transaction) == "OK|")
    #expect(store.ask(one, .remove, "/gone|", transaction: transaction) == "OK|")
    #expect(store.ask(one, .directory, "/a|", transaction: transaction) == "b|")
    #expect(store.ask(two, .read, "/a/b|") == "ENOENT|")
    #expect(store.ask(two, .read, "/gone/below|") == "1")
    #expect(store.ask(one, .transactionEnd, "T|", transaction: transaction) == "OK|")
    #expect(store.ask(two, .read, "/a/b|") == "1")
    #expect(store.ask(two, .getPermissions, "/a/b|") == "n3|r4|")
    #expect(store.ask(two, .read, "/gone/below|") == "ENOENT|")
    #expect(store.core.isConsistent)
  }

  @Test func discardedOnRequest() {
    var store = StoreDialogue()
    let client = store.client()
    let transaction = Self.start(&store, client)
    _ = store.ask(client, .write, "/a|1", transaction: transaction)
    #expect(store.ask(client, .transactionEnd, "F|", transaction: transaction) == "OK|")
    #expect(store.ask(client, .read, "/a|") == "ENOENT|")
  }

  /// What one does inside a transaction, what another does meanwhile, and whether that is a conflict.
  @Test(
    arguments: [
      // The same node.
      ([(.read, "/a/x|")], [(.write, "/a/x|2")], true),
      ([(.write, "/a/x|1")], [(.write, "/a/x|2")], true),
      ([(.getPermissions, "/a/x|")], [(.setPermissions, "/a/x|n3|")], true),
      ([(.directory, "/a|")], [(.write, "/a/new|")], true),
      ([(.directory, "/a|")], [(.remove, "/a/x|")], true),
      ([(.read, "/a/x|")], [(.remove, "/a|")], true),
      ([(.remove, "/a|")], [(.write, "/a/x|2")], true),
      ([(.read, "/a/none|")], [(.write, "/a/none|2")], true),
      // Two new children of one parent.
      ([(.write, "/a/one|")], [(.write, "/a/two|")], true),
      // Different nodes.
      ([(.read, "/a/x|")], [(.write, "/a/y|2")], false),
      ([(.write, "/a/x|1")], [(.write, "/a/y|2")], false),
      ([(.directory, "/a|")], [(.write, "/a/x|2")], false),
      ([(.directory, "/a|")], [(.write, "/a/x/below|2")], false),
      ([(.write, "/a/x/one|")], [(.write, "/a/y/two|")], false),
      ([(.remove, "/a/x|")], [(.write, "/a/y|2")], false),
      ([(.read, "/a/x|")], [(.read, "/a/x|"), (.makeDirectory, "/a/x|")], false),
      // Watched, not read: no conflict.
      ([(.getDomainPath, "7|")], [(.write, "/a/x|2")], false),
    ] as [([(StoreMessageType, String)], [(StoreMessageType, String)], Bool)])
  func conflicts(
    inside: [(StoreMessageType, String)], meanwhile: [(StoreMessageType, String)], conflict: Bool
  ) {
    var store = StoreDialogue()
    let (one, two) = (store.client(), store.client())
    for name in ["x", "y"] { _ = store.ask(one, .write, "/a/\(name)|0") }
    let transaction = Self.start(&store, one)
    for (type, payload) in inside { _ = store.ask(one, type, payload, transaction: transaction) }
    for (type, payload) in meanwhile { _ = store.ask(two, type, payload) }
    let before = store.ask(two, .directory, "/a|")
    let reply = store.ask(one, .transactionEnd, "T|", transaction: transaction)
    #expect(reply == (conflict ? "EAGAIN|" : "OK|"))
    if conflict { #expect(store.ask(two, .directory, "/a|") == before) }
    #expect(store.core.isConsistent)
  }

  @Test func mergesWithWhatOthersDid() {
    var store = StoreDialogue()
    let (one, two) = (store.client(), store.client())
    for name in ["x", "y"] { _ = store.ask(one, .write, "/\(name)/node|0") }
    let first = Self.start(&store, one)
    let second = Self.start(&store, two)
    _ = store.ask(one, .write, "/x/node/deep/er|1", transaction: first)
    _ = store.ask(two, .remove, "/y/node|", transaction: second)
    _ = store.ask(two, .write, "/y/other|2", transaction: second)
    #expect(store.ask(one, .transactionEnd, "T|", transaction: first) == "OK|")
    #expect(store.ask(two, .transactionEnd, "T|", transaction: second) == "OK|")
    #expect(store.ask(one, .read, "/x/node/deep/er|") == "1")
    #expect(store.ask(one, .directory, "/y|") == "other|")
    #expect(store.core.isConsistent)
  }

  @Test func removedAndMadeAgain() {
    var store = StoreDialogue()
    let (one, two) = (store.client(), store.client())
    for name in ["p", "q"] { _ = store.ask(one, .write, "/a/\(name)|0") }
    let transaction = Self.start(&store, one)
    _ = store.ask(one, .remove, "/a|", transaction: transaction)
    _ = store.ask(one, .write, "/a/r|1", transaction: transaction)
    _ = store.ask(two, .write, "/elsewhere/x|1")
    #expect(store.ask(one, .transactionEnd, "T|", transaction: transaction) == "EAGAIN|")
    // The root's children changed above; below a branch that exists there is no conflict.
    let again = Self.start(&store, one)
    _ = store.ask(one, .remove, "/a|", transaction: again)
    _ = store.ask(one, .write, "/a/r|1", transaction: again)
    _ = store.ask(two, .write, "/elsewhere/y|1")
    #expect(store.ask(one, .transactionEnd, "T|", transaction: again) == "OK|")
    #expect(store.ask(one, .directory, "/a|") == "r|")
    #expect(store.core.isConsistent)
  }

  @Test func identifiers() {
    var store = StoreDialogue()
    let (one, two) = (store.client(), store.client())
    let transaction = Self.start(&store, one)
    #expect(transaction != 0)
    #expect(store.ask(one, .transactionStart, "|", transaction: transaction) == "EBUSY|")
    #expect(store.ask(one, .transactionEnd, "T|") == "ENOENT|")
    #expect(store.ask(one, .transactionEnd, "T|", transaction: transaction &+ 1) == "ENOENT|")
    #expect(store.ask(one, .transactionEnd, "X|", transaction: transaction) == "EINVAL|")
    #expect(store.ask(one, .transactionEnd, "TT|", transaction: transaction) == "EINVAL|")
    #expect(store.ask(one, .transactionEnd, "|", transaction: transaction) == "EINVAL|")
    // Ids belong to a connection.
    #expect(store.ask(two, .read, "/tool|", transaction: transaction) == "ENOENT|")
    #expect(store.ask(two, .transactionEnd, "F|", transaction: transaction) == "ENOENT|")
    // A watch ignores the id.
    #expect(store.ask(two, .watch, "/a|t|", transaction: 99) == "OK|")
    #expect(store.ask(two, .unwatch, "/a|t|", transaction: 99) == "OK|")
    #expect(store.ask(one, .transactionEnd, "F|", transaction: transaction) == "OK|")
    #expect(store.ask(one, .transactionEnd, "F|", transaction: transaction) == "ENOENT|")
    #expect(store.ask(one, .read, "/tool|", transaction: transaction) == "ENOENT|")
  }

  @Test func resetEndsThemAll() {
    var store = StoreDialogue()
    let client = store.client()
    let transaction = Self.start(&store, client)
    _ = store.ask(client, .write, "/a|1", transaction: transaction)
    #expect(store.ask(client, .resetWatches, "|") == "OK|")
    #expect(store.ask(client, .transactionEnd, "T|", transaction: transaction) == "ENOENT|")
    #expect(store.ask(client, .read, "/a|") == "ENOENT|")
  }

  /// Rights are those of the caller inside a transaction too.
  @Test func permissionsHoldInside() {
    var store = StoreDialogue()
    let guest = store.client(7)
    let transaction = Self.start(&store, guest)
    #expect(store.ask(guest, .write, "/tool/x|1", transaction: transaction) == "EACCES|")
    #expect(store.ask(guest, .read, "/local/domain/0/name|", transaction: transaction) == "EACCES|")
  }

  /// One that retries on EAGAIN gets there, whatever others do in between: no lost update.
  @Test func countersAddUp() {
    var store = StoreDialogue()
    let clients = (0..<3).map { _ in store.client() }
    _ = store.ask(clients[0], .write, "/count|0")
    var state: UInt64 = 0x5eed
    var open: [Int: (UInt32, Int)] = [:]
    var committed = 0
    for _ in 0..<2000 {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      let client = clients[Int(state >> 33) % clients.count]
      if let (transaction, value) = open[client] {
        _ = store.ask(client, .write, "/count|\(value + 1)", transaction: transaction)
        let reply = store.ask(client, .transactionEnd, "T|", transaction: transaction)
        if reply == "OK|" { committed += 1 } else { #expect(reply == "EAGAIN|") }
        open[client] = nil
      } else {
        let transaction = Self.start(&store, client)
        open[client] = (transaction, Int(store.ask(client, .read, "/count|", transaction: transaction)) ?? -1)
      }
    }
    #expect(committed > 100)
    #expect(store.ask(clients[0], .read, "/count|") == "\(committed)")
  }
}
