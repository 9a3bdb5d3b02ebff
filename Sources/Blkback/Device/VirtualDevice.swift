/// A virtual block device's number, the last part of its xenstore path, and the name people give it.
///
/// Numbers are encoded as docs/man/xen-vbd-interface.7 has it: `xvd` with up to 16 disks of 15 partitions in
/// the old form (major 202), beyond that the extended form (bit 28); `hd` and `sd` as Linux numbered them.
public struct VirtualDevice: Hashable, Sendable, CustomStringConvertible {
  /// The number, 0...2^29-1.
  public let number: UInt32

  /// Wraps a number.
  public init(number: UInt32) { self.number = number }

  /// Understands "xvda", "xvdaa3", "hda1", "sdb", "d2p1", a decimal number, or a hexadecimal one with 0x. Nil
  /// for anything else.
  public init?(_ text: String) {
    if let number = Self.plainNumber(text) {
      guard number < 1 << 29 else { return nil }
      self.number = number
      return
    }
    if let match = text.wholeMatch(of: /d([0-9]+)(?:p([0-9]+))?/) {
      guard let disk = UInt32(match.1), let partition = UInt32(match.2 ?? "0"),
        let number = Self.xen(disk: disk, partition: partition)
      else { return nil }
      self.number = number
      return
    }
    guard let match = text.wholeMatch(of: /(xvd|hd|sd)([a-z]+)([0-9]*)/),
      let disk = Self.disk(letters: match.2),
      let partition = match.3.isEmpty ? 0 : UInt32(match.3)
    else { return nil }
    let number: UInt32? =
      switch match.1 {
      case "xvd": Self.xen(disk: disk, partition: partition)
      case "hd": Self.ide(disk: disk, partition: partition)
      default: Self.scsi(disk: disk, partition: partition)
      }
    guard let number else { return nil }
    self.number = number
  }

  /// The usual name ("xvda"), or the number in decimal when it has none.
  public var description: String {
    let disk: UInt32
    let partition: UInt32
    let prefix: String
    if number >> 28 == 1 {
      (prefix, disk, partition) = ("xvd", number >> 8 & 0xF_FFFF, number & 0xFF)
    } else if number >> 8 == 202 {
      (prefix, disk, partition) = ("xvd", number >> 4 & 15, number & 15)
    } else if number >> 8 == 8 {
      (prefix, disk, partition) = ("sd", number >> 4 & 15, number & 15)
    } else if number >> 8 == 3 || number >> 8 == 22 {
      (prefix, disk, partition) = ("hd", (number >> 8 == 22 ? 2 : 0) + (number >> 6 & 3), number & 63)
    } else {
      return String(number)
    }
    return prefix + Self.letters(disk: disk) + (partition == 0 ? "" : String(partition))
  }

  private static func plainNumber(_ text: String) -> UInt32? {
    if text.hasPrefix("0x") { return UInt32(text.dropFirst(2), radix: 16) }
    return text.allSatisfy { $0.isASCII && $0.isNumber } ? UInt32(text) : nil
  }

  private static func xen(disk: UInt32, partition: UInt32) -> UInt32? {
    if disk < 16 && partition < 16 { return 202 << 8 | disk << 4 | partition }
    guard disk < 1 << 20 && partition < 256 else { return nil }
    return 1 << 28 | disk << 8 | partition
  }

  private static func ide(disk: UInt32, partition: UInt32) -> UInt32? {
    guard disk < 4 && partition < 64 else { return nil }
    return (disk < 2 ? 3 : 22) << 8 | (disk & 1) << 6 | partition
  }

  private static func scsi(disk: UInt32, partition: UInt32) -> UInt32? {
    guard disk < 16 && partition < 16 else { return nil }
    return 8 << 8 | disk << 4 | partition
  }

  /// Bijective base 26: a is 0, z is 25, aa is 26.
  private static func disk(letters: Substring) -> UInt32? {
    guard letters.count <= 4 else { return nil }
    var value: UInt32 = 0
    for byte in letters.utf8 { value = value * 26 + UInt32(byte - 96) }
    return value - 1
  }

  private static func letters(disk: UInt32) -> String {
    var left = disk + 1
    var reversed: [Character] = []
    while left > 0 {
      left -= 1
      reversed.append(Character(UnicodeScalar(UInt8(97 + left % 26))))
      left /= 26
    }
    return String(reversed.reversed())
  }
}
