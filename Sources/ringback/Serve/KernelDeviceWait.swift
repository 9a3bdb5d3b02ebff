import Foundation
import RingKit

/// Gives the kernel time to notice a device before it leaves the state Initialising.
///
/// Linux makes a device below `/sys/bus/xen-backend` of every backend directory, driver or not, but only while
/// its state is Initialising (xenbus_probe.c, xenbus_probe_node); xentop shows only disks that have one. The
/// kernel gets the same watch as we do, so it takes milliseconds at most.
struct KernelDeviceWait {
  static let longestNanoseconds: UInt64 = 100_000_000
  static let stepNanoseconds: UInt64 = 2_000_000

  /// Where the kernel lists its devices.
  var directory = "/sys/bus/xen-backend/devices"
  private var deadlines: [DeviceAddress: UInt64] = [:]

  init(directory: String = "/sys/bus/xen-backend/devices") { self.directory = directory }

  /// The devices that wait.
  var waiting: [DeviceAddress] { Array(deadlines.keys) }

  /// Whether a device in state Initialising may be taken: the kernel has it, will not have it, or had its time.
  mutating func mayTake(_ device: DeviceAddress, atNanoseconds now: UInt64) -> Bool {
    let files = FileManager.default
    let path = "\(directory)/\(device.kind)-\(device.domain)-\(device.device)"
    let deadline = deadlines[device] ?? now + Self.longestNanoseconds
    guard files.fileExists(atPath: directory), !files.fileExists(atPath: path), now < deadline else {
      deadlines[device] = nil
      return true
    }
    deadlines[device] = deadline
    return false
  }

  /// The device went.
  mutating func forget(_ device: DeviceAddress) { deadlines[device] = nil }
}
