import ArgumentParser
import Foundation
import Glibc
import RingKit

/// The process that parses a configuration file for another one, which gives it the open file as descriptor 3
/// and reads standard error: `@LINE` before each part that is parsed, and at last `=` with the
/// ``ParsedConfiguration`` as JSON.
struct ParseConfiguration: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "parse-configuration", abstract: "Parse a configuration file for `ringback serve`.",
    shouldDisplay: false)

  func run() throws {
    // The parser may abort on a text that is no TOML: no core file is wanted for it.
    signal(SIGABRT) { _ in _exit(70) }
    let data = try FileHandle(fileDescriptor: 3, closeOnDealloc: false).readToEnd() ?? Data()
    let parsed: ParsedConfiguration
    if let fault = Self.unreadable(data) {
      parsed = ParsedConfiguration(fault: fault)
    } else {
      parsed = ConfigurationText(String(decoding: data, as: UTF8.self)).parse { say("@\($0)\n") }
    }
    say("=" + String(decoding: try JSONEncoder().encode(parsed), as: UTF8.self))
  }

  /// The parser's strings end at a zero byte, and what is not UTF-8 would be mended on its way to it.
  private static func unreadable(_ data: Data) -> ParsedConfiguration.Fault? {
    for (index, line) in data.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
      .enumerated()
    {
      if line.contains(0) { return ParsedConfiguration.Fault(line: index + 1, reason: "a zero byte") }
      if String(validating: line, as: UTF8.self) == nil {
        return ParsedConfiguration.Fault(line: index + 1, reason: "bytes that are not UTF-8")
      }
    }
    return nil
  }

  private func say(_ text: String) { FileHandle.standardError.write(Data(text.utf8)) }
}
