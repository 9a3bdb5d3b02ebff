/// What a qcow2 image says of the image that it is based on (QEMU, docs/interop/qcow2.txt, "Header" and
/// "Header extensions").
struct QCOW2Header: Equatable {
  /// Bytes at the beginning of an image that hold all of it: the smallest cluster there can be is less, but
  /// the name of the backing file and the extensions lie in the first cluster.
  static let byteCount = 65536

  /// The image that one is based on.
  struct Backing: Equatable {
    /// Its name as it is written there.
    var file: String
    /// Its format; nil when none is recorded.
    var format: String?
  }

  /// What it is based on; nil when it stands alone.
  private(set) var backing: Backing?

  /// Reads the beginning of an image; nil when it is no qcow2 image or is cut off.
  init?(_ bytes: [UInt8]) {
    func number(at offset: Int, byteCount: Int) -> UInt64? {
      guard offset >= 0, offset <= bytes.count - byteCount else { return nil }
      return bytes[offset..<offset + byteCount].reduce(0) { $0 << 8 | UInt64($1) }
    }
    func text(at offset: UInt64, byteCount: UInt64) -> String? {
      guard offset <= bytes.count, byteCount <= UInt64(bytes.count) - offset else { return nil }
      return String(decoding: bytes[Int(offset)..<Int(offset + byteCount)], as: UTF8.self)
    }
    guard number(at: 0, byteCount: 4) == 0x5146_49FB, let version = number(at: 4, byteCount: 4),
      let offset = number(at: 8, byteCount: 8), let size = number(at: 16, byteCount: 4)
    else { return nil }
    if offset == 0 { return }
    guard let name = text(at: offset, byteCount: size) else { return nil }
    backing = Backing(file: name)
    guard var position = version < 3 ? 72 : number(at: 100, byteCount: 4) else { return nil }
    while let type = number(at: Int(min(position, 1 << 30)), byteCount: 4),
      let length = number(at: Int(min(position, 1 << 30)) + 4, byteCount: 4), type != 0
    {
      if type == 0xE279_2ACA { backing?.format = text(at: position + 8, byteCount: length) }
      position += 8 + (length + 7) / 8 * 8
    }
  }
}
