/// What `tap-ctl list` prints, for programs and on a terminal.
struct TapListing {
  var minor: Int?
  var process: Int32?
  var type: String?
  var file: String?

  /// The lines for those of `taps` that were asked for; `daemon` is the process told for all that are attached.
  func lines(of taps: [Tap], daemon: Int32, isTerminal: Bool) -> [String] {
    let chosen = taps.filter { tap in
      let (type, file) = Self.split(tap.image?.name)
      return (minor == nil || tap.minor == minor)
        && (process == nil || tap.process != nil && (process == daemon || process == tap.process))
        && (self.type == nil || type == self.type) && (self.file == nil || file == self.file)
    }
    // As the original: first what processes have, then what nobody has.
    let sorted = chosen.filter { $0.process != nil } + chosen.filter { $0.process == nil }
    return sorted.map { isTerminal ? Self.row($0, daemon) : Self.pairs($0, daemon) }
  }

  private static func pairs(_ tap: Tap, _ daemon: Int32) -> String {
    guard let bits = tap.stateBits else { return "minor=\(tap.minor)" }
    let image = tap.image.map { " args=\($0.name)" } ?? ""
    return "pid=\(daemon) minor=\(tap.minor) state=\(hexadecimal(bits))\(image)"
  }

  private static func row(_ tap: Tap, _ daemon: Int32) -> String {
    let (type, file) = split(tap.image?.name)
    let cells = [
      padded(tap.process == nil ? "-" : "\(daemon)", 8), padded("\(tap.minor)", 4),
      padded(tap.stateBits.map(hexadecimal) ?? "-", 4), padded(type ?? "-", 10), file ?? "-",
    ]
    return cells.joined(separator: " ")
  }

  /// "aio:/p" as its two parts; all colons but the first belong to the file.
  private static func split(_ name: String?) -> (type: String?, file: String?) {
    guard let name, let colon = name.firstIndex(of: ":") else { return (nil, name) }
    return (String(name[..<colon]), String(name[name.index(after: colon)...]))
  }

  /// As C's "%#x".
  private static func hexadecimal(_ bits: Int) -> String { bits == 0 ? "0" : "0x" + String(bits, radix: 16) }

  private static func padded(_ text: String, _ width: Int) -> String {
    String(repeating: " ", count: max(0, width - text.count)) + text
  }
}
