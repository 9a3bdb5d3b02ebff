import Blkback
import Netback
import RingKit

/// What can be set of the daemon, as far as somebody did: nil for what was left alone. One from the command
/// line lies over one from the file, over the defaults.
struct DaemonSettings: Equatable, Sendable {
  var kinds: [String]?
  var threads: Int?
  var pool: Int?
  var controlSocket: String?
  var controlDirectory: String?
  var sharedStatistics: String?

  var queues: Int?
  var ringOrder: Int?
  var indirect: Bool?
  var indirectSegments: Int?
  var discard: Bool?
  var flush: Bool?
  var barrier: Bool?
  var persistentGrants: Bool?
  var persistentPages: Int?

  var limitBytes: UInt64?
  var limitBytesBurst: UInt64?
  var limitRequests: UInt64?
  var limitRequestsBurst: UInt64?

  var ioEngine: EngineChoice?
  var poll: Int?

  var metricsFile: String?
  var metricsInterval: Int?
  var metricsListen: String?

  var logLevel: LogLevel?

  /// Where nobody said anything. What stays nil is described by its ``Setting/fallback``.
  static let defaults: DaemonSettings = {
    let offer = VbdOffer()
    var settings = DaemonSettings()
    settings.kinds = [defaultKind]
    settings.pool = 32
    settings.sharedStatistics = SharedStatistics.usualDirectory
    settings.ringOrder = offer.maximumRingPageOrder
    settings.indirect = true
    settings.indirectSegments = offer.indirectSegments
    settings.discard = offer.discard
    settings.flush = offer.flush
    settings.barrier = offer.barrier
    settings.persistentGrants = offer.persistentGrants
    settings.persistentPages = offer.persistentPageLimit
    settings.limitBytes = 0
    settings.limitBytesBurst = 0
    settings.limitRequests = 0
    settings.limitRequestsBurst = 0
    settings.ioEngine = .automatic
    settings.poll = 0
    settings.metricsInterval = 15
    settings.logLevel = .info
    return settings
  }()

  /// These settings, and where they say nothing, the others.
  func over(_ others: DaemonSettings) -> DaemonSettings {
    var settings = others
    for setting in Setting.all { setting.carry(self, &settings) }
    return settings
  }

  /// Takes what a file says; what is wrong with it, if something is.
  mutating func take(_ entry: ParsedConfiguration.Entry) -> String? {
    guard let name = entry.section else { return Self.complaint(aboveSections: entry.key ?? "") }
    guard let section = Setting.Section(rawValue: name) else {
      // Its keys would only say the same again.
      return entry.key == nil ? Self.complaint(section: name) : nil
    }
    guard let key = entry.key, let value = entry.value else { return nil }
    let known = Setting.all.filter { $0.section == section }
    guard let setting = known.first(where: { $0.key == key }) else {
      return Self.complaint(key: key, in: section, known: known.map(\.key))
    }
    return setting.take(value, &self) ? nil : setting.complaint(about: value, to: .file)
  }

  /// What is wrong with what was given on the command line.
  var complaints: [String] {
    Setting.all.compactMap { setting in
      setting.refused(self).map { setting.complaint(about: $0, to: .commandLine) }
    }
  }

  private static func complaint(aboveSections key: String) -> String {
    if Setting.Section(rawValue: key) != nil {
      return "\(key) is a section: write [\(key)] on a line of its own"
    }
    if let setting = Setting.all.first(where: { $0.key == key || $0.option == key }) {
      return "\(key) stands above all sections: write \(setting.key) below [\(setting.section.rawValue)]"
    }
    return "\(key) stands above all sections, and is no key; \(sectionNames)"
  }

  private static func complaint(section name: String) -> String {
    let names = Setting.Section.allCases.map(\.rawValue)
    let nearest = NearestWord.find(to: name, among: names).map { "did you mean [\($0)]? " } ?? ""
    return "there is no section [\(name)]; \(nearest)\(sectionNames)"
  }

  private static func complaint(key: String, in section: Setting.Section, known: [String]) -> String {
    let name = "[\(section.rawValue)]"
    let elsewhere = Setting.all.first { $0.option == key || ($0.key == key && $0.section != section) }
    let advice =
      if let nearest = NearestWord.find(to: key, among: known) {
        "did you mean \(nearest)?"
      } else if let elsewhere {
        "\(elsewhere.place) is what you may mean"
      } else {
        "its keys are \(known.joined(separator: ", "))"
      }
    return "\(name) has no key \(key); \(advice)"
  }

  private static var sectionNames: String {
    "the sections are \(Setting.Section.allCases.map { "[\($0.rawValue)]" }.joined(separator: ", "))"
  }
}

extension DaemonSettings {
  /// What guests are offered.
  var offer: VbdOffer {
    var offer = VbdOffer()
    offer.maximumQueues = queues
    offer.maximumRingPageOrder = ringOrder ?? offer.maximumRingPageOrder
    offer.indirectSegments = indirect == false ? 0 : indirectSegments ?? offer.indirectSegments
    offer.discard = discard ?? offer.discard
    offer.flush = flush ?? offer.flush
    offer.barrier = barrier ?? offer.barrier
    offer.persistentGrants = persistentGrants ?? offer.persistentGrants
    offer.persistentPageLimit = persistentPages ?? offer.persistentPageLimit
    return offer
  }

  /// What the guests of interfaces are offered.
  var vifOffer: VifOffer {
    var offer = VifOffer()
    offer.maximumQueues = queues
    return offer
  }

  /// What disks may do that have no limits of their own.
  var limits: RateLimits {
    get throws(RateLimitsError) {
      try RateLimits(
        bytesPerSecond: limitBytes ?? 0, bytesBurst: limitBytesBurst ?? 0,
        requestsPerSecond: limitRequests ?? 0,
        requestsBurst: limitRequestsBurst ?? 0)
    }
  }

  /// How data threads work.
  var threadConfiguration: DataThreadConfiguration {
    var configuration = DataThreadConfiguration()
    configuration.pollNanoseconds = UInt64(poll ?? 0) * 1000
    configuration.engine = (ioEngine ?? .automatic).engine
    configuration.poolByteCount = pool.map { $0 << 20 } ?? configuration.poolByteCount
    return configuration
  }

  var sharedStatisticsDirectory: String? { sharedStatistics == "-" ? nil : sharedStatistics }

  var metrics: MetricsFile? {
    metricsFile.map { MetricsFile(path: $0, intervalSeconds: metricsInterval ?? 15) }
  }

  var metricsAddress: MetricsAddress? { metricsListen.flatMap { MetricsAddress($0) } }
}
