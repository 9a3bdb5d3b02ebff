import Blkback
import RingKit

/// What the daemon is told by its command line and its configuration file.
struct DaemonConfiguration {
  var kinds: [String]
  var threadCount: Int
  var controlSocketPath: String
  /// Where the sockets of taps are; scripts and xenstore nodes name them (blktap.h, BLKTAP2_CONTROL_DIR).
  var tapDirectory = "/run/blktap-control"
  var offer = VbdOffer()
  var defaultLimits = RateLimits.unlimited
  /// Where the statistics for xentop go; nil for nowhere.
  var sharedStatisticsDirectory: String?
  var metricsFile: MetricsFile?
  var metricsAddress: MetricsAddress?
  var threads = DataThreadConfiguration()
  /// What all this was made of, and may be made of anew.
  var settings = DaemonSettings.defaults
  var source = ConfigurationSource()
}
