import Testing

@testable import Loopback

/// Failed expectations name the store; they do not take its contents apart, which may be large.
extension StoreCore: CustomTestStringConvertible, CustomReflectable {
  public var testDescription: String { "store" }
  public var customMirror: Mirror { Mirror(self, children: []) }
}

/// A store without sockets: each client's bytes are handed over at once and decoded again.
struct StoreDialogue: CustomTestStringConvertible {
  var testDescription: String { "dialogue" }
  var core: StoreCore
  private var readers: [Int: StoreFrameReader] = [:]
  private var nextRequest: UInt32 = 0xFFFF_FFF0

  init(quota: StoreQuota = StoreQuota()) {
    core = StoreCore(quota: quota)
  }

  mutating func client(_ domain: UInt16 = 0) -> Int {
    let id = core.connect(domain: domain)
    readers[id] = StoreFrameReader()
    return id
  }

  /// What a client has been sent since the last call, in the form `READ:value` or `WATCH_EVENT:path|token|`,
  /// with NUL shown as `|`.
  mutating func heard(_ client: Int) -> [String] { messages(client).map(Self.text) }

  mutating func messages(_ client: Int) -> [StoreMessage] {
    var found: [StoreMessage] = []
    while case let bytes = core.output(for: client), !bytes.isEmpty {
      readers[client]?.append(bytes)
      core.didSend(bytes.count, to: client)
    }
    while let message = try? readers[client]?.next() { found.append(message) }
    return found
  }

  /// Sends one request, with `|` for NUL, and returns the text of its reply. Events stay out of it.
  mutating func ask(
    _ client: Int, _ type: StoreMessageType, _ payload: String, transaction: UInt32 = 0
  ) -> String {
    let bytes = payload.utf8.map { $0 == UInt8(ascii: "|") ? 0 : $0 }
    return ask(client, type: type.rawValue, bytes, transaction: transaction)
  }

  mutating func ask(
    _ client: Int, type: UInt32, _ payload: [UInt8], transaction: UInt32 = 0
  ) -> String {
    send(client, type: type, payload, transaction: transaction)
    let replies = messages(client).filter { $0.type != StoreMessageType.watchEvent.rawValue }
    guard replies.count == 1, let reply = replies.first else { return "\(replies.count) replies" }
    guard reply.request == nextRequest, reply.transaction == transaction else { return "foreign ids" }
    let isError = reply.type == StoreMessageType.error.rawValue
    guard isError || reply.type == type else { return "type \(reply.type)" }
    return Self.shown(reply.payload)
  }

  /// Sends one request and leaves its reply waiting.
  mutating func send(_ client: Int, type: UInt32, _ payload: [UInt8], transaction: UInt32 = 0) {
    nextRequest &+= 1
    let message = StoreMessage(
      type: type, request: nextRequest, transaction: transaction, payload: payload)
    core.receive(message.encoded, from: client)
  }

  mutating func send(_ client: Int, _ type: StoreMessageType, _ payload: String) {
    send(client, type: type.rawValue, payload.utf8.map { $0 == UInt8(ascii: "|") ? 0 : $0 })
  }

  static func shown(_ payload: [UInt8]) -> String {
    String(decoding: payload.map { $0 == 0 ? UInt8(ascii: "|") : $0 }, as: UTF8.self)
  }

  private static func text(_ message: StoreMessage) -> String {
    let name =
      switch StoreMessageType(rawValue: message.type) {
      case .watchEvent: "event"
      case .error: "error"
      default: "reply"
      }
    return "\(name) \(shown(message.payload))"
  }
}
