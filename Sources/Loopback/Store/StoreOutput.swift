/// A request of an unprivileged domain. It is outstanding until its reply and every watch event that it
/// caused, on whatever connection, have been sent: so nobody can flood another client (XSA-326).
struct StoreCause: Hashable, Sendable {
  let connection: Int
  let serial: UInt64
}

/// What waits to be sent on one connection, in order.
struct StoreOutput {
  private struct Entry {
    let bytes: [UInt8]
    /// The payload of a watch event, nil for a reply.
    let event: [UInt8]?
    let cause: StoreCause?
  }

  private var entries: [Entry] = []
  private var head = 0
  private var sentOfHead = 0
  private var pendingEvents: Set<[UInt8]> = []
  private(set) var bufferedBytes = 0

  var isEmpty: Bool { head == entries.count }

  mutating func append(reply: StoreMessage, _ cause: StoreCause?) {
    append(Entry(bytes: reply.encoded, event: nil, cause: cause))
  }

  /// Adds a watch event. False if the very same one is waiting already: the client has yet to look anyway.
  mutating func append(event payload: [UInt8], _ cause: StoreCause?) -> Bool {
    // Specials are exempt, each of them may stand for another domain.
    if payload.first != UInt8(ascii: "@") {
      guard pendingEvents.insert(payload).inserted else { return false }
    }
    append(Entry(bytes: StoreMessage(event: payload).encoded, event: payload, cause: cause))
    return true
  }

  private mutating func append(_ entry: Entry) {
    bufferedBytes += entry.bytes.count
    entries.append(entry)
  }

  /// Bytes to send next; empty when there is nothing.
  var next: ArraySlice<UInt8> {
    isEmpty ? [] : entries[head].bytes[sentOfHead...]
  }

  /// Notes that the first `count` bytes of `next` have been sent. Returns the cause of a message that is
  /// now wholly sent.
  mutating func didSend(_ count: Int) -> StoreCause? {
    guard !isEmpty else { return nil }
    let entry = entries[head]
    sentOfHead += count
    precondition(sentOfHead <= entry.bytes.count, "sent \(sentOfHead) of \(entry.bytes.count) bytes")
    guard sentOfHead == entry.bytes.count else { return nil }
    sentOfHead = 0
    head += 1
    bufferedBytes -= entry.bytes.count
    if let event = entry.event { pendingEvents.remove(event) }
    if head == entries.count || head > 256 {
      entries.removeFirst(head)
      head = 0
    }
    return entry.cause
  }

  /// The causes of everything that will never be sent.
  var causes: [StoreCause] { entries[head...].compactMap(\.cause) }
}
