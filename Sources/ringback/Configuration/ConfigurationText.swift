import TOMLKit

/// The text of a configuration file on its way to values.
///
/// Used only in a process of its own (``ParseConfiguration``): toml++ 3.4, which lies below TOMLKit, ends its
/// process on some texts that are no TOML, such as `kind = [}` (marzer/tomlplusplus pull request 301 mends one
/// of several), and TOMLKit 0.6 never frees a document. The daemon that reads its file again has guests to
/// serve.
struct ConfigurationText {
  /// Lines from which positions are told; more would take long.
  static let locatedLineLimit = 1000

  private let text: String
  private let lines: [Substring]

  init(_ text: String) {
    self.text = text
    lines = text.split(separator: "\n", omittingEmptySubsequences: false)
  }

  /// Everything in the text, in order. `progress` is told the number of lines that are parsed next, so that
  /// the last of them is known should the parser end the process.
  func parse(progress: (Int) -> Void) -> ParsedConfiguration {
    var found = ParsedConfiguration()
    let positions = locate(progress: progress)
    do {
      for entry in Self.entries(of: try TOMLTable(string: text)) {
        var entry = entry
        entry.line = positions["\(entry.section ?? "")\n\(entry.key ?? "")"]
        found.entries.append(entry)
      }
      found.entries.sort { ($0.line ?? .max) < ($1.line ?? .max) }
    } catch let error as TOMLParseError {
      found.fault = ParsedConfiguration.Fault(
        line: error.source.begin.line, column: error.source.begin.column, reason: error.description)
    } catch {
      found.fault = ParsedConfiguration.Fault(line: 1, reason: "\(error)")
    }
    return found
  }

  /// The line of each section and key. The parser does not tell, but the first part of the text that holds a
  /// key ends where the key does.
  private func locate(progress: (Int) -> Void) -> [String: Int] {
    var positions: [String: Int] = [:]
    var start: Int?
    var part = ""
    for (index, line) in lines.prefix(Self.locatedLineLimit).enumerated() {
      part += line + "\n"
      guard let first = line.first(where: { !$0.isWhitespace }), first != "#" else { continue }
      start = start ?? index + 1
      progress(index + 1)
      guard let table = try? TOMLTable(string: part) else { continue }
      for entry in Self.entries(of: table) {
        let name = "\(entry.section ?? "")\n\(entry.key ?? "")"
        if positions[name] == nil { positions[name] = start }
      }
      start = nil
    }
    return positions
  }

  private static func entries(of document: TOMLTable) -> [ParsedConfiguration.Entry] {
    var entries: [ParsedConfiguration.Entry] = []
    for name in document.keys {
      guard let value = document[name] else { continue }
      guard let section = value.table else {
        entries.append(ParsedConfiguration.Entry(key: name, value: Self.value(value)))
        continue
      }
      entries.append(ParsedConfiguration.Entry(section: name))
      for key in section.keys {
        guard let value = section[key] else { continue }
        entries.append(ParsedConfiguration.Entry(section: name, key: key, value: Self.value(value)))
      }
    }
    return entries
  }

  private static func value(_ value: any TOMLValueConvertible) -> FileValue {
    switch value.type {
    case .int: value.int.map { .number($0) } ?? .other("a number")
    case .bool: value.bool.map { .flag($0) } ?? .other("a flag")
    case .string: value.string.map { .text($0) } ?? .other("a text")
    case .array: .list((value.array ?? TOMLArray()).map { Self.value($0) })
    case .double: .other("a number with a point")
    case .date, .time, .dateTime: .other("a date or time")
    case .table: .other("a section")
    }
  }
}
