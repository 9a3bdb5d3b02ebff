/// Options as getopt(3) reads them, which scripts rely on: `-p5`, `-p 5` and `-RDp 5` all work, operands may stand
/// anywhere and are ignored as in the original, `--` ends the options.
struct TapArguments {
  /// In the order given; the value is empty for options that take none.
  private(set) var options: [(letter: Character, value: String)] = []

  /// Reads `words` by getopt's pattern, such as "m:p:h"; throws what a usage error says.
  init(_ words: [String], pattern: String) throws(TapUsageError) {
    let letters = Array(pattern)
    var rest = words[...]
    while let word = rest.popFirst() {
      if word == "--" { break }
      guard word.hasPrefix("-"), word.count > 1 else { continue }
      var cluster = word.dropFirst()
      while let letter = cluster.popFirst() {
        guard letter != ":", let place = letters.firstIndex(of: letter) else {
          throw TapUsageError("unknown option -\(letter)")
        }
        guard place + 1 < letters.count, letters[place + 1] == ":" else {
          options.append((letter, ""))
          continue
        }
        if cluster.isEmpty {
          guard let next = rest.popFirst() else { throw TapUsageError("option -\(letter) needs a value") }
          options.append((letter, next))
        } else {
          options.append((letter, String(cluster)))
          cluster = ""
        }
      }
    }
  }

  /// The value given last.
  subscript(letter: Character) -> String? { options.last { $0.letter == letter }?.value }

  func has(_ letter: Character) -> Bool { self[letter] != nil }

  /// A number from 0 to `limit`, nil when the option is not there.
  func number(_ letter: Character, _ name: String, below limit: Int) throws(TapUsageError) -> Int? {
    guard let text = self[letter] else { return nil }
    guard !text.isEmpty, text.allSatisfy({ $0.isASCII && $0.isNumber }), let number = Int(text),
      number < limit
    else {
      throw TapUsageError(
        "-\(letter) is a \(name), a number from 0 to \(limit - 1); not \"\(text.prefix(64))\"")
    }
    return number
  }
}

/// Why a command line could not be understood.
struct TapUsageError: Error, Equatable {
  let message: String
  init(_ message: String) { self.message = message }
}
