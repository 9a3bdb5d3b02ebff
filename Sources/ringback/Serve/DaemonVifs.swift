import Netback
import RingKit

/// What the daemon keeps for interfaces.
struct DaemonVifs {
  /// The kind that toolstacks know for interfaces (libxl_nic.c).
  static let kind = "vif"

  /// Those that are there.
  var devices: [DeviceAddress: Vif] = [:]
  /// What their data threads report.
  let inbox: Mailbox<(DeviceAddress, VifEvent)>
  /// Their data threads, started with the first interface: disks and interfaces share none, so that a daemon
  /// without interfaces pays nothing for them.
  var threads: [DataThread<NetQueue>] = []
  var nextThread = 0
  /// Tells of TAPs that scripts rename, set up, or give another MTU.
  var watch: LinkWatch?
  /// What was left by earlier daemons has been looked through.
  var hasTidied = false

  init() throws { inbox = try Mailbox() }
}
