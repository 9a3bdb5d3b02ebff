public import RingKit

/// Writes captured frames as a pcapng file (draft-ietf-opsawg-pcapng), which tcpdump and Wireshark read: bytes
/// come in, bytes come out, and where they go is the caller's business.
///
/// What it gives is to be written in the order it was given: the header first, an interface before its frames.
/// Numbers are in little-endian order, times in nanoseconds since 1970.
public struct PcapngWriter: Sendable {
  /// Which way a frame went, as seen from the host's end of the vif.
  public enum Direction: UInt32, Sendable {
    /// From the guest.
    case inbound = 1
    /// To the guest.
    case outbound = 2
  }

  /// An interface of the file.
  public struct Interface: Equatable, Sendable {
    /// Its place among the file's interfaces, from 0.
    public let number: UInt32
  }

  /// The longest snap length, and what is taken for a longer one: all of the longest frame with its headers.
  public static var largestSnapLength: Int { 262_144 }

  /// Bytes of a frame that are kept, 14...262144.
  public let snapLength: Int
  private var interfaceCount: UInt32 = 0

  /// Keeps the first `snapLength` bytes of each frame; numbers outside 14...262144 are taken for the nearest.
  public init(snapLength: Int = PcapngWriter.largestSnapLength) {
    self.snapLength = min(max(snapLength, 14), Self.largestSnapLength)
  }

  /// The section header block, with the name of the program that writes the file.
  public func header(application: String) -> [UInt8] {
    var block = Block(type: 0x0A0D_0D0A)
    block.append(UInt32(0x1A2B_3C4D))
    block.append(UInt16(1))
    block.append(UInt16(0))
    // The section's length: not told.
    block.append(UInt64.max)
    block.appendOption(4, Array(application.utf8))
    block.endOptions()
    return block.finish()
  }

  /// The description block of one more interface, of Ethernet frames.
  public mutating func addInterface(name: String) -> (interface: Interface, bytes: [UInt8]) {
    let interface = Interface(number: interfaceCount)
    interfaceCount += 1
    var block = Block(type: 1)
    block.append(UInt16(1))  // LINKTYPE_ETHERNET
    block.append(UInt16(0))
    block.append(UInt32(snapLength))
    block.appendOption(2, Array(name.utf8))
    // if_tsresol: times count in 10 to the power of -9 seconds.
    block.appendOption(9, [9])
    block.endOptions()
    return (interface, block.finish())
  }

  /// Appends the block of a frame to `bytes`; of one that is cut off to the snap length, the block tells how
  /// long it was. `interface` is one of this writer's.
  public func append(
    _ frame: PrivateBytes, of interface: Interface, _ direction: Direction, atNanoseconds time: UInt64,
    to bytes: inout [UInt8]
  ) {
    let kept = min(frame.count, snapLength)
    appendHead(of: interface, keptByteCount: kept, byteCount: frame.count, time, to: &bytes)
    frame.append(first: kept, to: &bytes)
    appendTail(keptByteCount: kept, direction, to: &bytes)
  }

  /// Appends the block of a frame of these bytes.
  public func append(
    _ frame: [UInt8], of interface: Interface, _ direction: Direction, atNanoseconds time: UInt64,
    to bytes: inout [UInt8]
  ) {
    let kept = min(frame.count, snapLength)
    appendHead(of: interface, keptByteCount: kept, byteCount: frame.count, time, to: &bytes)
    bytes += frame.prefix(kept)
    appendTail(keptByteCount: kept, direction, to: &bytes)
  }

  /// Bytes of an enhanced packet block with its flags option.
  static func blockByteCount(keptByteCount: Int) -> Int {
    28 + (keptByteCount + 3) / 4 * 4 + 12 + 4
  }

  /// An interface statistics block: frames that came while the interface was watched, and how many of these are
  /// not in the file for want of room. It is the last block of its interface.
  public func statistics(
    of interface: Interface, receivedCount: UInt64, droppedCount: UInt64, atNanoseconds time: UInt64
  ) -> [UInt8] {
    var block = Block(type: 5)
    block.append(interface.number)
    block.append(UInt32(truncatingIfNeeded: time >> 32))
    block.append(UInt32(truncatingIfNeeded: time))
    // isb_ifrecv and isb_ifdrop, 8 bytes each.
    for (code, count) in [(UInt16(4), receivedCount), (5, droppedCount)] {
      block.append(code)
      block.append(UInt16(8))
      block.append(count)
    }
    block.endOptions()
    return block.finish()
  }

  private func appendHead(
    of interface: Interface, keptByteCount: Int, byteCount: Int, _ time: UInt64, to bytes: inout [UInt8]
  ) {
    precondition(interface.number < interfaceCount, "interface of another file")
    Block.append(UInt32(6), to: &bytes)
    Block.append(UInt32(Self.blockByteCount(keptByteCount: keptByteCount)), to: &bytes)
    Block.append(interface.number, to: &bytes)
    // The time's upper half comes first.
    Block.append(UInt32(truncatingIfNeeded: time >> 32), to: &bytes)
    Block.append(UInt32(truncatingIfNeeded: time), to: &bytes)
    Block.append(UInt32(keptByteCount), to: &bytes)
    Block.append(UInt32(clamping: byteCount), to: &bytes)
  }

  private func appendTail(keptByteCount: Int, _ direction: Direction, to bytes: inout [UInt8]) {
    for _ in 0..<(-keptByteCount & 3) { bytes.append(0) }
    // epb_flags: 4 bytes, the lowest two bits of which are the direction; then the options' end.
    Block.append(UInt16(2), to: &bytes)
    Block.append(UInt16(4), to: &bytes)
    Block.append(direction.rawValue, to: &bytes)
    Block.append(UInt32(0), to: &bytes)
    Block.append(UInt32(Self.blockByteCount(keptByteCount: keptByteCount)), to: &bytes)
  }
}

/// A block of pcapng being put together: type and length in front, the length again behind.
private struct Block {
  private var bytes: [UInt8] = []

  init(type: UInt32) {
    append(type)
    append(UInt32(0))
  }

  mutating func append<Number: FixedWidthInteger>(_ value: Number) { Self.append(value, to: &bytes) }

  static func append<Number: FixedWidthInteger>(_ value: Number, to bytes: inout [UInt8]) {
    for shift in stride(from: 0, to: Number.bitWidth, by: 8) {
      bytes.append(UInt8(truncatingIfNeeded: value >> Number(truncatingIfNeeded: shift)))
    }
  }

  /// An option, padded to four bytes; of a longer text, the first 255 bytes.
  mutating func appendOption(_ code: UInt16, _ value: [UInt8]) {
    let value = value.prefix(255)
    append(code)
    append(UInt16(value.count))
    bytes += value
    while bytes.count % 4 != 0 { bytes.append(0) }
  }

  mutating func endOptions() { append(UInt32(0)) }

  func finish() -> [UInt8] {
    var bytes = bytes
    let length = UInt32(bytes.count + 4)
    for place in 0..<4 { bytes[4 + place] = UInt8(truncatingIfNeeded: length >> (place * 8)) }
    Self.append(length, to: &bytes)
    return bytes
  }
}
