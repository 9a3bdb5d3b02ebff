import ArgumentParser
import Blkback
import Foundation

/// Bounds what a disk may do.
struct Limit: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Limit how much a disk may do, at once and for the daemons to come; or tell its limits.",
    discussion: """
      The limits named replace all that were: what is not named is not limited. Without any, the present limits \
      are told. A burst passes at once after idle time.
      """)

  @OptionGroup var verb: DiskVerbOptions

  @Option(help: ArgumentHelp("Bytes a second, such as 100M.", valueName: "bytes"))
  var bytes: ByteCountArgument?

  @Option(help: ArgumentHelp("Bytes that pass at once after idle time.", valueName: "bytes"))
  var bytesBurst: ByteCountArgument?

  @Option(help: ArgumentHelp("Requests a second.", valueName: "count"))
  var requests: UInt64?

  @Option(help: ArgumentHelp("Requests that pass at once after idle time.", valueName: "count"))
  var requestsBurst: UInt64?

  @Flag(help: "Lift all limits.")
  var none = false

  func validate() throws {
    guard !none || named == nil else {
      throw ValidationError("--none lifts all limits; name none beside it")
    }
    try LimitReport.check(named)
  }

  private var named: LimitReport? {
    LimitReport(bytes: bytes, bytesBurst: bytesBurst, requests: requests, requestsBurst: requestsBurst)
  }

  func run() throws {
    var question = ControlQuestion(.limit)
    question.limits = none ? LimitReport() : named
    try verb.ask(question) { "\(verb.disk): limits: \($0.limits ?? LimitReport())" }
  }
}

extension LimitReport {
  /// The limits that options name; nil when they name none.
  init?(
    bytes: ByteCountArgument?, bytesBurst: ByteCountArgument?, requests: UInt64?, requestsBurst: UInt64?
  ) {
    guard bytes != nil || bytesBurst != nil || requests != nil || requestsBurst != nil else { return nil }
    bytesPerSecond = bytes?.value ?? 0
    self.bytesBurst = bytesBurst?.value ?? 0
    requestsPerSecond = requests ?? 0
    self.requestsBurst = requestsBurst ?? 0
  }

  /// Says on the command line what the daemon would say.
  static func check(_ limits: LimitReport?) throws {
    do {
      _ = try limits?.checked()
    } catch {
      throw ValidationError("\(error)")
    }
  }
}

/// A number of bytes on the command line: "4096", "100M".
struct ByteCountArgument: ExpressibleByArgument {
  let value: UInt64

  init?(argument: String) {
    let shifts: [Character: UInt64] = ["K": 10, "M": 20, "G": 30, "T": 40]
    let shift = argument.last.flatMap { shifts[$0] }
    let digits = shift == nil ? argument : String(argument.dropLast())
    guard !digits.isEmpty, digits.allSatisfy({ $0.isASCII && $0.isNumber }), let number = UInt64(digits)
    else {
      return nil
    }
    let (bytes, overflow) = number.multipliedReportingOverflow(by: 1 << (shift ?? 0))
    guard !overflow else { return nil }
    value = bytes
  }

  var defaultValueDescription: String { "\(value)" }
}
