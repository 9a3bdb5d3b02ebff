/// What serving network interfaces needs beside what disks need, looked at when the kind vif is served.
struct InterfaceChecks {
  let tree: SystemTree
  /// The daemon, if it is known; its capabilities count, otherwise this process'.
  var daemon: Int32?

  /// TAPs are made by opening it (Linux, Documentation/networking/tuntap.rst).
  var tun: Check {
    let path = "/dev/net/tun"
    guard tree.exists(path) else {
      let remedy =
        tree.exists("/sys/module/tun")
        ? "tun is loaded: /dev has to be a devtmpfs, or udev has to run; in a container, give it the device"
        : "modprobe tun; for all boots to come: echo tun >> /etc/modules-load.d/tun.conf"
      return .problem("tun", "\(path), to make the TAPs of interfaces, is not there", mend: remedy)
    }
    guard tree.mayUse(path) else {
      return .problem(
        "tun", "\(path), to make the TAPs of interfaces, is closed to this user (\(tree.user))",
        mend: "run as root, or give the device to the daemon's user with a udev rule")
    }
    return .ok("tun", "\(path) is there, to make the TAPs of interfaces")
  }

  /// CAP_NET_ADMIN, number 12 (linux/capability.h): for TUNSETIFF of a TAP that is nobody's, and for setting up
  /// interfaces.
  var capability: Check {
    let whose = daemon.map { "the daemon (pid \($0))" } ?? "this user"
    guard let has = tree.hasCapability(12, process: daemon) else {
      return .warning(
        "net admin", "whether \(whose) has CAP_NET_ADMIN cannot be read", mend: "mount /proc, and run as root"
      )
    }
    guard has else {
      return .problem(
        "net admin", "\(whose) lacks CAP_NET_ADMIN, without which TAPs cannot be made",
        mend:
          "run as root; in the service, CapabilityBoundingSet= has to name CAP_NET_ADMIN (systemctl edit ringback)"
      )
    }
    return .ok("net admin", "\(whose) may make TAPs (CAP_NET_ADMIN)")
  }

  /// Linux' own backend takes every interface as it appears: both know the kind vif alone.
  var kernel: Check {
    guard tree.exists("/sys/module/xen_netback") || tree.exists("/sys/bus/xen-backend/drivers/vif") else {
      return .ok("xen-netback", "the kernel's own backend is not loaded")
    }
    return .problem(
      "xen-netback",
      "the kernel's own backend is loaded and serves every interface, so that none is served here",
      mend:
        "shut the guests down that it serves, then rmmod xen-netback; for all boots to come: echo blacklist"
        + " xen-netback > /etc/modprobe.d/ringback.conf. Or take vif out of the daemon's kinds")
  }
}
