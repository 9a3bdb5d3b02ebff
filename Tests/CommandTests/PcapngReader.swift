import Foundation
import Testing

/// A pcapng file as the format's document describes it, read by nothing that wrote it.
struct PcapngReader {
  struct Frame: Equatable {
    var bytes: [UInt8]
    var wholeByteCount: Int
    /// Bits 0 and 1 of the flags: 1 inbound, 2 outbound.
    var direction: UInt64
    /// Nanoseconds since 1970.
    var time: UInt64
  }

  var interfaceName = ""
  var snapLength = 0
  var frames: [Frame] = []
  /// isb_ifrecv and isb_ifdrop; nil when there is no such block.
  var statistics: (received: UInt64, dropped: UInt64)?

  init(_ file: [UInt8]) throws {
    var at = 0
    while at < file.count {
      try #require(file.count - at >= 12, "half a block at \(at)")
      let length = Int(Self.number(file, at + 4, 4))
      try #require(length >= 12 && length % 4 == 0 && length <= file.count - at, "length \(length) at \(at)")
      let block = Array(file[at..<at + length])
      try #require(Self.number(block, length - 4, 4) == UInt64(length))
      try take(block, isFirst: at == 0)
      at += length
    }
  }

  private mutating func take(_ block: [UInt8], isFirst: Bool) throws {
    let type = Self.number(block, 0, 4)
    #expect(isFirst == (type == 0x0A0D_0D0A))
    // Nothing follows the statistics.
    #expect(statistics == nil)
    switch type {
    case 0x0A0D_0D0A:
      #expect(Self.number(block, 8, 4) == 0x1A2B_3C4D)
    case 1:
      #expect(Self.number(block, 8, 2) == 1)
      snapLength = Int(Self.number(block, 12, 4))
      let options = Self.options(block, from: 16)
      interfaceName = String(decoding: options[2] ?? [], as: UTF8.self)
      #expect(options[9] == [9])
    case 6:
      let kept = Int(Self.number(block, 20, 4))
      let options = Self.options(block, from: 28 + (kept + 3) / 4 * 4)
      frames.append(
        Frame(
          bytes: Array(block[28..<28 + kept]), wholeByteCount: Int(Self.number(block, 24, 4)),
          direction: Self.number(try #require(options[2]), 0, 4) & 3,
          time: Self.number(block, 12, 4) << 32 | Self.number(block, 16, 4)))
    case 5:
      let options = Self.options(block, from: 20)
      statistics = (
        Self.number(try #require(options[4]), 0, 8), Self.number(try #require(options[5]), 0, 8)
      )
    default: Issue.record("a block of type \(type)")
    }
  }

  private static func options(_ block: [UInt8], from start: Int) -> [UInt64: [UInt8]] {
    var options: [UInt64: [UInt8]] = [:]
    var at = start
    while at + 8 <= block.count, number(block, at, 2) != 0 {
      let length = Int(number(block, at + 2, 2))
      options[number(block, at, 2)] = Array(block[at + 4..<at + 4 + length])
      at += 4 + (length + 3) / 4 * 4
    }
    return options
  }

  private static func number(_ bytes: [UInt8], _ offset: Int, _ count: Int) -> UInt64 {
    (0..<count).reversed().reduce(0) { $0 << 8 | UInt64(bytes[offset + $1]) }
  }
}
