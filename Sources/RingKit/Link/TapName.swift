/// What the kernel takes as an interface's name (net/core/dev.c, dev_valid_name).
enum TapName {
  /// 1...15 bytes; none is a space, '/', ':' or zero, and it is not "." or "..". '%' is taken for a pattern.
  static func isValid(_ name: String) -> Bool {
    let bytes = name.utf8
    guard (1...15).contains(bytes.count), name != ".", name != ".." else { return false }
    let separators: Set<UInt8> = [0, 0x20, 0x25, 0x2F, 0x3A]
    return !bytes.contains { separators.contains($0) || (0x09...0x0D).contains($0) }
  }
}
