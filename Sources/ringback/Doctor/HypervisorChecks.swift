/// Whether Xen lies below, and whether its devices can be used.
struct HypervisorChecks {
  let tree: SystemTree
  /// Guest pages that one queue keeps mapped at most.
  var persistentPageLimit = 4096

  /// Xen says so in sysfs, and in xenfs where that is mounted.
  var isXen: Bool {
    tree.text("/sys/hypervisor/type") == "xen" || tree.exists("/proc/xen/capabilities")
  }

  var xen: Check {
    guard isXen else {
      let other = tree.text("/sys/hypervisor/type").map { ", but \($0)" } ?? ""
      return .problem(
        "xen", "no Xen lies below this system\(other)",
        mend: "install Xen (Debian: apt install xen-system-amd64) and boot it. Without it, `ringback demo`"
          + " (`make demo` in the source tree) shows all of this, and `ringback loopback` plays a machine for"
          + " the other commands, which join it with --hypervisor loopback")
    }
    let version = ["major", "minor", "extra"].compactMap { tree.text("/sys/hypervisor/version/\($0)") }
    let name = version.count < 2 ? "Xen" : "Xen \(version[0]).\(version[1])\(version.dropFirst(2).joined())"
    return .ok("xen", "\(name) lies below this system")
  }

  /// Each device that is opened, or that xl opens.
  var devices: [Check] {
    [
      device("gntdev", module: "xen-gntdev", use: "to map and copy guests' pages"),
      device("evtchn", module: "xen-evtchn", use: "to hear from guests"),
      device("privcmd", module: "xen-privcmd", use: "for xl", isNeeded: false),
    ]
  }

  private func device(_ name: String, module: String, use: String, isNeeded: Bool = true) -> Check {
    let path = "/dev/xen/\(name)"
    guard tree.exists(path) else {
      let isLoaded = tree.exists("/sys/module/\(module.replacing("-", with: "_"))")
      let remedy =
        isLoaded
        ? "\(module) is loaded: /dev has to be a devtmpfs, or udev has to run"
        : "modprobe \(module); for all boots to come: echo \(module) >> /etc/modules-load.d/xen.conf"
      return Check(
        name: name, verdict: isNeeded ? .problem : .warning, finding: "\(path), \(use), is not there",
        remedy: remedy)
    }
    guard tree.mayUse(path) else {
      return Check(
        name: name, verdict: isNeeded ? .problem : .warning,
        finding: "\(path), \(use), is closed to this user (\(tree.user))",
        remedy: "run as root, or give the device to the daemon's user with a udev rule")
    }
    return .ok(name, "\(path) is there, \(use)")
  }

  /// gntdev's bound on mappings: in one call since Linux 5.7, of all handles together before. Nil where the
  /// kernel has none.
  var mappingLimit: Check? {
    let path = "/sys/module/xen_gntdev/parameters/limit"
    guard let text = tree.text(path) else { return nil }
    let remedy =
      "echo 65536 > \(path); for all boots to come, options xen-gntdev limit=65536 in /etc/modprobe.d"
    guard let limit = UInt64(text) else {
      return .warning("gntdev limit", "\(path) is no number", mend: remedy)
    }
    // A ring has 16 pages at most, an indirect request 256 segments.
    if limit < 256 {
      return .problem("gntdev limit", "only \(limit) pages of guests can be mapped at once", mend: remedy)
    }
    if limit < persistentPageLimit {
      return .warning(
        "gntdev limit",
        "\(limit) pages of guests can be mapped, fewer than a queue may keep (--persistent-pages"
          + " \(persistentPageLimit)); before Linux 5.7 that is the limit of all queues together",
        mend: remedy)
    }
    return .ok(
      "gntdev limit",
      "\(limit) pages of guests can be mapped at once; a queue keeps \(persistentPageLimit) at most")
  }

  /// Xen's bound on the grants that this domain maps, of which a frame of its table holds 256
  /// (xen/common/grant_table.c, gnttab_max_maptrack_frames).
  func grantLimit(frames: UInt64) -> Check {
    let (grants, overflow) = frames.multipliedReportingOverflow(by: 256)
    let mappings = overflow ? UInt64.max : grants
    guard mappings >= 8 * UInt64(persistentPageLimit) else {
      return .warning(
        "grant frames",
        "Xen lets this domain map \(mappings) grants: \(mappings / UInt64(persistentPageLimit)) queues with"
          + " \(persistentPageLimit) pages each",
        mend: "boot Xen with gnttab_max_maptrack_frames=1024 or more, or serve with fewer --persistent-pages")
    }
    return .ok("grant frames", "Xen lets this domain map \(mappings) grants")
  }
}
