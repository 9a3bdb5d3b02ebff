import ArgumentParser

/// One thing that can be set: by an option of `ringback serve`, and by a key of the configuration file. Its
/// range is written here once, for both.
struct Setting: Sendable {
  /// The sections of the file.
  enum Section: String, CaseIterable {
    case daemon, offer, limits, io, metrics, log
  }

  /// Who is told of a range.
  enum Reader { case commandLine, file }

  let section: Section
  /// Its name below the section.
  let key: String
  /// Its name on the command line, without the dashes.
  let option: String
  /// Whether SIGHUP brings it into force.
  let isLive: Bool
  /// What it is, in a sentence.
  let abstract: String
  /// What the option's value is called.
  let valueName: String
  /// What holds where nobody set it, in words.
  let fallback: String
  /// What it may be, in words.
  private let range: String
  /// The flag that says "not at all", where the range ends above that.
  private let off: String?

  /// Takes a file's value; false when it is of the wrong type or out of range.
  let take: @Sendable (FileValue, inout DaemonSettings) -> Bool
  /// What is set although it may not be.
  let refused: @Sendable (DaemonSettings) -> FileValue?
  /// Sets it in the second as it is set in the first, if it is.
  let carry: @Sendable (DaemonSettings, inout DaemonSettings) -> Void
  /// Sets it in the second as it is in the first, set or not.
  let replace: @Sendable (DaemonSettings, inout DaemonSettings) -> Void
  /// The value, or the fallback, in words.
  let shown: @Sendable (DaemonSettings) -> String
  /// Whether it is the same in both.
  let isSame: @Sendable (DaemonSettings, DaemonSettings) -> Bool

  /// Where it stands in the file: "[io] poll".
  var place: String { "[\(section.rawValue)] \(key)" }

  /// What is wrong with a value, and what it may be, in words for one reader.
  func complaint(about value: FileValue, to reader: Reader) -> String {
    let name =
      switch reader {
      case .commandLine: "--\(option)"
      case .file: place
      }
    let advice =
      switch (off, reader) {
      case (nil, _): ""
      case (let off?, .commandLine): "; see --no-\(off) for none"
      case (let off?, .file): "; see \(off) = false for none"
      }
    return "\(name) is \(range), not \(value.shown)\(advice)"
  }

  /// What `ringback help serve` tells.
  var help: ArgumentHelp {
    ArgumentHelp("\(abstract) (default: \(fallback))", valueName: valueName)
  }

  /// What names a flag and its opposite.
  var flagName: NameSpecification { .customLong(option) }

  /// Describes a setting that is kept at `path`.
  init<Value: Equatable & Sendable>(
    _ section: Section, _ key: String, option: String? = nil, live: Bool = false, _ abstract: String,
    at path: any WritableKeyPath<DaemonSettings, Value?> & Sendable, valueName: String = "value",
    range: String, off: String? = nil, fallback: String? = nil,
    read: @escaping @Sendable (FileValue) -> Value?, write: @escaping @Sendable (Value) -> FileValue,
    accept: @escaping @Sendable (Value) -> Bool = { _ in true }
  ) {
    self.section = section
    self.key = key
    self.option = option ?? key
    isLive = live
    self.abstract = abstract
    self.valueName = valueName
    self.range = range
    self.off = off
    let usual = DaemonSettings.defaults[keyPath: path].map(write)
    let fallbackText = fallback ?? usual?.plain ?? "none"
    self.fallback = fallbackText
    take = { value, settings in
      guard let value = read(value), accept(value) else { return false }
      settings[keyPath: path] = value
      return true
    }
    refused = { settings in
      settings[keyPath: path].flatMap { accept($0) ? nil : write($0) }
    }
    carry = { if let value = $0[keyPath: path] { $1[keyPath: path] = value } }
    replace = { $1[keyPath: path] = $0[keyPath: path] }
    shown = { $0[keyPath: path].map { write($0).plain } ?? fallbackText }
    isSame = { $0[keyPath: path] == $1[keyPath: path] }
  }
}

extension Setting {
  /// A whole number.
  static func number(
    _ section: Section, _ key: String, option: String? = nil, live: Bool = false, _ abstract: String,
    at path: any WritableKeyPath<DaemonSettings, Int?> & Sendable, in range: ClosedRange<Int>,
    unit: String, off: String? = nil, fallback: String? = nil
  ) -> Setting {
    Setting(
      section, key, option: option, live: live,
      "\(abstract), \(range.lowerBound) to \(range.upperBound).", at: path, valueName: unit,
      range: "a whole number from \(range.lowerBound) to \(range.upperBound)", off: off, fallback: fallback,
      read: { if case .number(let number) = $0 { number } else { nil } },
      write: { .number($0) }, accept: { range.contains($0) })
  }

  /// Yes or no: a flag with an opposite on the command line.
  static func flag(
    _ section: Section, _ key: String, live: Bool = false, _ abstract: String,
    at path: any WritableKeyPath<DaemonSettings, Bool?> & Sendable
  ) -> Setting {
    Setting(
      section, key, live: live, abstract, at: path, range: "true or false",
      read: { if case .flag(let flag) = $0 { flag } else { nil } }, write: { .flag($0) })
  }

  /// One of a few words.
  static func word<Word: RawRepresentable<String> & CaseIterable & Sendable & Equatable>(
    _ section: Section, _ key: String, option: String? = nil, live: Bool = false, _ abstract: String,
    at path: any WritableKeyPath<DaemonSettings, Word?> & Sendable, valueName: String
  ) -> Setting {
    let words = Word.allCases.map(\.rawValue)
    return Setting(
      section, key, option: option, live: live, abstract, at: path, valueName: valueName,
      range: "one of \(words.map { "\"\($0)\"" }.joined(separator: ", "))",
      read: { if case .text(let text) = $0 { Word(rawValue: text) } else { nil } },
      write: { .text($0.rawValue) })
  }

  /// A text that a rule judges.
  static func text(
    _ section: Section, _ key: String, option: String? = nil, live: Bool = false, _ abstract: String,
    at path: any WritableKeyPath<DaemonSettings, String?> & Sendable, valueName: String, range: String,
    fallback: String? = nil, accept: @escaping @Sendable (String) -> Bool
  ) -> Setting {
    Setting(
      section, key, option: option, live: live, abstract, at: path, valueName: valueName, range: range,
      fallback: fallback,
      read: { if case .text(let text) = $0 { text } else { nil } }, write: { .text($0) }, accept: accept)
  }

  /// A count that may be large: a number, or a text such as "100M".
  static func amount(
    _ section: Section, _ key: String, option: String, live: Bool, _ abstract: String,
    at path: any WritableKeyPath<DaemonSettings, UInt64?> & Sendable, valueName: String, range: String,
    accept: @escaping @Sendable (UInt64) -> Bool
  ) -> Setting {
    Setting(
      section, key, option: option, live: live, abstract, at: path, valueName: valueName, range: range,
      read: { value in
        switch value {
        case .number(let number): UInt64(exactly: number)
        case .text(let text): ByteCountArgument(argument: text)?.value
        case .flag, .list, .other: nil
        }
      }, write: { .number(Int(clamping: $0)) }, accept: accept)
  }
}
