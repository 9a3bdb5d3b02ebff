import Foundation

/// The checkout that the tidy tests look at.
enum Tree {
  /// Top of the checkout.
  static let root = URL(filePath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()

  /// Every file below the named folders whose name ends in one of `extensions`, as paths from the top,
  /// sorted.
  static func files(under folders: [String], extensions: Set<String>) throws -> [String] {
    var found: [String] = []
    for folder in folders {
      let base = root.appending(path: folder)
      guard let walker = FileManager.default.enumerator(atPath: base.path) else {
        throw CocoaError(.fileNoSuchFile, userInfo: [NSFilePathErrorKey: base.path])
      }
      for case let name as String in walker where extensions.contains((name as NSString).pathExtension) {
        found.append("\(folder)/\(name)")
      }
    }
    return found.sorted()
  }

  /// The text of a file given by its path from the top.
  static func text(_ path: String) throws -> String {
    try String(contentsOf: root.appending(path: path), encoding: .utf8)
  }

  /// The text without comments and string literals: what the compiler acts on, line by line.
  static func code(_ path: String) throws -> [String] {
    try text(path).split(separator: "\n", omittingEmptySubsequences: false).map { line in
      var kept: [UInt8] = []
      var isInString = false
      var previous: UInt8 = 0
      for byte in line.utf8 {
        if byte == UInt8(ascii: "\""), previous != UInt8(ascii: "\\") {
          isInString.toggle()
        } else if !isInString {
          if byte == UInt8(ascii: "/"), previous == byte {
            kept.removeLast()
            break
          }
          kept.append(byte)
        }
        previous = byte
      }
      return String(decoding: kept, as: UTF8.self)
    }
  }
}
