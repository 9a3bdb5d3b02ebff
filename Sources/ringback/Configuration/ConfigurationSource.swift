import RingKit

/// Where the daemon's settings come from, and may come from again.
struct ConfigurationSource: Sendable {
  /// The usual place of the file.
  static let usualPath = "/etc/ringback.toml"

  /// What the command line says: it wins.
  var commandLine = DaemonSettings()
  /// The file; nil for none.
  var path: String?
  /// Whether the file has to be there, because somebody named it.
  var mustExist = false

  /// All settings, with the defaults where nobody said anything.
  func load() throws(ConfigurationFailure) -> DaemonSettings {
    var settings = DaemonSettings.defaults
    if let path {
      if let file = try ConfigurationFile(path: path).settings() {
        settings = file.over(settings)
      } else if mustExist {
        throw ConfigurationFailure(complaints: ["there is no file \(path)"])
      }
    }
    settings = commandLine.over(settings)
    do throws(RateLimitsError) {
      _ = try settings.limits
    } catch {
      // What is wrong with each by itself is told before: this is about two that do not go together.
      throw ConfigurationFailure(complaints: ["\(path.map { "\($0): " } ?? "")[limits]: \(error)"])
    }
    return settings
  }
}
