import Foundation
import RingKit
import Testing

/// A strict reader of the OpenMetrics text format 1.0, by its ABNF and the rules in its words: what it takes,
/// Prometheus takes.
struct MetricsScrape {
  /// One line with a value.
  struct Sample: Equatable {
    var name: String
    var labels: [String: String]
    var value: Double
  }

  /// One metric family.
  struct Family {
    var name: String
    var type: String
    var unit: String?
    var help: String?
    var samples: [Sample] = []
  }

  /// What is wrong, and in which line.
  struct Malformed: Error, CustomStringConvertible {
    var line: Int
    var reason: String
    var description: String { "line \(line): \(reason)" }
  }

  private(set) var families: [String: Family] = [:]

  /// The value of the one sample with this name and at least these labels.
  func value(_ name: String, _ labels: [String: String] = [:]) -> Double? {
    let found = families.values.flatMap(\.samples).filter { sample in
      sample.name == name && labels.allSatisfy { sample.labels[$0.key] == $0.value }
    }
    return found.count == 1 ? found[0].value : nil
  }

  static let suffixes: [String: Set<String>] = [
    "gauge": [""], "counter": ["_total", "_created"], "histogram": ["_bucket", "_sum", "_count", "_created"],
  ]

  init(_ text: String) throws {
    guard text.hasSuffix("# EOF\n") else { throw Malformed(line: 0, reason: "does not end with # EOF") }
    var lines = text.split(separator: "\n", omittingEmptySubsequences: false)
    // The last is what follows the last line feed.
    guard lines.removeLast().isEmpty else { throw Malformed(line: 0, reason: "the last line has no end") }
    var current: Family?
    var names: Set<String> = []
    for (index, line) in lines.enumerated() {
      func fail(_ reason: String) -> Malformed { Malformed(line: index + 1, reason: "\(reason): \(line)") }
      guard !line.isEmpty, !line.contains("\r") else { throw fail("an empty line, or a carriage return") }
      if line == "# EOF" {
        guard index == lines.count - 1 else { throw fail("# EOF in the midst") }
        break
      }
      if line.hasPrefix("#") {
        guard let match = line.wholeMatch(of: /# (TYPE|UNIT|HELP) ([a-zA-Z_:][a-zA-Z0-9_:]*) (.*)/) else {
          throw fail("no comment that the format knows")
        }
        let (word, name, rest) = (match.1, String(match.2), String(match.3))
        if name != current?.name {
          try Self.close(current, into: &families, line: index)
          guard names.insert(name).inserted else { throw fail("a family comes twice") }
          current = Family(name: name, type: "unknown")
        }
        guard current?.samples.isEmpty == true else { throw fail("a comment after the samples") }
        switch word {
        case "TYPE":
          guard Self.suffixes[rest] != nil else { throw fail("unknown type") }
          current?.type = rest
        case "UNIT":
          guard name.hasSuffix("_\(rest)") else { throw fail("the name does not end in its unit") }
          current?.unit = rest
        default: current?.help = rest
        }
        continue
      }
      let sample = try Self.sample(line, fail)
      guard let family = current, sample.name.hasPrefix(family.name),
        Self.suffixes[family.type]?.contains(String(sample.name.dropFirst(family.name.count))) == true
      else { throw fail("no sample of the family before it") }
      guard !family.samples.contains(where: { $0.name == sample.name && $0.labels == sample.labels }) else {
        throw fail("the same sample twice")
      }
      current?.samples.append(sample)
    }
    try Self.close(current, into: &families, line: lines.count)
  }

  private static func sample(_ line: Substring, _ fail: (String) -> Malformed) throws -> Sample {
    guard let head = line.prefixMatch(of: /([a-zA-Z_:][a-zA-Z0-9_:]*)(\{)?/) else { throw fail("no name") }
    var rest = line[head.range.upperBound...]
    var labels: [String: String] = [:]
    if head.2 != nil {
      while !rest.hasPrefix("}") {
        if !labels.isEmpty {
          guard rest.hasPrefix(",") else { throw fail("no comma between labels") }
          rest = rest.dropFirst()
        }
        guard let label = rest.prefixMatch(of: /([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"/) else {
          throw fail("no label")
        }
        guard labels.updateValue(String(label.2), forKey: String(label.1)) == nil else {
          throw fail("a label twice")
        }
        rest = rest[label.range.upperBound...]
      }
      rest = rest.dropFirst()
    }
    guard rest.hasPrefix(" "), let value = Double(rest.dropFirst()), !rest.dropFirst().hasPrefix(" ") else {
      throw fail("no value")
    }
    return Sample(name: String(head.1), labels: labels, value: value)
  }

  /// The rules for a whole family.
  private static func close(_ family: Family?, into families: inout [String: Family], line: Int) throws {
    guard let family else { return }
    func fail(_ reason: String) -> Malformed { Malformed(line: line, reason: "\(family.name): \(reason)") }
    if family.type == "counter", family.samples.contains(where: { !($0.value >= 0) }) {
      throw fail("a counter below zero")
    }
    if family.type == "histogram" { try checkHistograms(family, fail) }
    families[family.name] = family
  }

  private static func checkHistograms(_ family: Family, _ fail: (String) -> Malformed) throws {
    var buckets: [[String: String]: [(bound: Double, count: Double)]] = [:]
    for sample in family.samples where sample.name.hasSuffix("_bucket") {
      var labels = sample.labels
      guard let text = labels.removeValue(forKey: "le"),
        let bound = Double(text) ?? (text == "+Inf" ? .infinity : nil)
      else { throw fail("a bucket without a bound") }
      buckets[labels, default: []].append((bound, sample.value))
    }
    for (labels, list) in buckets {
      guard zip(list, list.dropFirst()).allSatisfy({ $0.bound < $1.bound && $0.count <= $1.count }) else {
        throw fail("buckets are out of order or not cumulative")
      }
      let count = family.samples.first { $0.name.hasSuffix("_count") && $0.labels == labels }?.value
      guard list.last?.bound == .infinity, list.last?.count == count else {
        throw fail("the last bucket is not all there are")
      }
      guard family.samples.contains(where: { $0.name.hasSuffix("_sum") && $0.labels == labels }) else {
        throw fail("no sum")
      }
    }
  }
}

extension MetricsScrape {
  /// What a daemon tells at its socket, as Prometheus would ask.
  init(socket path: String) throws {
    let client = try LocalSocket.connect(path: path)
    _ = try client.write(Array("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".utf8)[...])
    var reply: [UInt8] = []
    while let bytes = try client.read(), !bytes.isEmpty { reply += bytes }
    let text = String(decoding: reply, as: UTF8.self)
    #expect(text.hasPrefix("HTTP/1.1 200 OK\r\n"))
    let end = try #require(text.range(of: "\r\n\r\n"))
    try self.init(String(text[end.upperBound...]))
  }
}
