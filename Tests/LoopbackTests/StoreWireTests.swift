import CXen
import Testing

@testable import Loopback

@Suite("Store: wire")
struct StoreWireTests {
  @Test func headerLayout() {
    let message = StoreMessage(type: 2, request: 0x0102_0304, transaction: 0xFFFF_FFF0, payload: [65, 0])
    #expect(message.encoded == [2, 0, 0, 0, 4, 3, 2, 1, 0xF0, 0xFF, 0xFF, 0xFF, 2, 0, 0, 0, 65, 0])
  }

  /// Numbers, names and limits against xs_wire.h itself.
  @Test func numbersOfTheHeader() {
    let table: [(StoreMessageType, xsd_sockmsg_type)] = [
      (.control, XS_CONTROL), (.directory, XS_DIRECTORY), (.read, XS_READ), (.getPermissions, XS_GET_PERMS),
      (.watch, XS_WATCH), (.unwatch, XS_UNWATCH), (.transactionStart, XS_TRANSACTION_START),
      (.transactionEnd, XS_TRANSACTION_END), (.introduce, XS_INTRODUCE), (.release, XS_RELEASE),
      (.getDomainPath, XS_GET_DOMAIN_PATH), (.write, XS_WRITE), (.makeDirectory, XS_MKDIR), (.remove, XS_RM),
      (.setPermissions, XS_SET_PERMS), (.watchEvent, XS_WATCH_EVENT), (.error, XS_ERROR),
      (.isDomainIntroduced, XS_IS_DOMAIN_INTRODUCED), (.resume, XS_RESUME), (.setTarget, XS_SET_TARGET),
      (.resetWatches, XS_RESET_WATCHES), (.directoryPart, XS_DIRECTORY_PART),
    ]
    for (ours, theirs) in table { #expect(ours.rawValue == theirs.rawValue, "\(ours)") }
    #expect(table.map(\.0) == StoreMessageType.allCases)
    #expect(Int32(StoreMessage.payloadBytesMax) == XENSTORE_PAYLOAD_MAX)
    #expect(StoreMessage.headerBytes == MemoryLayout<xsd_sockmsg>.size)
    #expect(Int32(NodePath.absoluteBytesMax) == XENSTORE_ABS_PATH_MAX)
    #expect(Int32(NodePath.relativeBytesMax) == XENSTORE_REL_PATH_MAX)
  }

  /// However a stream is cut, the same messages come out, and none before its last byte.
  @Test func everyCut() throws {
    let messages = [
      StoreMessage(type: 2, request: 1, transaction: 0, payload: Array("/a\0".utf8)),
      StoreMessage(type: 6, request: 2, transaction: 0, payload: []),
      StoreMessage(type: 11, request: 3, transaction: 9, payload: Array(repeating: 7, count: 40)),
    ]
    let stream = messages.flatMap(\.encoded)
    let ends = messages.indices.map { messages[...$0].reduce(0) { $0 + $1.encoded.count } }
    for cut in 0...stream.count {
      var reader = StoreFrameReader()
      var found: [StoreMessage] = []
      reader.append(stream[..<cut])
      while let message = try reader.next() { found.append(message) }
      #expect(found.count == ends.filter { $0 <= cut }.count, "cut at \(cut)")
      reader.append(stream[cut...])
      while let message = try reader.next() { found.append(message) }
      #expect(found == messages, "cut at \(cut)")
      #expect(reader.bufferedBytes == 0)
    }
    var reader = StoreFrameReader()
    var found: [StoreMessage] = []
    for byte in stream {
      reader.append([byte])
      while let message = try reader.next() { found.append(message) }
    }
    #expect(found == messages)
  }

  @Test(arguments: [4097, 0x8000_0000, UInt32.max])
  func oversizedClosesTheConnection(length: UInt32) {
    var store = StoreDialogue()
    let client = store.client()
    let other = store.client()
    #expect(store.ask(client, .watch, "/a|t|") == "OK|")
    var bytes = StoreMessage(type: 2, request: 0, transaction: 0, payload: []).encoded
    for index in 0..<4 { bytes[12 + index] = UInt8(truncatingIfNeeded: length >> (8 * UInt32(index))) }
    store.core.receive(bytes, from: client)
    #expect(!store.core.isOpen(client))
    #expect(!store.core.wantsInput(client))
    #expect(store.core.output(for: client).isEmpty)
    #expect(store.ask(other, .read, "/tool|") == "")
  }

  @Test func largestPayload() {
    var store = StoreDialogue()
    let client = store.client()
    let value = [UInt8](repeating: 9, count: 4096 - 3)
    #expect(store.ask(client, type: 11, Array("/a\0".utf8) + value) == "OK|")
    store.send(client, type: 2, Array("/a\0".utf8))
    #expect(store.messages(client).map(\.payload) == [value])
  }

  @Test func typesThatAreNone() {
    var store = StoreDialogue()
    for domain in [0, 7] as [UInt16] {
      let client = store.client(domain)
      for type in [15, 16, 20, 23, 24, 25, 26, 0xFFFF, UInt32.max] as [UInt32] {
        #expect(store.ask(client, type: type, [47, 0]) == "ENOSYS|", "type \(type)")
      }
    }
  }

  @Test func domainZeroOnly() {
    var store = StoreDialogue()
    let guest = store.client(7)
    let types: [StoreMessageType] = [
      .control, .introduce, .release, .isDomainIntroduced, .resume, .setTarget,
    ]
    for type in types {
      #expect(store.ask(guest, type, "7|8|9|") == "EACCES|", "\(type)")
    }
    #expect(store.ask(guest, .getDomainPath, "7|") == "/local/domain/7|")
  }

  @Test func smallRequests() {
    var store = StoreDialogue()
    let client = store.client()
    let table: [(StoreMessageType, String, String)] = [
      (.getDomainPath, "007|", "/local/domain/7|"), (.getDomainPath, "65536|", "EINVAL|"),
      (.getDomainPath, "-1|", "EINVAL|"), (.getDomainPath, "|", "EINVAL|"), (.getDomainPath, "7", "EINVAL|"),
      (.isDomainIntroduced, "0|", "T|"), (.isDomainIntroduced, "3|", "F|"),
      (.isDomainIntroduced, "32752|", "T|"), (.resume, "3|", "ENOENT|"), (.resume, "0|", "EINVAL|"),
      (.control, "check|", "OK|"), (.control, "live-update|", "EINVAL|"), (.control, "", "EINVAL|"),
      (.read, "", "EINVAL|"), (.read, "/tool", "EINVAL|"), (.read, "/tool||", "EINVAL|"),
      (.write, "/x", "EINVAL|"), (.directory, "|", "EINVAL|"), (.setPermissions, "/tool|n0", "EINVAL|"),
      (.read, "name|", "Domain-0"),
    ]
    for (type, payload, reply) in table {
      #expect(store.ask(client, type, payload) == reply, "\(type) \(payload)")
    }
    #expect(store.ask(client, .control, "help|").contains("check"))
    store.core.introduce(domain: 3)
    #expect(store.ask(client, .resume, "3|") == "OK|")
  }

  /// Every type with every truncation of a payload that says something: an answer each, and no trap.
  @Test func everyTruncatedPayload() {
    let payloads = ["/a/b|value|n7|r3|", "T|", "7|8|9|", "@releaseDomain|token|", "x/y|99|", "check|help|"]
    for domain in [0, 7] as [UInt16] {
      for type in 0...24 as ClosedRange<UInt32> {
        for payload in payloads {
          for length in 0...payload.utf8.count {
            var store = StoreDialogue()
            store.core.introduce(domain: 7)
            let client = store.client(domain)
            let bytes = payload.utf8.prefix(length).map { $0 == UInt8(ascii: "|") ? 0 : $0 }
            store.send(client, type: type, bytes)
            let replies = store.messages(client).filter { $0.type != StoreMessageType.watchEvent.rawValue }
            // Domain 0 can end domain 7 and its connection; nothing else leaves a request unanswered.
            let isAnswered = replies.count == 1 || !store.core.isOpen(client)
            #expect(isAnswered, "type \(type) \(payload.prefix(length))")
          }
        }
      }
    }
  }

  /// Seeded clients of three domains send well-formed nonsense, half-formed nonsense and noise. Whatever they
  /// do, nothing traps, every understood request is answered, and the store stays consistent.
  @Test(arguments: [1, 2, 3, 0xFFFF_FFF0] as [UInt64])
  func nonsense(seed: UInt64) {
    var random = SplitMix(state: seed)
    var quota = StoreQuota()
    quota.nodes = 30
    quota.nodeSizeBytes = 200
    var store = StoreDialogue(quota: quota)
    var clients = [0, 0, 7, 7, 8].map { store.client($0) }
    let names = ["a", "b", "/a", "/a/b", "/", "/local/domain/7", "device/x", "@releaseDomain", "//", "", "7"]
    let words = ["n0", "b7", "r8", "T", "F", "0", "7", "8", "check", "token", "99999", "\u{1}"]
    for step in 0..<4000 {
      let slot = Int(random.next() % UInt64(clients.count))
      let client = clients[slot]
      var payload = Array(names[Int(random.next() % UInt64(names.count))].utf8)
      for _ in 0..<(random.next() % 4) {
        payload.append(0)
        payload += Array(words[Int(random.next() % UInt64(words.count))].utf8)
      }
      if random.next() % 8 > 0 { payload.append(0) }
      if random.next() % 16 == 0 { payload = random.bytes(below: 64) }
      let type = random.next() % 26
      let transaction = random.next() % 3 == 0 ? UInt32(random.next() % 4) : 0
      if random.next() % 64 == 0 {
        store.core.receive(random.bytes(below: 48), from: client)
      } else {
        store.send(client, type: UInt32(type), payload, transaction: transaction)
      }
      if random.next() % 3 > 0 { for client in clients { _ = store.messages(client) } }
      if random.next() % 200 == 0 { store.core.introduce(domain: 7 + UInt16(random.next() % 2)) }
      if random.next() % 100 == 0 || !store.core.isOpen(client) {
        store.core.disconnect(client)
        clients[slot] = store.client([0, 0, 7, 7, 8][slot])
      }
      if step % 100 == 0 {
        #expect(store.core.isConsistent, "step \(step)")
        for domain in [7, 8] as [UInt16] {
          // Domain 0 may give a domain more than it could take.
          #expect(store.core.tree.forest.nodeCount(ownedBy: domain) < 200, "step \(step)")
        }
      }
    }
    let last = store.client()
    #expect(store.ask(last, .control, "check|") == "OK|")
    #expect(store.ask(last, .write, "/still/alive|1") == "OK|")
  }
}

/// A small seeded generator: the same seed, the same run.
struct SplitMix {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var mixed = state
    mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
    return mixed ^ (mixed >> 31)
  }

  mutating func bytes(below count: UInt64) -> [UInt8] {
    (0..<(next() % count)).map { _ in UInt8(truncatingIfNeeded: next()) }
  }
}
