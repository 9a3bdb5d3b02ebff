/// Request and reply types (`xs_wire.h`, `enum xsd_sockmsg_type`).
enum StoreMessageType: UInt32, CaseIterable {
  case control = 0
  case directory, read, getPermissions, watch, unwatch, transactionStart, transactionEnd
  case introduce, release, getDomainPath, write, makeDirectory, remove, setPermissions
  case watchEvent, error, isDomainIntroduced, resume, setTarget
  // 20 was RESTRICT and is gone.
  case resetWatches = 21
  case directoryPart = 22

  /// Only domain 0 may send these (`tools/xenstored/core.c`, `XS_FLAG_PRIV`).
  var isPrivileged: Bool {
    switch self {
    case .control, .introduce, .release, .isDomainIntroduced, .resume, .setTarget: true
    default: false
    }
  }

  /// Requests whose transaction id means nothing.
  var ignoresTransaction: Bool { self == .watch || self == .unwatch }
}

/// One message of the wire: a header of four 32-bit words in the machine's order, then the payload.
struct StoreMessage: Equatable {
  static let headerBytes = 16
  static let payloadBytesMax = 4096

  /// Kept as a number: a client may send any.
  var type: UInt32
  var request: UInt32
  var transaction: UInt32
  var payload: [UInt8]

  init(type: UInt32, request: UInt32, transaction: UInt32, payload: [UInt8]) {
    self.type = type
    self.request = request
    self.transaction = transaction
    self.payload = payload
  }

  /// A watch event: unsolicited, so both ids are zero.
  init(event payload: [UInt8]) {
    self.init(type: StoreMessageType.watchEvent.rawValue, request: 0, transaction: 0, payload: payload)
  }

  /// The bytes to send. The payload must not be longer than `payloadBytesMax`.
  var encoded: [UInt8] {
    precondition(payload.count <= Self.payloadBytesMax, "xenstore payload of \(payload.count) bytes")
    var bytes: [UInt8] = []
    bytes.reserveCapacity(Self.headerBytes + payload.count)
    for word in [type, request, transaction, UInt32(payload.count)] {
      for shift in stride(from: UInt32(0), to: 32, by: 8) {
        bytes.append(UInt8(truncatingIfNeeded: word.littleEndian >> shift))
      }
    }
    bytes.append(contentsOf: payload)
    return bytes
  }
}

/// Cuts a byte stream into messages. Holds at most one message and what was received behind it.
struct StoreFrameReader {
  /// The client announced more than `XENSTORE_PAYLOAD_MAX`: it can never be understood again.
  struct Oversized: Error, Equatable {
    let announcedBytes: UInt32
  }

  private var bytes: [UInt8] = []
  private var start = 0

  var bufferedBytes: Int { bytes.count - start }

  mutating func append(_ received: some Sequence<UInt8>) {
    if start == bytes.count {
      bytes.removeAll(keepingCapacity: true)
      start = 0
    } else if start > 4 * StoreMessage.payloadBytesMax {
      bytes.removeFirst(start)
      start = 0
    }
    bytes.append(contentsOf: received)
  }

  /// The next whole message, or nil until more bytes come.
  mutating func next() throws(Oversized) -> StoreMessage? {
    guard bufferedBytes >= StoreMessage.headerBytes else { return nil }
    let length = word(at: 12)
    guard length <= StoreMessage.payloadBytesMax else { throw Oversized(announcedBytes: length) }
    let end = start + StoreMessage.headerBytes + Int(length)
    guard end <= bytes.count else { return nil }
    let message = StoreMessage(
      type: word(at: 0), request: word(at: 4), transaction: word(at: 8),
      payload: Array(bytes[(start + StoreMessage.headerBytes)..<end]))
    start = end
    return message
  }

  private func word(at offset: Int) -> UInt32 {
    let little = bytes[(start + offset)..<(start + offset + 4)].reversed().reduce(UInt32(0)) {
      $0 << 8 | UInt32($1)
    }
    return UInt32(littleEndian: little)
  }
}

extension [UInt8] {
  /// The payload as one string: it must end in its only NUL.
  func oneString() throws(StoreFailure) -> ArraySlice<UInt8> {
    guard let end = firstIndex(of: 0), end == count - 1 else { throw .invalid }
    return self[..<end]
  }

  /// The strings that end in NUL; bytes behind the last NUL do not count.
  func strings() -> [ArraySlice<UInt8>] {
    var found: [ArraySlice<UInt8>] = []
    var start = startIndex
    while let end = self[start...].firstIndex(of: 0) {
      found.append(self[start..<end])
      start = end + 1
    }
    return found
  }
}
