/// What waits to be sent on one connection, in order, with a bound.
struct StoreOutput {
  private struct Entry {
    let bytes: [UInt8]
    /// The payload of a watch event, nil for a reply.
    let event: [UInt8]?
  }

  private var entries: [Entry] = []
  private var head = 0
  private var sentOfHead = 0
  private var pendingEvents: Set<[UInt8]> = []
  private(set) var bufferedBytes = 0
  /// Replies not yet wholly sent.
  private(set) var replies = 0

  var isEmpty: Bool { head == entries.count }

  mutating func append(reply: StoreMessage) {
    replies += 1
    append(Entry(bytes: reply.encoded, event: nil))
  }

  /// Adds a watch event, unless the very same one is waiting already: the client has yet to look anyway.
  mutating func append(event payload: [UInt8]) {
    // Specials are exempt, each of them may stand for another domain.
    if payload.first != UInt8(ascii: "@") {
      guard pendingEvents.insert(payload).inserted else { return }
    }
    append(Entry(bytes: StoreMessage(event: payload).encoded, event: payload))
  }

  private mutating func append(_ entry: Entry) {
    bufferedBytes += entry.bytes.count
    entries.append(entry)
  }

  /// Bytes to send next; empty when there is nothing.
  var next: ArraySlice<UInt8> {
    isEmpty ? [] : entries[head].bytes[sentOfHead...]
  }

  /// Notes that the first `count` bytes of `next` have been sent.
  mutating func didSend(_ count: Int) {
    guard !isEmpty else { return }
    let entry = entries[head]
    sentOfHead += count
    precondition(sentOfHead <= entry.bytes.count, "sent \(sentOfHead) of \(entry.bytes.count) bytes")
    guard sentOfHead == entry.bytes.count else { return }
    sentOfHead = 0
    head += 1
    bufferedBytes -= entry.bytes.count
    if let event = entry.event { pendingEvents.remove(event) } else { replies -= 1 }
    if head == entries.count || head > 256 {
      entries.removeFirst(head)
      head = 0
    }
  }
}
