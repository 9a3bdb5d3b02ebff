/// A message of rtnetlink being put together (rtnetlink(7), linux/netlink.h): a header of 16 bytes, a body, and
/// attributes, each padded to four bytes.
struct NetlinkRequest {
  /// The message; its length stands in the header already.
  private(set) var bytes: [UInt8] = []

  /// Starts a message about links with its `struct ifinfomsg`. Bits of `changed` are the interface flags that
  /// take the value they have in `interfaceFlags`; index 0 names no link.
  init(
    type: UInt16, flags: UInt16, sequence: UInt32, index: Int32, interfaceFlags: UInt32 = 0,
    changed: UInt32 = 0
  ) {
    append(UInt32(0))
    append(type)
    append(flags)
    append(sequence)
    append(UInt32(0))
    // ifi_family, padding, and ifi_type: all unspecified.
    append(UInt32(0))
    append(UInt32(bitPattern: index))
    append(interfaceFlags)
    append(changed)
    setLength()
  }

  /// Adds an attribute with these bytes.
  mutating func add(_ type: UInt16, _ value: [UInt8]) {
    append(UInt16(clamping: 4 + value.count))
    append(type)
    bytes += value
    while bytes.count % 4 != 0 { bytes.append(0) }
    setLength()
  }

  /// Adds an attribute of 32 bits.
  mutating func add(_ type: UInt16, _ value: UInt32) {
    add(type, (0..<4).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) })
  }

  private mutating func append<Number: FixedWidthInteger>(_ value: Number) {
    for shift in stride(from: 0, to: Number.bitWidth, by: 8) {
      bytes.append(UInt8(truncatingIfNeeded: value >> Number(shift)))
    }
  }

  private mutating func setLength() {
    for place in 0..<4 { bytes[place] = UInt8(truncatingIfNeeded: bytes.count >> (place * 8)) }
  }
}

/// Numbers of linux/netlink.h and linux/rtnetlink.h.
enum Netlink {
  static let error: UInt16 = 2
  static let done: UInt16 = 3
  static let newLink: UInt16 = 16
  static let deleteLink: UInt16 = 17
  static let getLink: UInt16 = 18
  static let request: UInt16 = 1
  static let acknowledge: UInt16 = 4
  static let dump: UInt16 = 0x300
  static let headerByteCount = 16
  static let linkByteCount = 16
}

/// Bytes from the kernel, in the byte order of x86 and Arm; every access is checked against their number.
struct NetlinkBytes {
  let bytes: ArraySlice<UInt8>

  var count: Int { bytes.count }

  func number<Number: FixedWidthInteger>(_ type: Number.Type, at offset: Int) -> Number? {
    guard offset >= 0, offset <= count - MemoryLayout<Number>.size else { return nil }
    var value: Number = 0
    for place in (0..<MemoryLayout<Number>.size).reversed() {
      value = value << 8 | Number(bytes[bytes.startIndex + offset + place])
    }
    return value
  }

  /// `length` bytes at `offset`; nil unless all are there.
  func slice(at offset: Int, count length: Int) -> NetlinkBytes? {
    guard offset >= 0, length >= 0, length <= count, offset <= count - length else { return nil }
    return NetlinkBytes(bytes: bytes[(bytes.startIndex + offset)..<(bytes.startIndex + offset + length)])
  }

  /// A string that ends with the bytes or with a zero before.
  var text: String { String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self) }

  /// Gives the pieces of a list, each with a length in front that counts itself and padded to four bytes; false
  /// when one does not fit.
  private func pieces(headerByteCount: Int, lengthIn: (Int) -> Int?, _ body: (NetlinkBytes) -> Bool) -> Bool {
    var offset = 0
    while offset < count {
      guard let length = lengthIn(offset), length >= headerByteCount,
        let piece = slice(at: offset, count: length)
      else { return false }
      if !body(piece) { return false }
      offset += (length + 3) & ~3
    }
    return true
  }

  /// Gives the messages of a datagram; false when it is malformed.
  func forEachMessage(_ body: (NetlinkMessage) -> Bool) -> Bool {
    pieces(headerByteCount: Netlink.headerByteCount) {
      number(UInt32.self, at: $0).flatMap { Int(exactly: $0) }
    } _: { piece in
      guard let type = piece.number(UInt16.self, at: 4), let sequence = piece.number(UInt32.self, at: 8),
        let payload = piece.slice(
          at: Netlink.headerByteCount, count: piece.count - Netlink.headerByteCount)
      else { return false }
      return body(NetlinkMessage(type: type, sequence: sequence, payload: payload))
    }
  }

  /// Gives the attributes of a message or of a nested attribute; false when one is malformed.
  func forEachAttribute(_ body: (UInt16, NetlinkBytes) -> Bool) -> Bool {
    pieces(headerByteCount: 4) {
      number(UInt16.self, at: $0).map { Int($0) }
    } _: { piece in
      guard let type = piece.number(UInt16.self, at: 2),
        let value = piece.slice(at: 4, count: piece.count - 4)
      else { return false }
      // The two highest bits say that it is nested and in which byte order.
      return body(type & 0x3FFF, value)
    }
  }
}

/// One message from the kernel.
struct NetlinkMessage {
  let type: UInt16
  let sequence: UInt32
  let payload: NetlinkBytes
}
