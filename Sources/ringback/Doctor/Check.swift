/// One thing that was looked at: what was found, and how to mend it.
struct Check: Codable, Equatable, Sendable {
  /// What a finding means for serving guests.
  enum Verdict: String, Codable, CaseIterable, Sendable {
    case ok
    /// Guests can be served, but not all of it works.
    case warning
    /// Guests cannot be served.
    case problem
  }

  /// A word or two: what was looked at.
  var name: String
  var verdict: Verdict
  var finding: String
  /// Absent when there is nothing to mend.
  var remedy: String?

  static func ok(_ name: String, _ finding: String) -> Check {
    Check(name: name, verdict: .ok, finding: finding)
  }

  static func warning(_ name: String, _ finding: String, mend remedy: String) -> Check {
    Check(name: name, verdict: .warning, finding: finding, remedy: remedy)
  }

  static func problem(_ name: String, _ finding: String, mend remedy: String) -> Check {
    Check(name: name, verdict: .problem, finding: finding, remedy: remedy)
  }

  /// What an error's message says: most tell behind a semicolon how to mend it.
  static func failure(_ name: String, _ verdict: Verdict, _ message: String, orMend remedy: String) -> Check {
    guard let end = message.firstRange(of: "; ") else {
      return Check(name: name, verdict: verdict, finding: message, remedy: remedy)
    }
    return Check(
      name: name, verdict: verdict, finding: String(message[..<end.lowerBound]),
      remedy: String(message[end.upperBound...]))
  }
}

/// All that was found.
struct Diagnosis: Codable, Equatable {
  var canServe: Bool
  var checks: [Check]

  init(_ checks: [Check]) {
    self.checks = checks
    canServe = !checks.contains { $0.verdict == .problem }
  }

  /// A line for each check, with the remedy below it; in colour for terminals.
  func lines(inColour: Bool = false) -> [String] {
    let width = checks.map(\.name.count).max() ?? 0
    var lines: [String] = []
    for check in checks {
      let name = check.name.padding(to: width)
      lines.append("\(check.verdict.word(inColour: inColour))  \(name)  \(check.finding)")
      if let remedy = check.remedy {
        let margin = String(repeating: " ", count: Check.Verdict.width + width + 4)
        for (index, line) in Self.wrapped(remedy, to: Self.lineWidth - margin.count - 3).enumerated() {
          lines.append("\(margin)\(index == 0 ? "->" : "  ") \(line)")
        }
      }
    }
    let counts = [Check.Verdict.problem, .warning].compactMap { verdict -> String? in
      let count = checks.count { $0.verdict == verdict }
      return count == 0 ? nil : "\(count) \(verdict.rawValue)\(count == 1 ? "" : "s")"
    }
    let verdict = canServe ? "guests can be served" : "guests cannot be served"
    return lines + ["", counts.isEmpty ? verdict : "\(verdict): \(counts.joined(separator: ", "))"]
  }

  /// Characters of a line of a remedy.
  private static let lineWidth = 110

  private static func wrapped(_ text: String, to width: Int) -> [String] {
    var lines = [""]
    for word in text.split(separator: " ") {
      let line = lines[lines.count - 1]
      if line.isEmpty {
        lines[lines.count - 1] = String(word)
      } else if line.count + 1 + word.count <= width {
        lines[lines.count - 1] = "\(line) \(word)"
      } else {
        lines.append(String(word))
      }
    }
    return lines
  }
}

extension Check.Verdict {
  /// Characters of the longest one.
  static let width = allCases.map(\.rawValue.count).max() ?? 0

  fileprivate func word(inColour: Bool) -> String {
    let word = rawValue.padding(to: Self.width)
    guard inColour else { return word }
    let colour =
      switch self {
      case .ok: 32
      case .warning: 33
      case .problem: 31
      }
    return "\u{1B}[\(colour)m\(word)\u{1B}[0m"
  }
}

extension String {
  fileprivate func padding(to width: Int) -> String {
    self + String(repeating: " ", count: max(0, width - count))
  }
}
