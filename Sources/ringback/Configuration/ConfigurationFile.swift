import Foundation
import RingKit

/// What is wrong with the configuration, a line each.
struct ConfigurationFailure: Error, Equatable, CustomStringConvertible {
  var complaints: [String]
  var description: String { complaints.joined(separator: "\n") }
}

/// A configuration file.
struct ConfigurationFile {
  /// Bytes of a file at most.
  static let byteLimit = 65_536
  /// The parser is given so long.
  static let patienceMilliseconds: Int32 = 10_000

  let path: String
  /// The program whose ``ParseConfiguration`` parses.
  var executable = "/proc/self/exe"

  /// The settings in the file; what it leaves out is nil. Nil when there is no such file.
  func settings() throws(ConfigurationFailure) -> DaemonSettings? {
    guard let file = try open() else { return nil }
    let parsed = try parse(file)
    if let fault = parsed.fault {
      throw failure("\(place(fault.line, fault.column)): this is no TOML: \(fault.reason)")
    }
    var settings = DaemonSettings()
    let complaints = parsed.entries.compactMap { entry in
      settings.take(entry).map { "\(place(entry.line)): \($0)" }
    }
    guard complaints.isEmpty else { throw ConfigurationFailure(complaints: complaints) }
    return settings
  }

  private func place(_ line: Int?, _ column: Int? = nil) -> String {
    ([path] + [line, column].compactMap { $0.map(String.init) }).joined(separator: ":")
  }

  private func failure(_ complaint: String) -> ConfigurationFailure {
    ConfigurationFailure(complaints: [complaint])
  }

  private func open() throws(ConfigurationFailure) -> FileHandle? {
    do {
      // A link is followed; what is no plain file might never end, or never begin.
      let target = URL(filePath: path).resolvingSymlinksInPath().path
      let facts = try FileManager.default.attributesOfItem(atPath: target)
      guard facts[.type] as? FileAttributeType == .typeRegular else {
        throw failure("\(path) is no plain file")
      }
      guard (facts[.size] as? Int ?? 0) <= Self.byteLimit else {
        throw failure("\(path) has more than \(Self.byteLimit) bytes; is it a configuration of ringback's?")
      }
      return try FileHandle(forReadingFrom: URL(filePath: target))
    } catch let failure as ConfigurationFailure {
      throw failure
    } catch CocoaError.fileReadNoSuchFile, CocoaError.fileNoSuchFile {
      return nil
    } catch {
      throw failure("\(path) cannot be read: \(Self.reason(error))")
    }
  }

  private static func reason(_ error: any Error) -> String {
    let underlying = (error as NSError).userInfo[NSUnderlyingErrorKey] as? NSError
    guard let underlying, underlying.domain == NSPOSIXErrorDomain else { return error.localizedDescription }
    return SystemError(call: "open", errno: Int32(underlying.code)).description
  }

  private func parse(_ file: FileHandle) throws(ConfigurationFailure) -> ParsedConfiguration {
    var said = ""
    do {
      let parser = try ChildProcess(
        path: executable, arguments: ["parse-configuration"], passing: [file.fileDescriptor])
      defer { _ = parser.killAndReap() }
      var bytes: [UInt8] = []
      var poll = DescriptorPoll()
      poll.set([(parser.errorDescriptor, false)])
      while try !poll.wait(timeoutMilliseconds: Self.patienceMilliseconds).isEmpty {
        guard let more = parser.readErrors() else { continue }
        guard !more.isEmpty else { break }
        bytes += more
      }
      said = String(decoding: bytes, as: UTF8.self)
    } catch {
      throw failure("\(path): the parser does not start: \(error)")
    }
    let lines = said.split(separator: "\n")
    if let answer = lines.last, answer.hasPrefix("="),
      let parsed = try? JSONDecoder().decode(ParsedConfiguration.self, from: Data(answer.dropFirst().utf8))
    {
      return parsed
    }
    let line = lines.last { $0.hasPrefix("@") }.flatMap { Int($0.dropFirst()) }
    throw failure("\(place(line)): this is no TOML, or none that can be understood")
  }
}
