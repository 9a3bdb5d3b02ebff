import Netback
import RingKit

/// What the daemon keeps for interfaces.
struct DaemonVifs {
  /// The kind that toolstacks know for interfaces (libxl_nic.c).
  static let kind = "vif"

  /// Those that are there.
  var devices: [DeviceAddress: Vif] = [:]
  /// Switches that interfaces are at, by name.
  var switches: [String: VirtualSwitch] = [:]
  /// What their data threads report.
  let inbox: Mailbox<(DeviceAddress, VifEvent)>
  /// Their data threads, started with the first interface: disks and interfaces share none, so that a daemon
  /// without interfaces pays nothing for them.
  var threads: [DataThread<NetQueue>] = []
  var nextThread = 0
  /// Tells of TAPs that scripts rename, set up, or give another MTU.
  var watch: LinkWatch?

  /// Captures that are under way.
  var captures: [RunningCapture] = []
  /// Tells that a capture has frames.
  let bell: Mailbox<Void>

  init() throws {
    inbox = try Mailbox()
    bell = try Mailbox()
  }
}
