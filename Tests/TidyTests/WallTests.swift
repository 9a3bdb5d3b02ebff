import Testing

/// The walls of the design: which room may import what, and where unsafe code may stand.
@Suite struct WallTests {
  /// What a room may import, by the longest folder prefix that matches.
  static let rooms: [(folder: String, allowed: Set<String>)] = [
    ("Sources/RingKit/Ring", ["CShared"]),
    ("Sources/RingKit/Xenbus", []),
    ("Sources/RingKit/Statistics", ["Histogram"]),
    (
      "Sources/RingKit", ["CShared", "CXen", "CUring", "CAIO", "CNBD", "Glibc", "Synchronization"]
    ),
    ("Sources/Blkback/Engine", ["RingKit"]),
    ("Sources/Blkback/Wire", ["RingKit"]),
    ("Sources/Blkback", ["RingKit", "Synchronization"]),
    ("Sources/Netback/Engine", ["RingKit"]),
    ("Sources/Netback/Wire", ["RingKit"]),
    ("Sources/Netback", ["RingKit", "Synchronization"]),
    ("Sources/Frontends", ["RingKit", "Blkback", "Netback", "Glibc", "Synchronization"]),
    ("Sources/Loopback", ["RingKit", "CUring", "CXen", "CShared", "Glibc", "Synchronization"]),
    ("Sources/Simulator", ["RingKit", "Blkback", "Netback", "Frontends", "Synchronization"]),
    (
      "Sources/ringback/Configuration",
      ["RingKit", "Blkback", "Netback", "ArgumentParser", "Foundation", "Glibc", "TOMLKit"]
    ),
    (
      "Sources/ringback",
      [
        "RingKit", "Blkback", "Netback", "Frontends", "Loopback", "Simulator", "ArgumentParser", "Logging",
        "Foundation",
        "Glibc", "Synchronization",
      ]
    ),
  ]

  static let accessWords: Set<String> = ["public", "internal", "package", "private", "fileprivate"]

  @Test func everyRoomImportsOnlyWhatItMay() throws {
    for path in try Tree.files(under: ["Sources"], extensions: ["swift"]) {
      let room = Self.rooms.first { path.hasPrefix($0.folder + "/") }
      let allowed = try #require(room, "\(path) is in no room of the design; add the room to this test")
        .allowed
      for line in try Tree.code(path) {
        var words = line.split(separator: " ")
        while let first = words.first, first.hasPrefix("@") || Self.accessWords.contains(String(first)) {
          words.removeFirst()
        }
        guard words.count > 1, words[0] == "import" else { continue }
        let kinds = ["struct", "func", "class", "enum", "protocol"]
        let name = kinds.contains(String(words[1])) && words.count > 2 ? words[2] : words[1]
        let module = String(name.prefix { $0 != "." })
        #expect(allowed.contains(module), "\(path) imports \(module), which its room may not")
      }
    }
  }

  @Test func backendsHoldNoUnsafeCode() throws {
    for path in try Tree.files(under: ["Sources/Blkback", "Sources/Netback"], extensions: ["swift"]) {
      for (number, line) in try Tree.code(path).enumerated() {
        #expect(
          !line.contains(/\bunsafe\b|@unsafe|Unsafe(Mutable)?(Raw)?(Buffer)?Pointer|nonisolated\(unsafe\)/),
          "\(path):\(number + 1) is unsafe; put it behind a fenced type of RingKit")
      }
    }
  }

  @Test func theDataPathAsksNoClockAndNoTask() throws {
    let folders = [
      "Sources/Blkback/Engine", "Sources/Blkback/Wire", "Sources/Netback/Engine", "Sources/Netback/Wire",
      "Sources/RingKit/Ring", "Sources/RingKit/Xenbus",
    ]
    for path in try Tree.files(under: folders, extensions: ["swift"]) {
      for (number, line) in try Tree.code(path).enumerated() {
        #expect(
          !line.contains(/\b(Task|ContinuousClock|SuspendingClock|async|await|actor)\b/),
          "\(path):\(number + 1): a core is a state machine; time and work come in as events")
      }
    }
  }

  @Test func onlyCSharedTouchesGuestMemoryInC() throws {
    let text = try Tree.text("Sources/CShared/include/CShared.h")
    #expect(text.split(separator: "\n").count < 100, "CShared.h is to stay under 100 lines")
    #expect(try Tree.files(under: ["Sources"], extensions: ["c"]) == ["Sources/CShared/CShared.c"])
  }
}
