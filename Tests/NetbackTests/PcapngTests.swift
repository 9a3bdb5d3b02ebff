import Foundation
import Netback
import RingKit
import Testing

/// Captures byte by byte, and as tcpdump reads them.
@Suite struct PcapngTests {
  static let frame: [UInt8] =
    [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0x16, 0x3E, 0x01, 0x02, 0x03, 0x88, 0xB5] + Array(0..<47)

  static func words(_ bytes: some Collection<UInt8>) -> [UInt32] {
    let bytes = Array(bytes)
    return stride(from: 0, to: bytes.count, by: 4).map { place in
      (0..<4).reduce(0) { $0 | UInt32(bytes[place + $1]) << UInt32($1 * 8) }
    }
  }

  @Test func theSectionHeaderIsAsTheFormatSays() {
    let bytes = PcapngWriter().header(application: "ringback")
    #expect(bytes.prefix(4) == [0x0A, 0x0D, 0x0D, 0x0A])
    #expect(bytes.count == 44)
    #expect(
      Self.words(bytes.dropFirst(4)) == [
        44, 0x1A2B_3C4D, 1, 0xFFFF_FFFF, 0xFFFF_FFFF, 4 | 8 << 16, 0x676E_6972, 0x6B63_6162, 0, 44,
      ])
  }

  @Test func anInterfaceHasNameResolutionAndSnapLength() {
    var writer = PcapngWriter(snapLength: 128)
    let (first, bytes) = writer.addInterface(name: "vif1.0")
    #expect(first.number == 0)
    #expect(bytes.count == 44)
    // Type, length, Ethernet, snap length, the name and its padding, the resolution, the end, the length.
    #expect(Self.words(bytes).prefix(4) == [1, 44, 1, 128])
    #expect(bytes[16..<28] == [2, 0, 6, 0, 0x76, 0x69, 0x66, 0x31, 0x2E, 0x30, 0, 0])
    #expect(Self.words(bytes[28...]) == [9 | 1 << 16, 9, 0, 44])
    #expect(writer.addInterface(name: "vif2.0").interface.number == 1)
    #expect(PcapngWriter(snapLength: 0).snapLength == 14)
    #expect(PcapngWriter(snapLength: .max).snapLength == 262_144)
  }

  @Test(arguments: [14, 15, 16, 17, 60, 61, 64])
  func aFrameIsPaddedAndCutOff(snapLength: Int) throws {
    var writer = PcapngWriter(snapLength: snapLength)
    let interface = writer.addInterface(name: "vif1.0").interface
    var bytes: [UInt8] = [0xAA]
    writer.append(
      Self.frame, of: interface, .outbound, atNanoseconds: 0x0102_0304_0506_0708, to: &bytes)
    let kept = min(snapLength, 61)
    let padded = (kept + 3) / 4 * 4
    #expect(bytes.count == 1 + 28 + padded + 16)
    let block = Array(bytes.dropFirst())
    let length = UInt32(block.count)
    #expect(
      Self.words(block.prefix(28)) == [6, length, 0, 0x0102_0304, 0x0506_0708, UInt32(kept), 61])
    #expect(block[28..<(28 + kept)] == Self.frame[..<kept])
    #expect(block[(28 + kept)..<(28 + padded)].allSatisfy { $0 == 0 })
    #expect(Self.words(block[(28 + padded)...]) == [2 | 4 << 16, 2, 0, length])

    // From a buffer of the pool the same bytes come out.
    let pool = try BufferPool(byteCount: 4096)
    let held = try #require(pool.allocate(byteCount: 4096))
    let view = pool.bytes(of: held).slice(from: 3, count: Self.frame.count)
    for (offset, byte) in Self.frame.enumerated() { view[offset] = byte }
    var same: [UInt8] = [0xAA]
    writer.append(view, of: interface, .outbound, atNanoseconds: 0x0102_0304_0506_0708, to: &same)
    #expect(same == bytes)
    pool.release(held)
  }

  /// The path of a program; nil when it is not installed.
  static func tool(_ name: String) -> String? {
    ["/usr/bin", "/usr/sbin", "/bin", "/sbin"].map { "\($0)/\(name)" }
      .first { FileManager.default.isExecutableFile(atPath: $0) }
  }

  static func output(_ path: String, _ arguments: [String]) throws -> String {
    let process = Process()
    let pipe = Pipe()
    process.executableURL = URL(filePath: path)
    process.arguments = arguments
    process.environment = ["TZ": "UTC", "LC_ALL": "C"]
    process.standardOutput = pipe
    process.standardError = FileHandle.nullDevice
    try process.run()
    let data = pipe.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    #expect(process.terminationStatus == 0)
    return String(decoding: data, as: UTF8.self)
  }

  /// A file of two interfaces with a frame each way, the second cut off.
  static func capture() throws -> URL {
    var writer = PcapngWriter(snapLength: 60)
    var bytes = writer.header(application: "ringback")
    let (first, firstBytes) = writer.addInterface(name: "vif1.0")
    let (second, secondBytes) = writer.addInterface(name: "vif2.0")
    bytes += firstBytes + secondBytes
    let time: UInt64 = 1_700_000_000_123_456_789
    writer.append(Array(Self.frame.dropLast(3)), of: first, .inbound, atNanoseconds: time, to: &bytes)
    writer.append(Self.frame, of: second, .outbound, atNanoseconds: time + 1, to: &bytes)
    let file = FileManager.default.temporaryDirectory.appending(path: "rb-\(UUID().uuidString).pcapng")
    try Data(bytes).write(to: file)
    return file
  }

  @Test(.enabled(if: tool("tcpdump") != nil, "Debian's package tcpdump is not installed"))
  func tcpdumpReadsIt() throws {
    let file = try Self.capture()
    defer { try? FileManager.default.removeItem(at: file) }
    let tcpdump = try #require(Self.tool("tcpdump"))
    let text = try Self.output(tcpdump, ["--nano", "-n", "-e", "-tttt", "-xx", "-r", file.path])
    let lines = text.split(separator: "\n")
    let heads = lines.filter { $0.hasPrefix("2023") }
    try #require(heads.count == 2, "\(text)")
    #expect(heads[0].contains("2023-11-14 22:13:20.123456789"))
    #expect(heads[1].contains("2023-11-14 22:13:20.123456790"))
    #expect(heads.allSatisfy { $0.contains("00:16:3e:01:02:03") && $0.contains("0x88b5") })
    #expect(heads[0].contains("length 58") && heads[1].contains("length 61"))
    #expect(text.contains("0x0010:  0203 0405 0607 0809 0a0b 0c0d 0e0f 1011"))
  }

  @Test(.enabled(if: tool("tshark") != nil, "Debian's package tshark is not installed"))
  func wiresharkReadsInterfacesAndDirections() throws {
    let file = try Self.capture()
    defer { try? FileManager.default.removeItem(at: file) }
    let tshark = try #require(Self.tool("tshark"))
    let fields = ["frame.interface_name", "frame.packet_flags_direction", "frame.len", "frame.cap_len"]
    let text = try Self.output(
      tshark, ["-r", file.path, "-T", "fields"] + fields.flatMap { ["-e", $0] })
    let rows = text.split(separator: "\n").map { $0.split(separator: "\t").map(String.init) }
    try #require(rows.count == 2 && rows.allSatisfy { $0.count == 4 }, "\(text)")
    #expect(rows[0][0] == "vif1.0" && rows[1][0] == "vif2.0")
    #expect(rows[0][1].hasSuffix("1") && rows[1][1].hasSuffix("2"))
    #expect(rows[0][2...] == ["58", "58"] && rows[1][2...] == ["61", "60"])
  }
}
