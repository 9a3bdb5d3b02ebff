import Testing

/// House style that a machine can check.
@Suite struct StyleTests {
  static let folders = ["Sources", "Tests", "Lab"]
  static let lineLimit = 500

  @Test func filesStayReadable() throws {
    for path in try Tree.files(under: Self.folders, extensions: ["swift", "c", "h", "sh"]) {
      let lines = try Tree.text(path).split(separator: "\n", omittingEmptySubsequences: false).count
      #expect(lines <= Self.lineLimit + 1, "\(path) has \(lines) lines; one file, one concern")
    }
  }

  /// Words that promise work instead of doing it, or that trap; each with what to write instead.
  static let banned: [(pattern: String, instead: String)] = [
    ("try" + "!", "handle or rethrow the error"),
    ("as" + "!", "use a checked cast"),
    ("fatal" + "Error(", "a typed error; nothing a guest does may trap"),
    ("TO" + "DO", "do it, or write an issue"),
    ("FIX" + "ME", "mend it"),
    ("XX" + "X", "say what is meant"),
    ("HA" + "CK", "say what is meant"),
    ("unchecked" + "Bounds", "checks stay on"),
    ("-O" + "unchecked", "checks stay on"),
    ("Thread" + ".sleep", "wait for the event itself"),
    ("us" + "leep(", "wait for the event itself"),
    (".unsafely" + "Unwrapped", "unwrap with guard"),
  ]

  /// mkdtemp's placeholder looks like one of the words.
  static let temporaryName = String(repeating: "X", count: 6)

  @Test func bannedWordsStayOut() throws {
    for path in try Tree.files(under: Self.folders, extensions: ["swift", "c", "h"]) {
      for (number, line) in try Tree.text(path).split(separator: "\n", omittingEmptySubsequences: false)
        .enumerated()
      {
        // The one wait in the sources is a transaction's step back, with its reason beside it.
        let isWaitOfSources = path.hasPrefix("Sources/") && line.contains("us" + "leep(UInt32.random")
        for word in Self.banned
        where !isWaitOfSources && line.contains(word.pattern) && !line.contains(Self.temporaryName) {
          Issue.record("\(path):\(number + 1) has \"\(word.pattern)\": \(word.instead)")
        }
      }
    }
  }

  @Test func filesAreNamedForWhatTheyHold() throws {
    for path in try Tree.files(under: ["Sources", "Tests"], extensions: ["swift"]) {
      #expect(
        !path.contains(/(Util|Helper|Manager|Misc|Common)/), "\(path): name the file for the thing it holds")
    }
  }

  @Test func uncheckedSendabilityHasAReason() throws {
    for path in try Tree.files(under: ["Sources"], extensions: ["swift"]) {
      let lines = try Tree.text(path).split(separator: "\n", omittingEmptySubsequences: false)
      for (number, line) in lines.enumerated() where line.contains("@unchecked Sendable") {
        let near = lines[max(0, number - 4)...min(lines.count - 1, number + 3)]
        #expect(
          near.contains { $0.contains("// Sound:") || $0.contains("/// Sound:") },
          "\(path):\(number + 1) claims to be Sendable without a line that begins \"Sound:\"")
      }
    }
  }
}
