/// A value as it stands in the configuration file.
enum FileValue: Codable, Equatable {
  case number(Int)
  case flag(Bool)
  case text(String)
  case list([FileValue])
  /// What no key takes, by the name of its type.
  case other(String)

  /// The value as a person wrote it, cut to a length that fits a line.
  var shown: String {
    switch self {
    case .number(let number): "\(number)"
    case .flag(let flag): "\(flag)"
    case .text(let text): "\"\(text.count > 64 ? "\(text.prefix(64))..." : text)\""
    case .list(let values):
      "[\(values.prefix(4).map(\.shown).joined(separator: ", "))\(values.count > 4 ? ", ..." : "")]"
    case .other(let type): type
    }
  }

  /// The value as it stands on a command line, or in prose.
  var plain: String {
    switch self {
    case .text(let text): text
    case .list(let values): values.map(\.plain).joined(separator: ", ")
    case .number, .flag, .other: shown
    }
  }
}

/// What the parser found in a configuration file.
struct ParsedConfiguration: Codable, Equatable {
  /// A section (no key), a key of a section, or a key above all sections (no section).
  struct Entry: Codable, Equatable {
    var section: String?
    var key: String?
    var value: FileValue?
    /// From 1; nil when it could not be told.
    var line: Int?
  }

  /// Why the text is no TOML.
  struct Fault: Codable, Equatable {
    var line: Int
    var column: Int?
    var reason: String
  }

  var entries: [Entry] = []
  var fault: Fault?
}
