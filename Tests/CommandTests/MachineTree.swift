import Foundation

@testable import ringback

/// A machine's files in a temporary directory.
final class MachineTree {
  let root: String

  /// Files by their paths.
  init(_ files: [String: String] = [:]) throws {
    root = FileManager.default.temporaryDirectory.path + "/ringback-doctor-\(UUID().uuidString.prefix(8))"
    try FileManager.default.createDirectory(atPath: root, withIntermediateDirectories: false)
    for (path, text) in files { try add(path, text) }
  }

  deinit { try? FileManager.default.removeItem(atPath: root) }

  func add(_ path: String, _ text: String = "", mode: Int = 0o644) throws {
    let place = URL(filePath: root + path)
    try FileManager.default.createDirectory(
      at: place.deletingLastPathComponent(), withIntermediateDirectories: true)
    try Data(text.utf8).write(to: place)
    try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: place.path)
  }

  func addDirectory(_ path: String, mode: Int = 0o755) throws {
    try FileManager.default.createDirectory(atPath: root + path, withIntermediateDirectories: true)
    try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: root + path)
  }

  func addLink(_ path: String, to target: String) throws {
    let place = URL(filePath: root + path)
    try FileManager.default.createDirectory(
      at: place.deletingLastPathComponent(), withIntermediateDirectories: true)
    try FileManager.default.createSymbolicLink(atPath: place.path, withDestinationPath: target)
  }

  func addProgram(_ process: Int, _ words: String...) throws {
    try add("/proc/\(process)/cmdline", words.map { "\($0)\0" }.joined())
  }

  /// As root sees it, or another user who is in no group of ours.
  func tree(user: UInt32 = 0, groups: Set<UInt32> = []) -> SystemTree {
    SystemTree(root: root, user: user, groups: groups)
  }

  /// What a domain 0 of Xen 4.20 has, all in order.
  static func domain0() throws -> MachineTree {
    let machine = try MachineTree([
      "/sys/hypervisor/type": "xen\n", "/sys/hypervisor/version/major": "4\n",
      "/sys/hypervisor/version/minor": "20\n", "/sys/hypervisor/version/extra": ".1\n",
      "/sys/module/xen_gntdev/parameters/limit": "65536\n", "/dev/xen/gntdev": "", "/dev/xen/evtchn": "",
      "/dev/xen/privcmd": "", "/proc/sys/kernel/io_uring_disabled": "0\n",
      "/proc/self/limits": limits(files: "1048576", memory: "unlimited"),
    ])
    for path in [
      "/etc/xen/scripts/block-tap", "/usr/bin/qemu-storage-daemon", "/usr/bin/setpriv", "/usr/bin/ringback",
    ] {
      try machine.add(path, mode: 0o755)
    }
    try machine.addLink("/usr/sbin/tap-ctl", to: "../bin/ringback")
    try machine.addDirectory("/run")
    return machine
  }

  /// As the kernel tells them.
  static func limits(files: String, memory: String) -> String {
    """
    Limit                     Soft Limit           Hard Limit           Units
    Max open files            1024                 \(files)              files
    Max locked memory         8192                 \(memory)              bytes
    Max open files limit      1                    1                    nothing
    """
  }
}
