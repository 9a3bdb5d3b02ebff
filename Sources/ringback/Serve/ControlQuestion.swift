import Foundation
import RingKit

/// What a program may ask the daemon on its control socket: one line of JSON, such as
/// `{"do":"pause","domain":1,"vdev":51712}`, or one of the plain words `list` and `stats`.
struct ControlQuestion: Codable, Equatable {
  /// The verbs.
  enum Verb: String, Codable, CaseIterable {
    case list, stats, pause, resume, resize, insert, eject, limit, tap, capture

    /// Whether it is about one disk.
    var namesADisk: Bool { self != .list && self != .stats && self != .tap && self != .capture }
  }

  var `do`: Verb
  var domain: UInt16?
  var vdev: UInt32?
  /// Kind of backend; may be left out when the domain has only one such device. list, stats: "vif" asks for
  /// interfaces, anything else and nothing for disks.
  var kind: String?
  /// stats, capture: number of the interface.
  var vif: UInt32?
  /// resume: the image to go on with. insert: the medium.
  var image: String?
  /// resume: whether the new image may have another size.
  var allowResize: Bool?
  /// resize: whether the disk may become smaller.
  var allowShrink: Bool?
  /// stats: whether each queue is told of.
  var queues: Bool?
  /// stats: whether the steps of the latencies are told.
  var steps: Bool?
  /// limit: the new limits, as a whole; absent to ask for the present ones.
  var limits: LimitReport?
  /// tap: what is asked of a tap.
  var tap: TapQuestion?
  /// capture: which frames are wanted.
  var capture: CaptureQuestion?

  init(_ verb: Verb) { self.do = verb }

  init(_ tap: TapQuestion) { (self.do, self.tap) = (.tap, tap) }

  /// Understands a line, or says what is wrong with it.
  static func parse(_ line: String) -> Result<ControlQuestion, ControlFailure> {
    let text = line.trimmingCharacters(in: .whitespaces)
    let known = Verb.allCases.map(\.rawValue).joined(separator: ", ")
    guard text.hasPrefix("{") else {
      guard let verb = Verb(rawValue: text), verb == .list || verb == .stats else {
        return .failure(
          ControlFailure("unknown question \"\(text.prefix(64))\"; ask with JSON: {\"do\": one of \(known)}"))
      }
      return .success(ControlQuestion(verb))
    }
    do {
      let question = try JSONDecoder().decode(ControlQuestion.self, from: Data(text.utf8))
      if question.do.namesADisk && (question.domain == nil || question.vdev == nil) {
        return .failure(
          ControlFailure("\"\(question.do.rawValue)\" needs \"domain\" and \"vdev\", both numbers"))
      }
      if question.do == .tap && question.tap == nil {
        return .failure(ControlFailure("\"tap\" needs \"tap\", such as {\"verb\": \"list\"}"))
      }
      if question.do == .capture && (question.domain == nil || question.vif == nil) {
        return .failure(ControlFailure("\"capture\" needs \"domain\" and \"vif\", both numbers"))
      }
      if question.do == .insert && question.image == nil {
        return .failure(ControlFailure("\"insert\" needs \"image\""))
      }
      return .success(question)
    } catch DecodingError.keyNotFound(let key, _) {
      return .failure(ControlFailure("the question has no \"\(key.stringValue)\"; known to do: \(known)"))
    } catch DecodingError.typeMismatch(_, let context), DecodingError.valueNotFound(_, let context) {
      return .failure(ControlFailure("\(path(context)) is of the wrong type"))
    } catch DecodingError.dataCorrupted(let context) where !context.codingPath.isEmpty {
      return .failure(ControlFailure("\(path(context)) is out of range or unknown; known to do: \(known)"))
    } catch {
      return .failure(ControlFailure("the question is not JSON"))
    }
  }

  private static func path(_ context: DecodingError.Context) -> String {
    "\"\(context.codingPath.map(\.stringValue).joined(separator: "."))\""
  }

  /// The question as the line that is sent.
  var line: String {
    get throws {
      let encoder = JSONEncoder()
      encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
      return String(decoding: try encoder.encode(self), as: UTF8.self)
    }
  }
}

/// Why a question was not answered as hoped.
struct ControlFailure: Error, Codable, Equatable {
  var error: String
  /// A number of errno.h, where one tells more than the words; only about taps.
  var errno: Int32?

  init(_ error: String, errno: Int32? = nil) { (self.error, self.errno) = (error, errno) }
}

/// Answers as text.
enum ControlReply {
  /// `{"error": "..."}`.
  static func failure(_ message: String) -> String {
    (try? ControlFailure(message).json()) ?? #"{"error": "the answer could not be written"}"#
  }

  /// A value's JSON.
  static func value(_ value: some Encodable) -> String {
    (try? value.json()) ?? failure("the answer could not be written as JSON")
  }
}

/// What a verb about one disk answers when it is done.
struct DiskReply: Codable, Equatable {
  var domain: UInt16
  var vdev: UInt32
  var kind: String
  var image: String
  /// Bytes of the disk; 0 for an empty drive.
  var byteCount: UInt64
  var isPaused: Bool
  /// Absent when there are none.
  var limits: LimitReport?
}

/// Limits of a disk, 0 for none.
struct LimitReport: Codable, Equatable {
  var bytesPerSecond: UInt64 = 0
  var bytesBurst: UInt64 = 0
  var requestsPerSecond: UInt64 = 0
  var requestsBurst: UInt64 = 0

  init() {}

  /// What is not named is not limited.
  init(from decoder: any Decoder) throws {
    let values = try decoder.container(keyedBy: CodingKeys.self)
    bytesPerSecond = try values.decodeIfPresent(UInt64.self, forKey: .bytesPerSecond) ?? 0
    bytesBurst = try values.decodeIfPresent(UInt64.self, forKey: .bytesBurst) ?? 0
    requestsPerSecond = try values.decodeIfPresent(UInt64.self, forKey: .requestsPerSecond) ?? 0
    requestsBurst = try values.decodeIfPresent(UInt64.self, forKey: .requestsBurst) ?? 0
  }

  /// The limits, if they make sense.
  func checked() throws(RateLimitsError) -> RateLimits {
    try RateLimits(
      bytesPerSecond: bytesPerSecond, bytesBurst: bytesBurst, requestsPerSecond: requestsPerSecond,
      requestsBurst: requestsBurst)
  }
}
